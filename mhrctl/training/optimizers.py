"""Optimizers work over stacked parameters, whose first two axes are runs and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mhrctl.adapters.adapter import Adapter

STACKED = 2
"""Leading axes of a stacked parameter: every (run, layer) is a parameter of its own to the optimizer."""
ROUTING_WEIGHT_DECAY = {"adamw": 0.01, "adafactor": 0.0}
"""The authors' code leaves the routing's weight decay at the optimizer's default (docs/recipe.md, section 3.1)."""
RATE = "rate"
"""What a group of parameters has under this name is the setting that its learning rate comes from; `lr` if it has nothing."""


class StackedAdafactor(Optimizer):
    """It is Adafactor with a given rate, as `transformers.Adafactor(relative_step=False, warmup_init=False)` without momentum.

    What Adafactor takes over a whole parameter (root mean squares for clipping and scaling) is taken for each (run, layer),
    so stacking changes nothing.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        scale_parameter: bool,
        weight_decay: float = 0.0,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
    ) -> None:
        """Make the optimizer; the arguments are those of transformers' Adafactor."""
        self.eps, self.clip_threshold, self.decay_rate = eps, clip_threshold, decay_rate
        self.scale_parameter = scale_parameter
        super().__init__(params, {"lr": 1e-3, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step."""
        if closure is not None:
            raise ValueError("closures are not supported")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["weight_decay"])

    def _update(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None  # noqa: S101 - for the type checker; the caller looked
        state["step"] = state.get("step", 0) + 1
        decay = 1 - state["step"] ** self.decay_rate
        squared = grad.square() + self.eps[0]
        if grad.dim() >= STACKED + 2:
            row, column = _average(state, "row", squared.mean(-1), decay), _average(state, "column", squared.mean(-2), decay)
            update = (row / row.mean(-1, keepdim=True)).rsqrt().unsqueeze(-1) * column.rsqrt().unsqueeze(-2) * grad
        else:  # a vector has no rows and columns
            update = _average(state, "square", squared, decay).rsqrt() * grad
        update /= (_rms(update) / self.clip_threshold).clamp(min=1.0)
        scale = _rms(parameter).clamp(min=self.eps[1]) if self.scale_parameter else 1.0
        if weight_decay:
            parameter.sub_(parameter * (weight_decay * lr * scale))
        parameter.sub_(update * (lr * scale))


class OptimizerSettings(Protocol):
    """These settings are of an optimizer: sections of params.yaml have them, and whatever else has these attributes."""

    @property
    def optimizer(self) -> str:
        """`adamw` or `adafactor`."""

    @property
    def lr(self) -> float:
        """The peak rate of the adapters."""

    @property
    def routing_lr(self) -> float:
        """The peak rate of the routing."""

    @property
    def weight_decay(self) -> float:
        """Of the adapters."""

    @property
    def scale_parameter(self) -> bool:
        """Adafactor's: whether a rate is times the size of what it changes."""


def make_optimizer(
    settings: OptimizerSettings, *, skills: Sequence[nn.Parameter], routing: Sequence[nn.Parameter], fused: bool = True
) -> Optimizer:
    """Make the optimizer of adapters and routing, with a rate for each, and its setting's name; `fused` is AdamW's."""
    groups: list[dict[str, Any]] = []
    if skills or not routing:  # of what is trained by neither there is an optimizer all the same, which does nothing
        groups.append({"params": list(skills), "lr": settings.lr, "weight_decay": settings.weight_decay, RATE: "lr"})
    if routing:
        decay = ROUTING_WEIGHT_DECAY[settings.optimizer]
        groups.append({"params": list(routing), "lr": settings.routing_lr, "weight_decay": decay, RATE: "routing_lr"})
    if settings.optimizer == "adafactor":
        return StackedAdafactor(groups, scale_parameter=settings.scale_parameter)
    return AdamW(groups, fused=fused)


def optimizer_of(adapter: Adapter, settings: OptimizerSettings, *, fused: bool = True) -> Optimizer:
    """Make the optimizer of what an adapter trains."""
    skills = [parameter for parameter in adapter.skill_parameters() if parameter.requires_grad]
    return make_optimizer(settings, skills=skills, routing=adapter.routing_parameters(), fused=fused)


def trained_parameters(adapter: Adapter) -> dict[str, nn.Parameter]:
    """Return what an adapter trains, by name."""
    return {name: parameter for name, parameter in adapter.named_parameters() if parameter.requires_grad}


def rate_settings(optimizer: Optimizer) -> list[str]:
    """List the settings that an optimizer's learning rates come from."""
    return [group.get(RATE, "lr") for group in optimizer.param_groups]


def select_runs(source: Optimizer, target: Optimizer, runs: Sequence[int]) -> None:
    """Give an optimizer the state that another has for some of its runs.

    Args:
        source: over stacked parameters.
        target: over the same parameters of `runs` alone, in the same order.
        runs: rows of the first axis of the source's parameters.
    """
    for old, new in zip(_parameters(source), _parameters(target), strict=True):
        target.state[new] = {name: _of_runs(value, runs) for name, value in source.state[old].items()}


def clip_runs(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients of each run (the first axis) to a norm of at most `max_norm` over all parameters.

    Returns:
        The norms that they had, [runs].
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms: Tensor = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)  # [runs]
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))
    return norms


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _of_runs(value: Any, runs: Sequence[int]) -> Any:  # noqa: ANN401 - whatever an optimizer keeps
    """The part of some runs; what counts steps is that of all."""
    if not isinstance(value, Tensor):
        return value
    return value[list(runs)] if value.dim() else value.clone()


def _average(state: dict[str, Any], name: str, new: Tensor, decay: float) -> Tensor:
    """Move a running average of the state towards a new value."""
    average: Tensor = state.setdefault(name, torch.zeros_like(new))
    return average.mul_(decay).add_(new, alpha=1 - decay)


def _rms(tensor: Tensor) -> Tensor:
    """Root mean square of each (run, layer), broadcastable to the tensor."""
    return tensor.flatten(STACKED).square().mean(-1).sqrt().view(*tensor.shape[:STACKED], *[1] * (tensor.dim() - STACKED))
