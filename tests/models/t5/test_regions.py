"""Regions against plain operations and finite differences, run as they are, and counted when they are compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from mhrctl.models.t5 import regions
from mhrctl.models.t5.functions import project as uncompiled
from tests.models.made import not_compiled
from tests.models.t5.test_functions import SIZES, segments_of, tensors


@pytest.fixture(autouse=True)
def as_they_are() -> Iterator[None]:
    """What torch.compile makes of a region is in `test_model`; it takes long."""
    with not_compiled():
        yield


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_project(sizes: list[int], normed: bool, residual: bool) -> None:
    n = len(sizes)
    weights = tensors((4, 6), (3, 6), (4, 6), grad=False)
    norm = torch.rand(6, dtype=torch.float64) + 0.5 if normed else None

    def projections(x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        updates = [(a1, b1), None, (a2, b2)]
        segments = segments_of(sizes)
        return regions.project(x, weights, updates, segments, norm=norm, eps=1e-3, residual=next(iter(rest), None))

    inputs = tensors((8, 6), (n, 1, 6), (n, 1, 4), (n, 2, 6), (n, 2, 4), *([(8, 4)] if residual else []))
    assert gradcheck(projections, inputs)
    x, a1, b1, a2, b2, *rest = (tensor.detach() for tensor in inputs)
    expected = list(uncompiled(x, weights, [(a1, b1), None, (a2, b2)], segments_of(sizes), norm=norm, eps=1e-3))
    if rest:
        expected[0] = expected[0] + rest[0]
    for actual, other in zip(projections(*inputs), expected, strict=True):
        torch.testing.assert_close(actual, other)


def test_project_without_adapters() -> None:
    (x,), (weight,) = tensors((8, 6)), tensors((4, 6), grad=False)
    assert gradcheck(lambda given: regions.project(given, [weight], [None], segments_of([8])), [x])


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("adapted", [(True, True, True), (False, True, False), (False, False, False)])
def test_feed_forward(sizes: list[int], adapted: tuple[bool, bool, bool]) -> None:
    n = len(sizes)
    gate, value, output = tensors((5, 6), (5, 6), (6, 5), grad=False)
    norm = torch.rand(6, dtype=torch.float64) + 0.5
    wanted = [size for of, size in zip(adapted, ((6, 5), (6, 5), (5, 6)), strict=True) if of]

    def layer(x: Tensor, *given: Tensor) -> Tensor:
        pairs = iter(zip(given[::2], given[1::2], strict=True))
        first, second, third = (next(pairs) if of else None for of in adapted)
        return regions.feed_forward(x, (gate, value, output), (first, second, third), segments_of(sizes), norm=norm, eps=1e-3)

    inputs = tensors((8, 6), *[(n, 2, width) for pair in wanted for width in pair])
    assert gradcheck(layer, inputs)
    if not wanted:
        x = inputs[0].detach()
        read = F.rms_norm(x, (6,), norm, 1e-3)
        expected = x + (F.gelu(read @ gate.T, approximate="tanh") * (read @ value.T)) @ output.T
        torch.testing.assert_close(layer(*inputs), expected)


def test_a_form_is_compiled_once_whatever_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    weights = tensors((4, 6), (4, 6), grad=False)
    for sizes in ([8], [3, 5], [4, 9, 2]):
        x, a, b = tensors((sum(sizes), 6), (len(sizes), 1, 6), (len(sizes), 1, 4))
        for updates in ([(a, b)] * 2, [(a, b), None]):
            sum(y.sum() for y in regions.project(x, weights, updates, segments_of(sizes))).backward()
    assert compiled == ["_project", "_project_backward"] * 2
