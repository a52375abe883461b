"""Products with frozen weights and adapters against autograd's own, and the layout of their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhrctl.models.product import EqualGroups, Groups, MaskedGroups, SplitGroups, adapted_product, updated

GROUPS: dict[str, tuple[list[int], int, Groups]] = {
    "equal": ([4, 4, 4], 2, EqualGroups(3)),
    "one": ([12], 2, EqualGroups(1)),
    "masked": ([7, 0, 5], 2, MaskedGroups(torch.tensor([0] * 7 + [2] * 5), 3, 2)),
    "split": ([7, 0, 5], 2, SplitGroups([7, 0, 5])),
}
"""{name: (tokens of each group, rank, the groups)}."""


def made(kind: str, *, learned: bool = True) -> tuple[Tensor, ...]:
    """x, W, bias, A and B."""
    sizes, rank, _ = GROUPS[kind]
    torch.manual_seed(0)
    x, down, up = torch.randn(2, 6, 5), torch.randn(len(sizes), rank, 5), torch.randn(len(sizes), rank, 3)
    for tensor in (x, down, up):
        tensor.requires_grad_(learned)
    return x, torch.randn(3, 5), torch.randn(3), down, up


def by_hand(kind: str, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """The updates, token by token."""
    owners = [group for group, size in enumerate(GROUPS[kind][0]) for _ in range(size)]
    rows = [token @ down[group].T @ up[group] for token, group in zip(x.reshape(-1, 5), owners, strict=True)]
    return torch.stack(rows).view(*x.shape[:-1], 3)


@pytest.mark.parametrize("kind", GROUPS)
def test_product_and_gradients_are_those_of_each_token(kind: str) -> None:
    x, weight, bias, down, up = made(kind)
    given = adapted_product(x, weight, bias, down, up, GROUPS[kind][2])
    expected = torch.nn.functional.linear(x, weight, bias) + by_hand(kind, x, down, up)
    torch.testing.assert_close(given, expected)
    counts = torch.randn_like(given)
    gradients, others = (torch.autograd.grad((each * counts).sum(), (x, down, up)) for each in (given, expected))
    torch.testing.assert_close(gradients, others)


@pytest.mark.parametrize("kind", GROUPS)
def test_an_update_leaves_what_it_is_added_to(kind: str) -> None:
    x, weight, bias, down, up = made(kind)
    y = torch.nn.functional.linear(x, weight, bias).detach()
    before = y.clone()
    given = updated(y, x, down, up, GROUPS[kind][2])
    assert torch.equal(y, before)
    expected = y + by_hand(kind, x, down, up)
    torch.testing.assert_close(given, expected)
    counts = torch.randn_like(given)
    gradients, others = (torch.autograd.grad((each * counts).sum(), (x, down, up)) for each in (given, expected))
    torch.testing.assert_close(gradients, others)


@pytest.mark.parametrize("kind", GROUPS)
def test_what_follows_a_gradient_reads_it_in_order(kind: str) -> None:
    """Autograd's own gradient of a product over groups is transposed, and an operation on it took ten times as long."""
    x, weight, bias, down, up = made(kind)
    for result in (
        adapted_product(x, weight, bias, down, up, GROUPS[kind][2]),
        updated(torch.zeros(2, 6, 3), x, down, up, GROUPS[kind][2]),
    ):
        counts = torch.randn(6, 2, 3).transpose(0, 1)  # as attention hands it back
        assert torch.autograd.grad(result, x, counts)[0].is_contiguous()


def test_below_the_first_layer_no_gradient_is_made() -> None:
    x, weight, bias, down, up = made("masked")
    adapted_product(x.detach(), weight, bias, down, up, GROUPS["masked"][2]).sum().backward()
    updated(torch.zeros(2, 6, 3), x.detach(), down, up, GROUPS["masked"][2]).sum().backward()
    assert x.grad is None
    assert down.grad is not None


def test_equal_groups_compute_what_torch_computes_to_the_bit() -> None:
    x, weight, bias, down, up = made("equal", learned=False)
    y = torch.nn.functional.linear(x, weight, bias)
    low = torch.bmm(down, x.view(3, -1, 5).transpose(1, 2))
    expected = torch.baddbmm(y.view(3, -1, 3), low.transpose(1, 2), up).view_as(y)
    assert torch.equal(adapted_product(x, weight, bias, down, up, EqualGroups(3)), expected)
