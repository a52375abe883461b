from __future__ import annotations

import pytest
import torch

from mhrctl.adapters.mixing import mix

LAYERS, HEADS, SKILLS, D, R = 3, 2, 4, 5, 2


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_skills_are_summed_by_their_weights_and_so_are_gradients(runs: int, groups: int, shared: bool) -> None:
    """As the explicit sum, also of one bank that all runs share."""
    weights = numbers(runs, groups, LAYERS, HEADS, SKILLS, seed=0)
    bank = numbers(1 if shared else runs, LAYERS, HEADS, SKILLS, D, R, seed=1)
    expected = torch.einsum("uglhs,ulhsdr->lughdr", weights, bank.expand(runs, *bank.shape[1:])).flatten(1, 2)
    mixed = mix(weights, bank)
    torch.testing.assert_close(mixed, expected)
    towards = numbers(*mixed.shape, seed=2).detach()
    torch.testing.assert_close(
        torch.autograd.grad(mixed, (weights, bank), towards), torch.autograd.grad(expected, (weights, bank), towards)
    )


def test_one_skill_is_itself() -> None:
    bank = numbers(2, LAYERS, HEADS, 1, D, R, seed=0)
    assert torch.equal(mix(None, bank), bank[:, :, :, 0].transpose(0, 1))
