"""What is compared: mhrctl through its stages' own code, peft's LoRA and Poly (with splits it is MHR), the frozen model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import peft
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel, T5ForConditionalGeneration

from benchmarks.shapes import PAD, TASKS, Shape, new_backbone
from mhrctl.adapters.inventory import Inventory
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import Batch
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import new_adapter
from mhrctl.models.backbones import PRECISIONS
from mhrctl.models.losses import token_losses
from mhrctl.models.speed import Speed
from mhrctl.training.loop import Schedule, fit
from mhrctl.training.losses import run_losses
from mhrctl.training.objective import Objective, objective_of
from mhrctl.training.optimizers import clip_runs, optimizer_of, trained_parameters

Precision = Literal["fp32", "bf16"]
Batches = Callable[[int], Batch]
Trainer = Callable[[], object]

CLIP = 1.0
LR = 1e-3
SKILLS = 8
SPREAD = 0.5
"""Of the numbers in B: small ones would hardly be seen in a loss."""
ENDLESS = 10**9
"""Steps of a training that is timed for a few of them."""
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 1e-3}
"""{precision: relative difference of losses that count as equal}; of a bf16 backbone peft computes the updates in fp32."""


class UnequalError(Exception):
    """Two programs that were to be timed against each other do not compute the same."""


@dataclass(frozen=True)
class Ours:
    """A model of mhrctl, as pretrain and adapt train it.

    Attributes:
        model: the backbone, attached adapters included.
        params: of the training.
        spread: of the numbers in B.
    """

    model: AdaptedModel
    params: PretrainParams
    spread: float

    @property
    def adapter(self) -> Inventory:
        """What is attached to the model."""
        assert isinstance(self.model.adapter, Inventory)  # noqa: S101 - for the type checker; `ours` made it
        return self.model.adapter

    @property
    def objective(self) -> Objective:
        """The loss of the stages."""
        return objective_of(self.params)

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each run without noise, [runs]."""
        self.model.eval()
        with torch.no_grad():
            losses = self.objective(self.model, batch, runs=self.adapter.runs)
        self.model.train()
        return losses

    def trainer(self, batches: Batches) -> Trainer:
        """Steps of the stages' own loop, one a call."""
        parameters = list(trained_parameters(self.adapter).values())
        steps = fit(
            self.model,
            optimizer_of(self.adapter, self.params, fused=self.model.speed.fused),
            batches=batches,
            objective=self.objective,
            clip=lambda: clip_runs(parameters, self.params.clip_norm),
            accelerator=Accelerator(cpu=self.model.backbone.device.type == "cpu"),
            schedule=Schedule(ENDLESS, self.params.warmup, seed=0),
        )
        return lambda: next(steps)

    def adapting(self, runs: int) -> Ours:
        """The same backbone with a copy of the adapters for each of several new tasks, side by side, none like another."""
        adapter = self.adapter.for_new_tasks(range(runs), train_skills=True)
        stirred = _stirred(adapter, self.spread)
        return Ours(_attached(self.model.backbone, stirred, self.model.speed), self.params, self.spread)


@dataclass(frozen=True)
class Peer:
    """A model of peft.

    Attributes:
        model: trained by peft's own code, the loss being transformers'.
        routed: whether it is Poly, and wants task ids.
    """

    model: nn.Module
    routed: bool

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The arguments of the model."""
        inputs: dict[str, Any] = {
            "input_ids": batch.inputs.padded(PAD),
            "attention_mask": batch.inputs.mask(),
            "labels": batch.labels,
        }
        return inputs | ({"task_ids": batch.task_ids.flatten()} if self.routed else {})

    def loss(self, batch: Batch) -> Tensor:
        """The loss without noise, of the logits in fp32: transformers takes it in the backbone's precision."""
        self.model.eval()
        with torch.no_grad():
            logits = self.model(**self.inputs(batch)).logits
        self.model.train()
        return run_losses(token_losses(logits, batch.labels), batch.labels, runs=1, kind="token_mean")[0]

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss as transformers takes it."""
        loss: Tensor = self.model(**self.inputs(batch)).loss
        return loss

    def trainer(self, batches: Batches) -> Trainer:
        """Steps as transformers' Trainer takes them, with its fused AdamW and its clipping, one a call."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True)
        self.model.train()
        numbers = count()

        def step() -> None:
            self.training_loss(batches(next(numbers))).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            optimizer.zero_grad()

        return step

    @torch.no_grad()
    def copy(self, adapter: Inventory, run: int = 0) -> None:
        """Take the adapters of one of our runs."""
        tensors = {name: tensor[run] for name, tensor in adapter.tensors().items()}
        for name in adapter.layers:
            layer: Any = self.model.get_submodule(f"base_model.model.{name}")
            if self.routed:
                layer.poly_lora_A["default"].copy_(tensors[f"{name}.lora_A"])
                layer.poly_lora_B["default"].copy_(tensors[f"{name}.lora_B"])
                layer.poly_router["default"].module_logits.copy_(tensors[f"{name}.routing"].flatten(1))
            else:
                layer.lora_A["default"].weight.copy_(tensors[f"{name}.lora_A"][0, 0].T)
                layer.lora_B["default"].weight.copy_(tensors[f"{name}.lora_B"][0, 0].T)


