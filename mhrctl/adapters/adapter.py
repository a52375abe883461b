"""Every kind of adapter can do this: skills with a routing, (IA)3 vectors, whole weights, and what methods add to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mhrctl.adapters.config import AdapterConfig
from mhrctl.adapters.merging import Merge
from mhrctl.adapters.token_routing import TokenRouting

Shapes = Mapping[str, tuple[int, int]]
Slots = Mapping[str, Tensor]
"""{slot of an adapted layer, such as `<layer>.down`: its tensor, with the groups of a batch as first axis}."""
Form = Literal["peft", "merge"]
"""How an adapter can leave: as a PEFT folder, or merged into the weights of a whole model."""


Losses = Callable[..., Tensor]
"""Gives the losses of a batch, [runs], from a model, the batch and `runs`, as an objective does."""


class Objective(Protocol):
    """An objective says how a batch becomes losses (see `mhrctl.training.objective`), as far as an adapter may change it."""

    def __call__(self, model: Any, batch: Any, *, runs: int) -> Tensor:  # noqa: ANN401 - types of rooms above
        """The losses of a batch, [runs]."""

    def logits(self, model: Any, batch: Any) -> Tensor:  # noqa: ANN401
        """Compute the teacher-forced logits of a batch's labels, [label rows, target length, vocabulary]."""

    def logits_and_means(self, model: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ANN401
        """Compute the logits, and {adapted layer: the mean of what it reads over the tokens of each row, [rows, d_in]}."""

    def of_logits(self, logits: Tensor, batch: Any, *, runs: int) -> Tensor:  # noqa: ANN401
        """Return the losses of a batch for which a model gave these logits, [runs]."""

    def over_runs(self, losses: Tensor, batch: Any, *, runs: int) -> Tensor:  # noqa: ANN401
        """Return what losses of the tokens of a batch's labels, [label rows, target length], make for each run, [runs]."""


class Adapter(nn.Module, ABC):
    """An adapter is what is trained beside a frozen backbone, for one or several independent runs.

    The first axis of every parameter is the run: independent adapters trained side by side in one batch (one for each test
    task in adaptation, one in pre-training, one a training task where each has its own). The second axis is the layer.

    Attributes:
        kind: the name of its class in files.
        exports_to: the forms in which a single adapter without routing can leave.
        replaces_weights: whether it stands in place of the backbone's weights, rather than beside adapted layers. One batch
            then has one set of weights, so runs are trained one after the other.
        has_alignment: whether the gradients of tasks on it can be compared.
        is_low_rank: whether its slots are `down` and `up` alone, so that another adapter can lie under it.
        shapes: {layer name: (d_in, d_out)} of the layers that it adapts; empty if it adapts none.
        dropout: of the updates' inputs while training.
        token_routing: how layers mix its experts, of an adapter that has some; None routes no tokens.
        heads: equal blocks of the dimensions with routing weights of their own.
        scaling: the factor that is folded into the slot `up`.
    """

    kind: ClassVar[str]
    exports_to: ClassVar[frozenset[Form]] = frozenset({"peft", "merge"})
    replaces_weights: ClassVar[bool] = False
    has_alignment: ClassVar[bool] = True
    is_low_rank: ClassVar[bool] = False
    shapes: Shapes
    dropout: float = 0.0
    token_routing: TokenRouting | None = None
    heads: int = 1
    scaling: float = 1.0

    @classmethod
    @abstractmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:
        """Make a new adapter, whose random numbers are torch's global ones.

        Args:
            config: what is asked of it.
            shapes: {layer name: (d_in, d_out)} of the layers to adapt; empty for what replaces the weights.
            backbone: the model whose weights it may replace.

        Raises:
            ValueError: if the numbers do not fit the layers.
        """

    @property
    @abstractmethod
    def runs(self) -> int:
        """Independent runs."""

    @property
    def tasks(self) -> int:
        """Tasks of which it has something of their own, such as rows of a routing; 0 if it knows none."""
        return 0

    @property
    def routes_by(self) -> Literal["none", "task", "token", "input"]:
        """What decides the mixture that a row of a batch gets: nothing, its task, each token that is read, or its prompt."""
        return "none" if self.token_routing is None else "token"

    @property
    def top(self) -> Adapter:
        """What files hold: itself, without what is frozen under it."""
        return self

    @property
    def averageable(self) -> bool:
        """Whether there are skills or copies, whose mean is another adapter than this one."""
        return False

    @property
    def foldable(self) -> bool:
        """Whether it is one adapter for all rows of a batch, so that it can be folded into the weights of its layers."""
        return self.runs == 1 and self.routes_by == "none" and not self.replaces_weights

    @abstractmethod
    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """Compose the adapters of the groups of a batch.

        Args:
            task_ids: [runs, groups a run], the row of the routing that each group of batch rows uses; ignored without
                routing, where a run is one group.

        Returns:
            {parameter or slot of the backbone: tensor} for `torch.func.functional_call`; slots have the groups, ordered by
            run, as their first axis.
        """

    def of_prompts(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compose the adapters of each row of a batch by its prompt, where that routes them.

        Args:
            means: {adapted layer: the mean of what it reads in the frozen backbone of each row's prompt, [rows, d_in]}; rows
                are ordered by run, equally many of each, or are all of the only run.

        Returns:
            As `forward`, with a group for each row.

        Raises:
            TypeError: if adapters of this kind are not routed by prompts.
        """
        raise TypeError(f"{self.kind}: adapters of this kind are not routed by prompts (layers: {len(means)})")

    @abstractmethod
    def average(self) -> Adapter:
        """Return the adapter of a task that has no routing yet: the mean of the skills where there are several, else itself."""

    def like_average(self) -> Adapter:
        """Make an adapter of the average's sizes, whose values mean nothing."""
        return self

    def composed(self) -> Adapter:
        """Return the adapters of the first task of each run without routing: what one carries away after adaptation."""
        return self.average()

    @abstractmethod
    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> Adapter:
        """Start the adaptation of one run to each of several new tasks, side by side.

        Args:
            seeds: for each run, of what is new in it, so that a run does not depend on the runs beside it.
            train_skills: give every run its own copy of the skills to train; otherwise all share these, frozen.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an adapter of the same shapes, as JSON."""

    @classmethod
    @abstractmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make an adapter from `settings`, whose values are then filled in."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return its parameters as a file holds them: one tensor a layer and name, whatever is stacked in memory."""

    @abstractmethod
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""

    @abstractmethod
    def select(self, runs: Sequence[int]) -> Self:
        """Return the adapter of some runs."""

    def mean_of_runs(self, groups: Sequence[Sequence[int]]) -> Self:
        """Take the mean of the adapters of each group of runs: one run a group (AdapterSoup).

        Raises:
            TypeError: if adapters of this kind have no mean.
        """
        raise TypeError(f"{self.kind}: adapters of this kind are not averaged over runs (groups: {len(groups)})")

    def mixed_runs(self, weights: Tensor) -> Self:
        """Mix the adapters of all runs, A and B each for itself (LoraHub).

        Args:
            weights: [new runs, runs].

        Raises:
            TypeError: if adapters of this kind are no LoRAs.
        """
        raise TypeError(f"{self.kind}: adapters of this kind are not mixed (new runs: {len(weights)})")

    def joined_runs(self, runs: Tensor, weights: Tensor) -> Self:  # noqa: ARG002
        """Put adapters side by side: of each group of runs one, whose output is the weighted sum of theirs.

        Args:
            runs: of each group, [groups, k].
            weights: of these, [groups, k].

        Raises:
            TypeError: if adapters of this kind are no LoRAs.
        """
        raise TypeError(f"{self.kind}: adapters of this kind are not joined (groups: {len(runs)})")

    def merge_runs(self, groups: Sequence[Mapping[int, str]], merge: Merge) -> Self:  # noqa: ARG002
        """Merge the adapters of each group of runs into one run a group.

        Args:
            groups: of each, {run: seed of its random numbers, so that they depend on nothing beside it}.
            merge: how.

        Raises:
            TypeError: if adapters of this kind are no LoRAs.
        """
        raise TypeError(f"{self.kind}: adapters of this kind are not merged (groups: {len(groups)})")

    def fold(self, layer: str, weight: Tensor, bias: Tensor | None, slots: Slots) -> tuple[Tensor, Tensor | None]:
        """Return the weight and bias that do what a layer's own do with the slots of its name.

        Args:
            layer: the name of an adapted layer.
            weight: [d_out, d_in].
            bias: [d_out], or None.
            slots: what `forward` gave, for one group.
        """
        up, down = (slots[f"{layer}.{slot}"][0].to(weight.device) for slot in ("up", "down"))
        return torch.addmm(weight, up.T, down), bias

    def put_into(self, backbone: nn.Module) -> None:
        """Make the weights that this adapter stands for those of the backbone, in place.

        Raises:
            ValueError: if it is not one adapter for all rows.
        """
        if not self.foldable:
            raise ValueError("only a single adapter without a routing can be merged")
        from transformers.pytorch_utils import Conv1D  # `mhrctl check` looks at a T5 without transformers

        slots = self()
        with torch.no_grad():
            for name in self.shapes:
                layer: Any = backbone.get_submodule(name)
                matrix = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight  # a view, written through
                weight, bias = self.fold(name, matrix, layer.bias, slots)
                matrix.copy_(weight)
                if bias is not None:
                    layer.bias.copy_(bias)

    def mixing(self, task_ids: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is routed
        """Return {layer: routing weights of some tasks, [tasks, heads, skills]}; empty without routing.

        Args:
            task_ids: [1, tasks].
        """
        return {}

    def interpolate(self, learned: float) -> None:
        """Mix the learned routing with the uniform one: 1 is learned, 0 is uniform."""

    def objective(self, objective: Objective) -> Losses:
        """Return what training minimises: the losses of the batch, unless the method adds something to them."""
        return objective

    def constrain(self, optimizer: Optimizer) -> None:
        """Hold an optimizer's steps to what the method lets them change."""

    def skill_parameters(self) -> list[nn.Parameter]:
        """Return what is not routing."""
        routing = {id(parameter) for parameter in self.routing_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in routing]

    def routing_parameters(self) -> list[nn.Parameter]:
        """Return Z, if there is any."""
        return []


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """Count how many numbers the parameters hold."""
    return sum(parameter.numel() for parameter in parameters)


def stack_runs(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the parameters of parts that were trained one after the other, along the axis of runs."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
