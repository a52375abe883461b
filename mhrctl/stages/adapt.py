"""adapt: few-shot adaptation to each test task, all tasks side by side in one batch, the best validation score kept."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl import artifacts
from mhrctl.adapters.files import load_inventory, save_inventory
from mhrctl.adapters.inventory import Inventory, trainable
from mhrctl.adapters.layer import inject
from mhrctl.adapters.model import AdaptedModel
from mhrctl.artifacts import Card
from mhrctl.backbones import load_backbone
from mhrctl.errors import ArtifactError
from mhrctl.params import AdaptParams, Cell
from mhrctl.prediction import own_rows, predict, sample_losses
from mhrctl.progress import Track, silent
from mhrctl.scoring import SCORES
from mhrctl.stages.pretrain import optimizer_of
from mhrctl.suites.splits import few_shot_split
from mhrctl.tokenization import saved_tokenizer
from mhrctl.training.data import Batch, Examples, Order, Sample, collate
from mhrctl.training.loop import Objective, fit
from mhrctl.training.optimizers import clip_runs

TOGETHER = 32
"""Tasks adapted in one batch: a matter of memory and speed, not of results."""


@dataclass(frozen=True)
class TaskShots:
    """What one test task is adapted with.

    Attributes:
        name: of the task.
        metric: that validation maximises.
        train: samples to train on, one a reference.
        validation: samples to choose the best step by.
        references: for each validation sample, the reference that scores count.
        seed: of the task's new routing row.
    """

    name: str
    metric: str
    train: list[Sample]
    validation: list[Sample]
    references: list[str]
    seed: int


def adapt(
    cell: Cell,
    params: AdaptParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path,
    out: Path,
    accelerator: Accelerator,
    together: int = TOGETHER,
    track: Track = silent,
) -> Card:
    """Write `adapters.safetensors`, one run a test task, and `validation.csv` (score by task and step) into `out`.

    Args:
        cell: method, heads and seed.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: output of the pretrain or average stage, whichever the method starts from.
        out: the output folder.
        accelerator: where to train.
        together: tasks adapted in one batch.
        track: shows progress.

    Raises:
        ArtifactError: if an input folder is missing or was made for another backbone.
    """
    start_card = artifacts.read_card(
        start, stage=cell.row.start, command=f"mhrctl {cell.row.start} {cell.pretrain_cell.options}"
    )
    frozen, tokenizer = open_backbone(prepared, backbone, start_card, start, params.precision)
    base = load_inventory(start / artifacts.ADAPTERS)
    inject(frozen, sorted({name.rpartition(".")[2] for name in base.shapes}))
    shots = draw_shots(prepared, params, seed=cell.seed)
    trained: list[dict[str, Tensor]] = []
    curves: list[tuple[str, int, float]] = []
    with track(f"adapt {cell.name}", params.steps * -(-len(shots) // together)) as bar:
        for first in range(0, len(shots), together):
            part = shots[first : first + together]
            inventory = base.for_new_tasks([task.seed for task in part], train_skills=cell.row.trains == "adapter")
            adaptation = _Adaptation(frozen, inventory, tokenizer, part, params, cell.seed, accelerator)
            for step in adaptation.run():
                bar.advance(note=f"validation {adaptation.best.mean():.1f}" if step % params.evaluate_every == 0 else "")
            trained.append(adaptation.kept)
            curves += adaptation.curves
    result = base.for_new_tasks([task.seed for task in shots], train_skills=cell.row.trains == "adapter")
    result.load_state_dict({name: torch.cat([part[name] for part in trained]) for name in trained[0]}, strict=False)
    parents = {"examples": prepared / artifacts.TEST_EXAMPLES, "start": start / artifacts.ADAPTERS}
    facts: Mapping[str, Any] = {
        "suite": start_card.facts["suite"],
        "tasks": [task.name for task in shots],
        "shots": {task.name: [len(task.train), len(task.validation)] for task in shots},
        "backbone": start_card.facts["backbone"],
        "parameters": trainable(parameter for parameter in result.parameters() if parameter.requires_grad) // len(shots),
    }
    with artifacts.writing(out) as folder:
        save_inventory(result, folder / artifacts.ADAPTERS)
        artifacts.write_csv(folder / artifacts.VALIDATION, ("task", "step", "score"), curves)
        card = Card.of("adapt", {"cell": cell.model_dump(), "adapt": params.model_dump()}, parents, **facts)
        artifacts.write_card(folder, card)
    return card


def open_backbone(
    prepared: Path, backbone: Path, wearing: Card | None, folder: Path | None, precision: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load backbone and tokenizer, and check that the adapters were made for them.

    Raises:
        ArtifactError: if the adapters in `folder`, with card `wearing`, belong to another backbone.
    """
    artifacts.read_card(prepared, stage="prepare", command="mhrctl prepare")
    model, fingerprint = load_backbone(backbone, precision=precision)
    if wearing is not None and wearing.facts["backbone"] != fingerprint:
        raise ArtifactError(
            f"{folder}: made for another backbone ({wearing.facts['backbone'][:12]}, not {fingerprint[:12]}"
            f" in {backbone}); run its stage again or `dvc repro`"
        )
    return model, saved_tokenizer(prepared / artifacts.TOKENIZER)


