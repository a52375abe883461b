"""Gradients that are written out, against finite differences; values against plain operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from mhrctl.models.t5.functions import gated_project, project, rms_norm, token_losses
from mhrctl.models.t5.segments import Segments

SIZES = [[8], [4, 4], [1, 2, 5]]


def segments_of(sizes: list[int]) -> Segments:
    return Segments(sizes, width=4, dtype=torch.float64, device=torch.device("cpu"))


def tensors(*sizes: tuple[int, ...], grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_(grad) for size in sizes]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("normed", [False, True])
def test_project(sizes: list[int], normed: bool) -> None:
    n = len(sizes)
    weights = tensors((4, 6), (3, 6), (4, 6), grad=False)
    norm = torch.rand(6, dtype=torch.float64) + 0.5 if normed else None

    def projections(x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor) -> tuple[Tensor, ...]:
        return project(x, weights, [(a1, b1), None, (a2, b2)], segments_of(sizes), norm=norm, eps=1e-3)

    inputs = tensors((8, 6), (n, 1, 6), (n, 1, 4), (n, 2, 6), (n, 2, 4))
    assert gradcheck(projections, inputs)
    x, a1, b1, _, _ = (tensor.detach() for tensor in inputs)
    read = x if norm is None else x * (x.pow(2).mean(1, keepdim=True) + 1e-3).rsqrt() * norm
    rows = [part @ (weights[0] + b.T @ a).T for part, a, b in zip(read.split(sizes), a1, b1, strict=True)]
    y1, y2, _ = projections(*inputs)
    torch.testing.assert_close(y1, torch.cat(rows))
    torch.testing.assert_close(y2, read @ weights[1].T)


@pytest.mark.parametrize("updated", [False, True])
def test_gated_project(updated: bool) -> None:
    (weight,) = tensors((4, 6), grad=False)
    segments = segments_of([3, 5])

    def projection(gate: Tensor, value: Tensor, *update: Tensor) -> Tensor:
        return gated_project(gate, value, weight, (update[0], update[1]) if update else None, segments)

    inputs = tensors((8, 6), (8, 6), *([(2, 2, 6), (2, 2, 4)] if updated else []))
    assert gradcheck(projection, inputs)
    if not updated:
        expected = F.linear(F.gelu(inputs[0], approximate="tanh") * inputs[1], weight)
        torch.testing.assert_close(projection(*inputs), expected)


def test_rms_norm() -> None:
    weight, x = torch.rand(6, dtype=torch.float64) + 0.5, *tensors((8, 6))
    assert gradcheck(lambda x: rms_norm(x, weight, 1e-3), x)
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), F.rms_norm(x, (6,), weight, 1e-3))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_token_losses(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.models.t5.functions._LOGITS", 18)  # two tokens at a time
    states, weight = (tensor.detach().float() for tensor in tensors((5, 4), (9, 4)))
    labels = torch.tensor([3, -100, 0, 8, 3])
    gradients = []
    for ours in (True, False):
        leaf = states.clone().requires_grad_()
        if ours:
            losses = token_losses(leaf, weight, labels, smoothing)
        else:
            losses = F.cross_entropy(leaf @ weight.T, labels, label_smoothing=smoothing, reduction="none")
        (losses * torch.arange(1, 6)).sum().backward()
        gradients += [losses.detach(), leaf.grad]
    torch.testing.assert_close(gradients[:2], gradients[2:])
