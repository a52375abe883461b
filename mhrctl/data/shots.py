"""Shots are what each test task is adapted with, drawn for a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mhrctl.artifacts.names import TEST_EXAMPLES
from mhrctl.data.examples import Examples, Sample
from mhrctl.data.splits import few_shot_split
from mhrctl.data.table import rouge_tokenizers, task_metrics
from mhrctl.errors import DataError, ParamsError


@dataclass(frozen=True)
class TaskShots:
    """Shots are what one test task is adapted with.

    Attributes:
        name: of the task.
        metric: that validation maximises.
        rouge_tokenizer: what its ROUGE cuts texts into tokens by.
        train: samples to train on, one a reference of each example.
        groups: rows of `train` that are one example's renderings; training draws one of them at each access.
        prompts: the inputs of `train` as text, one an example.
        validation: samples to choose the best step by.
        references: for each validation sample, the reference that scores count.
        choices: for each validation sample, its answer choices, which may be none.
        seed: of the task's new routing row.
    """

    name: str
    metric: str
    rouge_tokenizer: str
    train: Sequence[Sample]
    groups: list[list[int]]
    prompts: list[str]
    validation: list[Sample]
    references: list[str]
    choices: list[list[str]]
    seed: int


def draw_shots(
    prepared: Path,
    *,
    shots: int | None,
    validation: int,
    seed: int,
    validate_on: Literal["held_out", "test"] = "held_out",
) -> list[TaskShots]:
    """Draw each test task's training and validation examples for a seed.

    Args:
        prepared: output of the prepare stage.
        shots: training examples a task at most; None takes the whole few-shot set that the suite has for the seed.
        validation: validation examples a task at most.
        seed: of the draw.
        validate_on: `held_out` examples, or the `test` split as it is: the paper's T0 runs report their best score there.

    Raises:
        DataError: if a task has few-shot sets, but none for the seed.
        ParamsError: if `shots` is None and a task's few-shot sets are not given.
    """
    examples = Examples.read(prepared / TEST_EXAMPLES)
    metrics, tokenizers = task_metrics(prepared), rouge_tokenizers(prepared)
    drawn = []
    for name in examples.tasks:
        of_task = examples.of(tasks=[name])
        train, held_out = _train_and_held_out(of_task, name, shots, validation, seed)
        rows = [row for group in train for row in group]
        if validate_on == "test":
            held_out = _rows(of_task, "test")
        # A task that has no held-out examples is validated on those that it is trained on.
        scored = of_task.take(held_out or rows)
        drawn.append(
            TaskShots(
                name=name,
                metric=metrics[name],
                rouge_tokenizer=tokenizers[name],
                train=of_task.take(rows).all_references(),
                groups=_sample_groups(of_task, train),
                prompts=of_task.take(rows).column("prompt"),
                validation=scored.scored(),
                references=[
                    targets[reference]
                    for targets, reference in zip(scored.column("targets"), scored.column("reference"), strict=True)
                ],
                choices=scored.column("choices"),
                # By name, not by place: a task starts the same whichever tasks are adapted with it.
                seed=random.Random(f"{seed}/{name}").getrandbits(62),
            )
        )
    return drawn


def _train_and_held_out(
    of_task: Examples, name: str, shots: int | None, validation: int, seed: int
) -> tuple[list[list[int]], list[int]]:
    """A task's training examples, each as the rows of its renderings, and the rows held out for validation."""
    pool = _rows(of_task, "pool")
    if shots is None and pool:
        raise ParamsError(f"shots: test task {name} gives no few-shot sets; say how many examples to draw")
    # A suite either gives few-shot sets, in the splits `train` and `validation`, or a pool to draw from; a task may have both.
    drawn, held_out = few_shot_split(pool, shots=shots or 0, validation=validation, seed=seed)
    given = _renderings(of_task, _of_seed(of_task, _rows(of_task, "train"), name, seed))
    random.Random(seed).shuffle(given)  # fewer shots than are given are a sample of them, whatever order they came in
    return (given + [[row] for row in drawn])[:shots], (_rows(of_task, "validation") + held_out)[:validation]


def _rows(of_task: Examples, split: str) -> list[int]:
    return [row for row, at in enumerate(of_task.column("split")) if at == split]


def _of_seed(of_task: Examples, rows: list[int], name: str, seed: int) -> list[int]:
    """The rows that belong to a seed's few-shot set; all of them if the suite names no seeds."""
    seeds = of_task.column("seeds")
    known = sorted({each for row in rows for each in seeds[row]})
    if known and seed not in known:
        raise DataError(f"test task {name}: no few-shot set of seed {seed}; there are {', '.join(map(str, known))}")
    return [row for row in rows if not known or seed in seeds[row]]


def _renderings(of_task: Examples, rows: list[int]) -> list[list[int]]:
    """Rows by the example that they render."""
    names = of_task.column("group")
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(names[row] or f"row {row}", []).append(row)  # one that belongs to no group is one of its own
    return list(groups.values())


def _sample_groups(of_task: Examples, groups: list[list[int]]) -> list[list[int]]:
    """Places in `train` of what training draws from at an access: an example's renderings, or each reference for itself."""
    # `train` has a sample for each reference of each row, in this order: a row's samples are as many places as it has targets.
    # Renderings are the same example in other words, of which an epoch takes one; references of a lone row are each an example.
    targets = of_task.column("targets")
    places: list[list[int]] = []
    count = 0
    for rows in groups:
        samples = [len(targets[row]) for row in rows]
        of_example = list(range(count, count + sum(samples)))
        places += [of_example] if len(rows) > 1 else [[place] for place in of_example]
        count += sum(samples)
    return places
