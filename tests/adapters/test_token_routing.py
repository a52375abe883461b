"""The routing of tokens, and the updates that it mixes, against their formulas token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.token_routing import TokenRouting, mixed


def tokens_and_router() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 5, 8), torch.randn(2, 4, 8)


def test_the_weights_are_the_softmax_of_the_products_with_directions() -> None:
    x, router = tokens_and_router()
    weights = TokenRouting()(x, router)
    for group in range(2):
        torch.testing.assert_close(weights[group], torch.softmax(x[group] @ router[group].T, -1))
    torch.testing.assert_close(TokenRouting(temperature=0.5)(x, router), TokenRouting()(x, 2 * router))


def test_the_largest_count_alone_and_by_their_size() -> None:
    x, router = tokens_and_router()
    weights = TokenRouting(top=2, unsigned=True)(x, router)
    assert ((weights > 0).sum(-1) == 2).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    scores = (x[1, 3] @ router[1].T).abs()
    best = scores.topk(2)
    torch.testing.assert_close(weights[1, 3, best.indices], torch.softmax(best.values, 0))
    torch.testing.assert_close(TokenRouting(top=2, unsigned=True)(-x, router), weights)
    assert not torch.allclose(TokenRouting(top=2)(x, router), weights)


def test_more_than_there_are_is_all() -> None:
    x, router = tokens_and_router()
    torch.testing.assert_close(TokenRouting(top=9)(x, router), TokenRouting()(x, router))


@pytest.mark.parametrize("of_a", [4, 1])
def test_a_mixture_is_the_sum_of_the_experts_outputs(of_a: int) -> None:
    x, router = tokens_and_router()
    down, up, weights = torch.randn(2, of_a, 3, 8), torch.randn(2, 4, 3, 6), TokenRouting(top=3)(x, router)
    expected = torch.zeros(2, 5, 6)
    for group in range(2):
        for token in range(5):
            for expert in range(4):
                a = down[group, expert % of_a]
                expected[group, token] += weights[group, token, expert] * (x[group, token] @ a.T @ up[group, expert])
    torch.testing.assert_close(mixed(x, down.flatten(1, 2), up.flatten(1, 2), weights), expected, rtol=1e-5, atol=1e-6)


def test_an_expert_without_a_direction_has_no_part() -> None:
    x, router = tokens_and_router()
    router[0, 2] = 0
    router[1] = 0
    for routing in (TokenRouting(), TokenRouting(top=3, unsigned=True)):
        weights = routing(x, router)
        torch.testing.assert_close(weights[0][:, [0, 1, 3]], routing(x, router[:, [0, 1, 3]])[0])
        assert not weights[0, :, 2].any()
        assert not weights[1].any()