def draw_shots(prepared: Path, params: AdaptParams, *, seed: int) -> list[TaskShots]:
    """Draw each test task's training and validation examples for a seed."""
    examples = Examples.read(prepared / artifacts.TEST_EXAMPLES)
    metrics = {row["name"]: row["metric"] for row in artifacts.read_json(prepared / artifacts.TASKS)["tasks"]}
    shots = []
    for name in examples.tasks:
        own = examples.of(task=name)
        rows = {
            split: [row for row, at in enumerate(own.column("split")) if at == split]
            for split in ("train", "validation", "pool")
        }
        train, validation = few_shot_split(rows["pool"], shots=params.shots, validation=params.validation, seed=seed)
        random.Random(seed).shuffle(rows["train"])
        train = (rows["train"] + train)[: params.shots]
        validation = (rows["validation"] + validation)[: params.validation] or train
        scored = own.take(validation)
        shots.append(
            TaskShots(
                name=name,
                metric=metrics[name],
                train=own.take(train).all_references(),
                validation=scored.scored(),
                references=[
                    targets[reference]
                    for targets, reference in zip(scored.column("targets"), scored.column("reference"), strict=True)
                ],
                seed=random.Random(f"{seed}/{name}").getrandbits(62),
            )
        )
    return shots


class _Adaptation:
    """Several tasks adapted in one batch, each with its own parameters, clipping and best step.

    Attributes:
        best: the best validation score of each task so far, [tasks].
        kept: the trained parameters at each task's best step.
        curves: (task, step, validation score).
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        inventory: Inventory,
        tokenizer: PreTrainedTokenizerBase,
        shots: Sequence[TaskShots],
        params: AdaptParams,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self._tokenizer, self._shots, self._params, self._seed = tokenizer, shots, params, seed
        self._model, self._accelerator = AdaptedModel(backbone, inventory).to(accelerator.device), accelerator
        self._parameters = {name: p for name, p in inventory.named_parameters() if p.requires_grad}
        self._optimizer = optimizer_of(inventory, params)
        self._orders = [Order(len(task.train), f"{seed}/{task.name}") for task in shots]
        config = backbone.config
        self._objective = Objective(params.loss, params.label_smoothing, config.decoder_start_token_id, config.pad_token_id)
        self.best = torch.full((len(shots),), -torch.inf)
        self.kept: dict[str, Tensor] = {}
        self.curves: list[tuple[str, int, float]] = []

    def run(self) -> Iterator[int]:
        """Train, validating at step 0 and every `evaluate_every` steps; yields the steps taken."""
        self._validate(0)
        steps = fit(
            self._model,
            self._optimizer,
            batches=self._batch,
            objective=self._objective,
            clip=lambda: clip_runs(list(self._parameters.values()), self._params.clip_norm),
            accelerator=self._accelerator,
            steps=self._params.steps,
            warmup=self._params.warmup,
            seed=self._seed,
            runs=len(self._shots),
            accumulation=self._params.accumulation,
        )
        for step in steps:
            if step.number % self._params.evaluate_every == 0 or step.number == self._params.steps:
                self._validate(step.number)
                self._model.train()
            yield step.number

    def _batch(self, micro: int) -> Batch:
        size = self._params.batch_size
        samples = [
            task.train[row]
            for task, order in zip(self._shots, self._orders, strict=True)
            for row in order.slice(micro * size, size)
        ]
        return collate(samples, own_rows(len(self._shots)), pad=self._objective.pad)

    def _validate(self, step: int) -> None:
        scores = self._scores()
        self.curves += [(task.name, step, round(score, 4)) for task, score in zip(self._shots, scores.tolist(), strict=True)]
        better = scores > self.best
        self.best = torch.where(better, scores, self.best)
        for name, parameter in self._parameters.items():
            current = parameter.detach().cpu()
            mask = better.view(-1, *[1] * (current.dim() - 1))
            self.kept[name] = torch.where(mask, current, self.kept.get(name, current))

    def _scores(self) -> Tensor:
        samples = [task.validation for task in self._shots]
        device = self._accelerator.device
        if self._params.select == "loss":
            losses = sample_losses(self._model, samples, own_rows(len(samples)), objective=self._objective, device=device)
            return -torch.tensor(losses)
        answers = predict(
            self._model,
            self._tokenizer,
            samples,
            beams=self._params.beams,
            max_new_tokens=self._params.max_new_tokens,
            device=device,
        )
        means = []
        for task, texts in zip(self._shots, answers, strict=True):
            scores = [SCORES[task.metric](text, [reference]) for text, reference in zip(texts, task.references, strict=True)]
            means.append(sum(scores) / len(scores))
        return torch.tensor(means)
