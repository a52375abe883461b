"""SMEAR averages the parameters of a layer's LoRAs for each example, by a router that reads its prompt (arXiv 2306.03745).

Of an example, an adapted layer has one LoRA, whose A and B are weighted sums of those of its E experts:

    p = softmax(G LN(m)),  A = sum_e p_e A_e,  B = sum_e p_e B_e

with m the mean of what the layer reads over the tokens of the prompt, LN a layer norm without numbers of its own, and G the
layer's router. While training an expert is left out of an example's sum with some probability.

The layer reads it in the frozen backbone, which reads each prompt once before, without adapters, dropout or gradients, and
without the answer. That is a departure: the authors' router sees what earlier adapters have made of the input, and in their
decoder the mean of the encoder's last states, padding included. So p depends on the prompt and the layer's router alone:
neither on other rows of a batch nor on what is answered, and it is exact in a causal model too. A layer of a decoder that
reads no prompt reads the token that the decoder starts with, which has attended to the prompt from the first
cross-attention on; before that one, p is the same for all prompts.

In a file, beside what an inventory has,

    <layer>.router     [runs, experts, d_in], G
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.experts import Experts
from mhrctl.errors import ParamsError


class SMEAR(Experts):
    """SMEAR's experts are whole LoRAs, each with an A of its own from the start.

    Attributes:
        expert_dropout: the probability of an expert to be left out for an example and layer while training.
    """

    kind = "smear"
    has_alignment = False  # of a task there is no one adapter

    def __init__(
        self, shapes: Shapes, config: InventoryConfig, *, expert_dropout: float, tasks: int = 1, runs: int = 1
    ) -> None:
        """Make new experts.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: its settings, of which the skills are the experts.
            expert_dropout: see the class.
            tasks: of which it knows nothing.
            runs: independent adapters.
        """
        super().__init__(shapes, config, tasks=tasks, runs=runs)
        self.expert_dropout = expert_dropout
        for (d_in, _), bank in zip(self.stacks, self.lora_A, strict=True):
            bound = 1 / math.sqrt(3 * d_in)
            nn.init.uniform_(bank, -bound, bound)

    @classmethod
    def build(cls, config: AdapterConfig, shapes: Shapes, backbone: nn.Module) -> Self:  # noqa: ARG003 - layers suffice
        """Make what is asked for."""
        return cls(shapes, config.inventory, tasks=config.tasks, runs=config.runs, **config.options)

    @property
    def routes_by(self) -> Literal["none", "task", "token", "input"]:
        """The prompt."""
        return "input"

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """See `of_prompts`.

        Raises:
            TypeError: in any case.
        """
        raise TypeError(f"{self.kind}: adapters are composed of prompts, not of tasks ({task_ids})")

    def of_prompts(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Average the experts of each row; see `Adapter`.

        Raises:
            ParamsError: if a layer has no mean, as it reads some tokens alone.
        """
        return self.slots_of(self.weights(means))

    def weights(self, means: Mapping[str, Tensor]) -> Tensor:
        """Compute p for each row and layer.

        Args:
            means: as of `of_prompts`.

        Returns:
            [runs, rows a run, layers, 1, experts].

        Raises:
            ParamsError: as of `of_prompts`.
        """
        if without := [name for name in self.layers if name not in means]:
            raise ParamsError(f"targets: {self.kind} needs layers that read every token of a prompt; leave out {without[0]}")
        logits = []
        for names, router in zip(self.stacks.values(), self.router, strict=True):
            read = torch.stack([means[name].to(router) for name in names])  # [layers, rows, d_in]
            rows = F.layer_norm(read, read.shape[-1:]).unflatten(1, (len(router), -1))
            logits.append(torch.einsum("lrgd,rled->rgle", rows, router))
        return self._kept(torch.cat(logits, 2)).softmax(-1)[..., None, :]

    def _kept(self, logits: Tensor) -> Tensor:
        """Leave out some experts while training, but not all of a row and layer."""
        if not self.training or not self.expert_dropout:
            return logits
        dropped = torch.rand_like(logits) < self.expert_dropout
        return logits.masked_fill(dropped & ~dropped.all(-1, keepdim=True), -torch.inf)

    def settings(self) -> dict[str, Any]:
        """Return those of an inventory, and how many experts are left out."""
        return super().settings() | {"expert_dropout": self.expert_dropout}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make experts from `settings`."""
        said = dict(settings)
        rest = {name: said.pop(name) for name in ("expert_dropout", "runs", "tasks")}
        return cls(said.pop("shapes"), InventoryConfig(**said), **rest)

    def _like(self, *, runs: int) -> Self:
        """New ones of the same settings."""
        return type(self)(self.shapes, self.config, expert_dropout=self.expert_dropout, runs=runs)
