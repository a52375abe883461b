"""Stacked optimizers against the ones for single parameters."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn
from transformers import Adafactor

from mhrctl.config.sections import PretrainParams
from mhrctl.training.optimizers import StackedAdafactor, clip_runs, make_optimizer, rate_settings, select_runs


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("scale_parameter", [True, False])
@pytest.mark.parametrize("size", [(4, 5, 6), (5, 6), (7,)], ids=str)
def test_stacked_adafactor_equals_transformers_on_every_run_and_layer(
    scale_parameter: bool, weight_decay: float, size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    stacked = nn.Parameter(torch.randn(2, 3, *size))
    singles = [[nn.Parameter(layer.detach().clone()) for layer in run] for run in stacked]
    ours = StackedAdafactor([{"params": [stacked], "lr": 0.05}], scale_parameter=scale_parameter, weight_decay=weight_decay)
    theirs = Adafactor(
        [layer for run in singles for layer in run],
        lr=0.05,
        scale_parameter=scale_parameter,
        relative_step=False,
        warmup_init=False,
        weight_decay=weight_decay,
    )
    for _ in range(4):
        grad = torch.randn_like(stacked)
        stacked.grad = grad
        for run, layers in enumerate(singles):
            for layer, single in enumerate(layers):
                single.grad = grad[run, layer].clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(stacked, torch.stack([torch.stack(list(run)) for run in singles]))


def test_runs_are_clipped_one_by_one() -> None:
    first, second = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2, 2, 2))
    first.grad, second.grad = torch.tensor([[3.0, 0, 0], [0.3, 0, 0]]), torch.zeros(2, 2, 2)
    second.grad[0, 0, 0] = 4.0
    norms = clip_runs([first, second], 1.0)
    torch.testing.assert_close(norms, torch.tensor([5.0, 0.3]))
    torch.testing.assert_close(first.grad, torch.tensor([[0.6, 0, 0], [0.3, 0, 0]]))
    assert second.grad[0, 0, 0] == pytest.approx(0.8)


def test_a_run_without_numbers_leaves_the_others_alone() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    parameter.grad = torch.tensor([[0.3, 0.0], [torch.nan, 0.0], [torch.inf, 0.0]])
    assert clip_runs([parameter], 1.0).isfinite().tolist() == [True, False, False]
    assert parameter.grad[0].tolist() == pytest.approx([0.3, 0.0])


def test_the_settings_of_the_rates_are_known() -> None:
    skills, routing = nn.Parameter(torch.zeros(1, 1, 2, 2)), nn.Parameter(torch.zeros(1, 1, 2, 2))
    settings = PretrainParams(steps=1, batch_size=1)
    assert rate_settings(make_optimizer(settings, skills=[skills], routing=[routing])) == ["lr", "routing_lr"]
    assert rate_settings(make_optimizer(settings, skills=[], routing=[routing])) == ["routing_lr"]
    assert rate_settings(torch.optim.SGD([skills], lr=1.0)) == ["lr"]


def test_adapters_and_routing_have_rates_of_their_own() -> None:
    skills, routing = nn.Parameter(torch.zeros(1, 1, 2, 2)), nn.Parameter(torch.zeros(1, 1, 2, 2))
    settings = PretrainParams(steps=1, batch_size=1, lr=0.1, routing_lr=0.5, weight_decay=0.3)
    optimizer = make_optimizer(settings, skills=[skills], routing=[routing])
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.3), (0.5, 0.01)]


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_selected_runs_go_on_as_if_the_others_had_never_been(name: Literal["adamw", "adafactor"]) -> None:
    torch.manual_seed(0)
    settings = PretrainParams(
        steps=1, batch_size=1, optimizer=name, lr=0.1, routing_lr=0.5, weight_decay=0.1, scale_parameter=True
    )
    sizes, kept = [(3, 2, 4, 5), (3, 2, 7)], [0, 2]
    grads = [[torch.randn(size) for size in sizes] for _ in range(6)]

    def optimizer_of(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return make_optimizer(settings, skills=parameters[:1], routing=parameters[1:])

    def train(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: list[list[torch.Tensor]]) -> None:
        for step in steps:
            for parameter, grad in zip(parameters, step, strict=True):
                parameter.grad = grad.clone()
            optimizer.step()

    every = [nn.Parameter(torch.randn(size)) for size in sizes]
    whole = optimizer_of(every)
    train(whole, every, grads[:3])
    some = [nn.Parameter(parameter.detach()[kept]) for parameter in every]
    part = optimizer_of(some)
    select_runs(whole, part, kept)
    train(whole, every, grads[3:])
    train(part, some, [[grad[kept] for grad in step] for step in grads[3:]])
    for selected, parameter in zip(some, every, strict=True):
        torch.testing.assert_close(selected, parameter[kept])


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_an_optimizer_of_nothing_does_nothing(optimizer: Literal["adamw", "adafactor"]) -> None:
    make_optimizer(PretrainParams(steps=1, batch_size=1, optimizer=optimizer), skills=[], routing=[]).step()
