"""Rank classification: answer choices scored for each input, against peft with the encoder once and its states repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.peers import Ours, Peer, ours, peft_mhr, require_equal
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, new_samples
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.data.batches import Batch, collate
from mhrctl.data.examples import Sample
from mhrctl.evaluation.prediction import choose, own_rows
from mhrctl.models.losses import token_losses
from mhrctl.training.losses import choice_scores

TARGETS = (1.7, 2.0)
HEADS = 8


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: a name of `SHAPES`, for the backbone and its inputs.
        repetitions: of a batch.
        rows: inputs of the batch.
        choices: of each input.
        targets: tokens of the longest choice.
    """

    shape: str
    repetitions: int
    rows: int = 8
    choices: int = 4
    targets: int = 4


PLANS = {False: Plan("small", 15), True: Plan("small", 5)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time the choice of an answer to each input of a batch, by the code of the evaluate stage."""
    shape = replace(SHAPES[plan.shape], rows=plan.rows, targets=plan.targets)
    samples = new_samples(shape, plan.rows, choices=plan.choices)
    mine = ours(shape, heads=HEADS).adapting(1)
    theirs = peft_mhr(shape, heads=HEADS, tasks=1)
    theirs.copy(mine.adapter)
    theirs.model.eval()
    batch = collate(samples, own_rows(1), with_choices=True)
    expected = peft_scores(theirs, batch)
    require_equal("scores of the choices", our_scores(mine, batch), expected)
    require_equal("chosen answers", torch.tensor(our_choices(mine, samples)) + 1, expected.argmin(1) + 1, tolerance=0)
    steps = {
        "MHR": lambda: our_choices(mine, samples),
        "peft MHR": lambda: peft_scores(theirs, collate(samples, own_rows(1), with_choices=True)).argmin(1).tolist(),
    }
    times = interleave(steps, repetitions=plan.repetitions)
    what = f"scoring {plan.choices} choices with peft MHR, encoder states repeated / with MHR (d_model {shape.d_model})"
    row = Row(what, ratio(times["peft MHR"], times["MHR"]), *TARGETS, more_is_better=True)
    return Measured([row], milliseconds(times))


def our_choices(mine: Ours, samples: list[Sample]) -> list[int]:
    """The chosen answers."""
    return choose(mine.model, [samples], objective=mine.objective, device=mine.model.backbone.device)[0]


@torch.no_grad()
def our_scores(mine: Ours, batch: Batch) -> Tensor:
    """[rows, choices]."""
    return _scores(mine.objective.token_losses(mine.model.eval(), batch), batch)


@torch.no_grad()
def peft_scores(theirs: Peer, batch: Batch) -> Tensor:
    """[rows, choices]: inputs encoded once, and their states repeated for the choices."""
    model = theirs.model
    rows, choices, inputs = len(batch.choices), len(batch.labels) // len(batch.choices), theirs.inputs(batch)
    tasks = batch.task_ids.flatten().expand(rows)
    with model.base_model._manage_pre_hooks(tasks):  # type: ignore[operator, union-attr] # noqa: SLF001 - Poly has no other way
        states = model.base_model.model.encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]  # type: ignore[operator, union-attr]
    output = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states.repeat_interleave(choices, 0)),
        attention_mask=inputs["attention_mask"].repeat_interleave(choices, 0),
        labels=batch.labels,
        task_ids=tasks.repeat_interleave(choices),
    )
    return _scores(token_losses(output.logits, batch.labels), batch)


def _scores(losses: Tensor, batch: Batch) -> Tensor:
    labels = batch.labels.view(len(batch.choices), -1, batch.labels.shape[1])
    return choice_scores(losses.view_as(labels), labels, batch.choices)
