"""Routing weights from logits, sampled and faded."""

from __future__ import annotations

import math

import pytest
import torch

from mhrctl.adapters.routing import ROUTING_INIT, coin_gates, new_routing, normalised, of_tasks, sampled, uniform_interpolation


def test_new_logits_are_small_and_their_generators() -> None:
    drawn = new_routing(3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, new_routing(3, 4, generator=torch.Generator().manual_seed(1)))
    assert drawn.abs().max() <= ROUTING_INIT
    assert drawn.unique().numel() == 12


def test_groups_get_what_their_tasks_have() -> None:
    parameter, ids = torch.randn(2, 3, 4, 5, 6), torch.tensor([[3, 0, 3], [1, 1, 2]])
    rows = of_tasks(parameter, ids)
    assert rows.shape == (2, 3, 3, 5, 6)
    for run, tasks in enumerate(ids.tolist()):
        for group, task in enumerate(tasks):
            assert torch.equal(rows[run, :, group], parameter[run, :, task])


def test_coefficients_sum_to_one_and_none_is_no_division_by_zero() -> None:
    torch.testing.assert_close(normalised(torch.rand(5, 4)).sum(-1), torch.ones(5))
    assert torch.equal(normalised(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_cold_samples_are_the_signs_of_logits_and_rounded_ones_are_shares() -> None:
    logits = torch.tensor([30.0, 30.0, -30.0])
    torch.testing.assert_close(sampled(logits, 0.1, straight_through=False), torch.tensor([0.5, 0.5, 0.0]))
    torch.manual_seed(0)
    rounded = sampled(torch.zeros(1000, 3, requires_grad=True), 1.0, straight_through=True)
    assert all(min(abs(share - each) for each in (0, 1 / 3, 1 / 2, 1)) < 1e-6 for share in rounded.detach().unique().tolist())
    assert rounded.requires_grad


def test_a_draw_of_no_skill_is_of_all() -> None:
    torch.manual_seed(0)
    gates = coin_gates(torch.ones(4000, 2))
    assert gates.any(-1).all()
    both, one = (gates.sum(-1) == 2).float().mean(), (gates.sum(-1) == 1).float().mean()
    assert (both.item(), one.item()) == pytest.approx((0.5, 0.5), abs=0.03)


def test_interpolation_is_a_quarter_of_a_cosine_at_the_end() -> None:
    alphas = [uniform_interpolation(step, steps=100, last=10) for step in range(100)]
    assert alphas[:90] == [1.0] * 90
    assert alphas[90:] == pytest.approx([math.cos(math.pi / 2 * n / 10) for n in range(1, 11)])
    assert uniform_interpolation(0, steps=1, last=1) == pytest.approx(0, abs=1e-12)
