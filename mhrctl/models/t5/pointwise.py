"""These surround the matrix products of a T5 block, token by token: norms and gated activations, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

# gelu(x) by tanh is x (1 + tanh z) / 2 with z = sqrt(2 / pi) (x + 0.044715 x^3), which is x sigmoid(2 z): SLOPE has the 2.
SLOPE = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715
LARGE = 2**18
"""Numbers of a tensor from which on it is taken by parts on a CPU."""
CACHED = 2**16
"""Numbers of such a part: with the few others that are read and written, they stay in a core's cache."""
VECTORS = 32
"""Rows at a time are a multiple of this, so that no part of a tensor but its last ends within a vector."""


@dataclass(frozen=True)
class Pointwise:
    """These are the functions of this module, as they are or compiled, each then a kernel or two.

    Attributes:
        norm: see `norm`.
        norm_backward: see `norm_backward`.
        gate: see `gate`.
        gate_backward: see `gate_backward`.
    """

    norm: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
    norm_backward: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    gate: Callable[[Tensor, Tensor], Tensor]
    gate_backward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Compute T5's norm of [tokens, d], x / rms(x) * weight, and 1 / rms(x) [tokens, 1], which is at least in fp32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    normed, rstds = torch.empty_like(x), x.new_empty(len(x), 1, dtype=dtype)
    for rows, rstd, result in _parts(x, rstds, normed):
        # A norm that sums in fp32 reads bf16 as it is; squares of a wide copy would be two more tensors.
        torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=dtype, out=rstd)
        rstd.square_().div_(x.shape[1]).add_(eps).rsqrt_()
        torch.mul(rows, rstd, out=result).mul_(weight)
    return normed, rstds


def norm_backward(grad: Tensor, x: Tensor, rstd: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of x; that of the normed output, `grad`, is used up.

    With g = grad * weight it is rstd (g - x rstd^2 mean(g x)): the second term is what x changes through its own length.
    """
    for g, rows, by_row in _parts(grad, x, rstd):
        g.mul_(weight)
        along = (g * rows).sum(1, keepdim=True, dtype=rstd.dtype).mul_(by_row.square()).div_(x.shape[1])
        g.addcmul_(rows, along.to(x.dtype), value=-1).mul_(by_row)
    return grad


def gate(gates: Tensor, values: Tensor) -> Tensor:
    """Compute gelu(gates) * values, by the tanh approximation: gates * sigmoid(2 sqrt(2 / pi) (gates + 0.044715 gates^3))."""
    if gates.is_cuda:
        return F.gelu(gates, approximate="tanh") * values
    product = torch.empty_like(gates)
    for rows, value, result in _parts(gates, values, product):
        x = _wide(rows)  # vectorised sigmoids take a third of the time of F.gelu on CPU
        activation = (x * x).mul_(SLOPE * CUBIC).add_(SLOPE).mul_(x).sigmoid_().mul_(x)
        torch.mul(activation.to(gates.dtype), value, out=result)
    return product


def gate_backward(grad: Tensor, gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of gates and values, and the output of `gate` again; the gradient of that output is used up."""
    # With u = SLOPE (x + CUBIC x^3), (x sigmoid(u))' is sigmoid + x sigmoid (1 - sigmoid) u', and u' is
    # SLOPE (1 + 3 CUBIC x^2).
    grad_gates, product = torch.empty_like(gates), torch.empty_like(gates)
    for g, rows, value, of_gate, result in _parts(grad, gates, values, grad_gates, product):
        x = _wide(rows)
        square = x * x
        sigmoid = (square * (SLOPE * CUBIC)).add_(SLOPE).mul_(x).sigmoid_()
        activation = sigmoid * x
        slope = square.mul_(3 * SLOPE * CUBIC).add_(SLOPE).mul_(activation).mul_(1 - sigmoid).add_(sigmoid)
        activation = activation.to(gates.dtype)
        torch.mul(slope.to(gates.dtype).mul_(g), value, out=of_gate)
        g.mul_(activation)
        torch.mul(activation, value, out=result)
    return grad_gates, grad, product


EAGER = Pointwise(norm, norm_backward, gate, gate_backward)


@cache
def compiled() -> Pointwise:
    """Return the same by torch.compile, which compiles each at its first use, for all lengths."""
    functions = (norm, norm_backward, gate, gate_backward)
    return Pointwise(*(torch.compile(function, dynamic=True) for function in functions))  # type: ignore[arg-type]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same rows of several [tokens, ...], on a CPU as many at a time as its cache holds, as views.

    What is made of them is the same to the bit: each row is read by itself, and vectors end where they ended.
    """
    first = tensors[0]
    if torch.compiler.is_compiling() or first.is_cuda or first.numel() < LARGE:
        yield tensors
    else:
        rows = max(VECTORS, CACHED // first.shape[1] // VECTORS * VECTORS)
        yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)
