"""What each test task is adapted with, drawn for a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from mhrctl import artifacts
from mhrctl.suites.splits import few_shot_split
from mhrctl.training.data import Examples, Sample


@dataclass(frozen=True)
class TaskShots:
    """What one test task is adapted with.

    Attributes:
        name: of the task.
        metric: that validation maximises.
        train: samples to train on, one a reference.
        prompts: the inputs of `train` as text, one an example.
        validation: samples to choose the best step by.
        references: for each validation sample, the reference that scores count.
        choices: for each validation sample, its answer choices, if the metric is over choices; else nothing.
        seed: of the task's new routing row.
    """

    name: str
    metric: str
    train: list[Sample]
    prompts: list[str]
    validation: list[Sample]
    references: list[str]
    choices: list[list[str]]
    seed: int


def draw_shots(prepared: Path, *, shots: int, validation: int, seed: int) -> list[TaskShots]:
    """Draw each test task's training and validation examples for a seed.

    Args:
        prepared: output of the prepare stage.
        shots: training examples a task at most.
        validation: validation examples a task at most.
        seed: of the draw.
    """
    examples = Examples.read(prepared / artifacts.TEST_EXAMPLES)
    metrics = task_metrics(prepared)
    drawn = []
    for name in examples.tasks:
        own = examples.of(task=name)
        rows = {
            split: [row for row, at in enumerate(own.column("split")) if at == split]
            for split in ("train", "validation", "pool")
        }
        train, held_out = few_shot_split(rows["pool"], shots=shots, validation=validation, seed=seed)
        random.Random(seed).shuffle(rows["train"])
        train = (rows["train"] + train)[:shots]
        scored = own.take((rows["validation"] + held_out)[:validation] or train)
        drawn.append(
            TaskShots(
                name=name,
                metric=metrics[name],
                train=own.take(train).all_references(),
                prompts=own.take(train).column("prompt"),
                validation=scored.scored(),
                references=[
                    targets[reference]
                    for targets, reference in zip(scored.column("targets"), scored.column("reference"), strict=True)
                ],
                choices=scored_choices(scored, metrics[name]),
                seed=random.Random(f"{seed}/{name}").getrandbits(62),
            )
        )
    return drawn


def task_metrics(prepared: Path) -> dict[str, str]:
    """{task: metric} of a prepared suite."""
    return {row["name"]: row["metric"] for row in artifacts.read_json(prepared / artifacts.TASKS)["tasks"]}


def scored_choices(examples: Examples, metric: str) -> list[list[str]]:
    """The answer choices of a task's examples if its metric is over choices; nothing if its answers are generated."""
    return examples.column("choices") if metric == "accuracy" and examples.have_choices else []
