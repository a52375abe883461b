"""Norms and gates against transformers and autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5LayerNorm

from mhrctl.models.t5.pointwise import gate, gate_backward, norm, norm_backward

DTYPES = [torch.float64, torch.float32]


def numbers(*size: int, dtype: torch.dtype = torch.float64, grad: bool = True, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_is_t5s(dtype: torch.dtype) -> None:
    layer = T5LayerNorm(6, eps=1e-3).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(6) + 0.5)
    x = numbers(8, 6, grad=False).to(dtype)
    normed, rstd = norm(x, layer.weight.detach(), 1e-3)
    assert (normed.dtype, rstd.dtype, rstd.shape) == (dtype, torch.float32, (8, 1))
    torch.testing.assert_close(normed, layer(x).detach())
    torch.testing.assert_close(rstd[:, 0], (x.float().square().mean(1) + 1e-3).rsqrt())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_the_norm_is_autograds(dtype: torch.dtype) -> None:
    x, weight = numbers(8, 6, dtype=dtype), numbers(6, dtype=dtype, grad=False)
    grad = numbers(8, 6, dtype=dtype, grad=False, seed=1)
    normed, rstd = norm(x.detach(), weight, 1e-3)
    F.rms_norm(x, (6,), weight, 1e-3).backward(grad)
    assert x.grad is not None
    torch.testing.assert_close(norm_backward(grad.clone(), x.detach(), rstd, weight), x.grad)
    torch.testing.assert_close(normed, F.rms_norm(x.detach(), (6,), weight, 1e-3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gate_and_its_gradients_are_autograds(dtype: torch.dtype) -> None:
    gates, values, grad = (numbers(8, 6, dtype=dtype, seed=seed) for seed in range(3))
    product = F.gelu(gates, approximate="tanh") * values
    product.backward(grad := grad.detach())
    torch.testing.assert_close(gate(gates.detach(), values.detach()), product.detach())
    of_gates, of_values, again = gate_backward(grad.clone(), gates.detach(), values.detach())
    assert gates.grad is not None
    assert values.grad is not None
    torch.testing.assert_close(of_gates, gates.grad)
    torch.testing.assert_close(of_values, values.grad)
    torch.testing.assert_close(again, product.detach())


def test_bf16_is_computed_in_fp32_and_rounded_once() -> None:
    gates, values = (numbers(8, 6, grad=False, seed=seed).bfloat16() for seed in range(2))
    wide = F.gelu(gates.float(), approximate="tanh").bfloat16() * values
    torch.testing.assert_close(gate(gates, values), wide)


def test_large_tensors_are_taken_by_parts_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    gates, values, grad = (numbers(2**12 + 7, 66, dtype=torch.float32, grad=False, seed=seed) for seed in range(3))
    weight = numbers(66, dtype=torch.float32, grad=False)

    def computed() -> list[torch.Tensor]:
        normed, rstd = norm(gates, weight, 1e-3)
        backward = norm_backward(grad.clone(), gates, rstd, weight)
        return [normed, rstd, backward, gate(gates, values), *gate_backward(grad.clone(), gates, values)]

    by_parts = computed()
    monkeypatch.setattr("mhrctl.models.t5.pointwise.LARGE", gates.numel() + 1)
    for part, whole in zip(by_parts, computed(), strict=True):
        assert torch.equal(part, whole)