def ours(
    shape: Shape,
    *,
    heads: int | None,
    speed: Speed = Speed(),
    precision: Precision = "fp32",
    device: torch.device | None = None,
) -> Ours:
    """Make a model of mhrctl over a T5.

    Args:
        shape: of the backbone.
        heads: of MHR, 1 being Poly; None is a single LoRA.
        speed: how it computes.
        precision: of the backbone.
        device: of everything; the CPU if not given.
    """
    backbone = new_backbone(shape, PRECISIONS[precision], device)
    return ours_over(backbone, rows=shape.rows, heads=heads, speed=speed, precision=precision)


def ours_over(
    backbone: PreTrainedModel,
    *,
    rows: int,
    heads: int | None,
    speed: Speed = Speed(),
    precision: Precision = "fp32",
    spread: float = SPREAD,
) -> Ours:
    """Make a model of mhrctl: the one place that knows how the stages put one together.

    Args:
        backbone: gets adapters in place.
        rows: of a batch.
        heads: of MHR, 1 being Poly; None is a single LoRA.
        speed: how it computes.
        precision: of the backbone.
        spread: of the numbers in B.
    """
    method = "lora" if heads is None else "poly" if heads == 1 else "mhr"
    params = PretrainParams(
        steps=ENDLESS,
        batch_size=rows,
        skills=SKILLS,
        lr=LR,
        clip_norm=CLIP,
        warmup=0.0,
        relaxed_bernoulli=True,  # as peft's Poly always does
        precision=precision,
    )
    adapter = new_adapter(backbone, METHODS[method], params, heads=heads or 1, seed=0, tasks=TASKS)
    assert isinstance(adapter, Inventory)  # noqa: S101 - for the type checker
    return Ours(_attached(backbone, _stirred(adapter, spread), speed), params, spread)


def peft_lora(shape: Shape, *, precision: Precision = "fp32", device: torch.device | None = None) -> Peer:
    """LoRA of peft, rank 1 on all linear layers."""
    config = peft.LoraConfig(r=1, lora_alpha=1, target_modules=["q", "k", "v", "o", "wi_0", "wi_1", "wo"])
    return Peer(peft.get_peft_model(new_backbone(shape, PRECISIONS[precision], device), config), routed=False)


def peft_mhr(
    shape: Shape, *, heads: int, tasks: int = TASKS, precision: Precision = "fp32", device: torch.device | None = None
) -> Peer:
    """Poly of peft, skills of rank 1 on all linear layers; with splits it is MHR."""
    config = peft.PolyConfig(
        task_type="SEQ_2_SEQ_LM",
        r=1,
        n_tasks=tasks,
        n_skills=SKILLS,
        n_splits=heads,
        target_modules=["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
    )
    return Peer(peft.get_peft_model(new_backbone(shape, PRECISIONS[precision], device), config), routed=True)


def frozen_trainer(backbone: T5ForConditionalGeneration, batch: Batch) -> Trainer:
    """Forward and backward of the bare model down to its first layers: what no adapters of it can do without."""
    for stack in ("encoder", "decoder"):
        norm = backbone.get_submodule(f"{stack}.block.0.layer.0.layer_norm")
        norm.register_forward_hook(lambda _norm, _inputs, output: output.requires_grad_())
    inputs = Peer(backbone, routed=False).inputs(batch)
    backbone.train()

    def step() -> None:
        backbone(**inputs).loss.backward()

    return step


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(map(shutil.which, ("g++", "c++", "clang++")))


def always(batch: Batch) -> Batches:
    """The same batch at every step."""
    return lambda _micro: batch


def cycle(batches: Sequence[Batch]) -> Batches:
    """Some batches over and over."""
    return lambda micro: batches[micro % len(batches)]


def require_equal(what: str, mine: Tensor, theirs: Tensor, *, tolerance: float = TOLERANCES["fp32"]) -> None:
    """Check that two programs found the same.

    Raises:
        UnequalError: if they differ by more than `tolerance`, relative to theirs.
    """
    difference = ((mine - theirs).abs() / theirs.abs()).max().item()
    if not difference <= tolerance:
        raise UnequalError(f"{what}: differs by {difference:.1e} of the value, more than {tolerance:.0e}; nothing was timed")


def _attached(backbone: PreTrainedModel, adapter: Inventory, speed: Speed) -> AdaptedModel:
    """The backbone with adapters attached, all on its device."""
    return AdaptedModel(backbone, adapter, speed=speed).to(backbone.device)


@torch.no_grad()
def _stirred(adapter: Inventory, spread: float) -> Inventory:
    """The adapter after some training: B and routing away from where they begin."""
    torch.manual_seed(1)
    for bank in adapter.lora_B:
        bank.normal_(0, spread)
    if adapter.routing is not None:
        adapter.routing.normal_()
    return adapter
