"""Merges of LoRAs: equal to peft's, to their dense definitions, and one adapter merges to itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.merging import RULES, Election, Form, Merge, low_rank, shared_basis

COUNT, RANK, D_IN, D_OUT = 4, 3, 14, 10


def loras(count: int = COUNT, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, RANK, D_IN, generator=generator), torch.randn(count, RANK, D_OUT, generator=generator)


def draws(count: int = COUNT, *, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + place) for place in range(count)]


def updates(a: Tensor, b: Tensor) -> Tensor:
    return b.transpose(-1, -2) @ a


def merged(name: str, a: Tensor, b: Tensor, **settings: object) -> tuple[Tensor, Tensor]:
    return Merge(RULES[name], **settings)(a, b, draws(len(a)))  # type: ignore[arg-type]


def nearest(update: Tensor, rank: int = RANK) -> Tensor:
    """The best approximation of a rank, from the definition."""
    u, sizes, vh = torch.linalg.svd(update.double(), full_matrices=False)
    return ((u[:, :rank] * sizes[:rank]) @ vh[:rank]).float()


@contextmanager
def drawing(generators: list[torch.Generator], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have peft, which has one stream of random numbers for all, draw from one for each LoRA."""
    bernoulli, of_turn = torch.bernoulli, itertools.cycle(generators)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "bernoulli", lambda given: bernoulli(given, generator=next(of_turn)))
        yield


@pytest.mark.parametrize("election", ["total", "frequency"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("density", [0.2, 0.55])
@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not rule.aligned])
def test_factors_and_products_are_merged_as_peft_does(
    name: str, density: float, scale: float, election: Election, monkeypatch: pytest.MonkeyPatch
) -> None:
    function: Callable[..., Tensor] = getattr(pytest.importorskip("peft.utils.merge_utils"), name)
    options: dict[str, object] = {} if name == "task_arithmetic" else {"density": density}
    if RULES[name].elects:
        options["majority_sign_method"] = election
    settings = {"density": density, "scale": scale, "election": election}

    a, b = loras()
    with drawing(draws(), monkeypatch):  # peft gives each factor the root of a weight
        theirs = [function(list(factor), torch.full((COUNT,), scale**0.5), **options) for factor in (a, b)]
    for ours, factor in zip(merged(name, a, b, form="factors", **settings), theirs, strict=True):
        torch.testing.assert_close(ours, factor, rtol=0, atol=1e-6)
    with drawing(draws(), monkeypatch):
        whole = function(list(updates(a, b)), torch.full((COUNT,), scale), **options)
    torch.testing.assert_close(updates(*merged(name, a, b, **settings)), nearest(whole), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["product", "factors"])
@pytest.mark.parametrize("name", list(RULES))
def test_one_adapter_merges_to_itself(name: str, form: Form) -> None:
    if RULES[name].aligned and form == "factors":
        pytest.skip("products alone have a common basis")
    a, b = loras(1)
    torch.testing.assert_close(updates(*merged(name, a, b, form=form, scale=1.0)), updates(a, b)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(updates(*merged(name, a, b, form=form)), updates(a, b)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["product", "factors"])
@pytest.mark.parametrize("name", list(RULES))
def test_copies_of_an_adapter_merge_to_it_where_no_scale_is_set(name: str, form: Form) -> None:
    if RULES[name].aligned and form == "factors":
        pytest.skip("products alone have a common basis")
    a, b = loras(1)
    result = merged(name, a.expand(COUNT, -1, -1), b.expand(COUNT, -1, -1), form=form)
    torch.testing.assert_close(updates(*result), updates(a, b)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", list(RULES))
def test_the_order_of_adapters_does_not_matter(name: str) -> None:
    a, b = loras()
    merge, order = Merge(RULES[name], density=0.4), [2, 0, 3, 1]
    there = merge(a, b, draws())
    back = merge(a[order], b[order], [draws()[place] for place in order])
    torch.testing.assert_close(updates(*there), updates(*back), rtol=1e-5, atol=1e-5)


def test_knots_is_ties_in_the_common_basis_of_all_updates() -> None:
    a, b = loras()
    u, sizes, vh = torch.linalg.svd(torch.cat(list(updates(a, b).double()), 1), full_matrices=False)
    shared = torch.stack((sizes[:, None] * vh).split(D_IN, 1)).float()
    keep = int(0.3 * shared[0].numel())
    kept = torch.stack([each * (each.abs() >= each.abs().flatten().topk(keep).values.min()) for each in shared])
    agrees = kept.sign() == torch.where(kept.sum(0) >= 0, 1, -1)
    mean = (kept * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    expected = nearest(u.float() @ mean)
    torch.testing.assert_close(updates(*merged("knots_ties", a, b, density=0.3)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, COUNT])
def test_the_common_basis_gives_all_updates_back(count: int) -> None:
    a, b = loras(count)
    basis, within = shared_basis(a, b)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(basis @ within, updates(a, b), rtol=0, atol=1e-5)


def test_the_nearest_lora_is_that_of_the_dense_product_and_is_balanced() -> None:
    a, b = loras(2)
    result = low_rank(b.flatten(0, 1).T, a.flatten(0, 1), RANK)
    torch.testing.assert_close(updates(*result), nearest(updates(a, b).sum(0)), rtol=0, atol=1e-5)
    torch.testing.assert_close(result[0] @ result[0].T, result[1] @ result[1].T, rtol=0, atol=1e-4)


def test_a_product_of_lower_rank_is_filled_up_with_zeros() -> None:
    a, b = loras(1)
    result = low_rank(b[0].T, a[0], RANK + 2)
    assert result[0].shape == (RANK + 2, D_IN)
    assert not result[0][RANK:].any()
    assert not result[1][RANK:].any()
    torch.testing.assert_close(updates(*result), updates(a, b)[0], rtol=0, atol=1e-5)


def test_the_scale_is_not_squared() -> None:
    a, b = loras(1)
    for form in ("factors", "product"):
        half = updates(*merged("task_arithmetic", a, b, scale=0.5, form=form))
        torch.testing.assert_close(half, 0.5 * updates(a, b)[0], rtol=0, atol=1e-5)


def test_what_is_dropped_at_random_is_made_up_for() -> None:
    a, b = loras()
    whole = updates(*merged("task_arithmetic", a, b, form="factors"))
    many = torch.stack(
        [
            updates(*Merge(RULES["dare_linear"], density=0.5, form="factors")(a, b, draws(seed=100 * seed)))
            for seed in range(2000)
        ]
    )
    assert (many.mean(0) - whole).abs().max() < 6 * many.std(0).max() / 2000**0.5
    assert many.std(0).min() > 0


def test_factors_have_no_common_basis() -> None:
    with pytest.raises(ValueError, match="one of products"):
        Merge(RULES["knots_ties"], form="factors")
