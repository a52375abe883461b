"""Adapters are chosen by successive halving: the best are found, and most effort goes to what is good."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mhrctl.evaluation import choosing
from mhrctl.evaluation.choosing import halve
from tests.conftest import Run


class Table:
    """Losses of candidates on examples, which counts how often each pair is asked for."""

    def __init__(self, losses: np.ndarray) -> None:
        self.losses, self.asked = losses, Counter[tuple[int, int]]()

    def __call__(self, candidates: list[int], examples: range) -> list[float]:
        self.asked.update((candidate, example) for candidate in candidates for example in examples)
        return [float(self.losses[candidate, examples.start : examples.stop].sum()) for candidate in candidates]


@pytest.mark.parametrize(
    ("candidates", "examples", "keep"), [(64, 32, 4), (37, 16, 1), (5, 3, 5), (3, 1, 2), (100, 7, 3), (1, 9, 1)]
)
def test_what_is_clearly_best_is_found_with_its_mean_loss(candidates: int, examples: int, keep: int) -> None:
    random = np.random.default_rng(0)
    order = random.permutation(candidates)
    table = Table(order[:, None] + random.uniform(0, 0.5, (candidates, examples)))
    chosen = halve(table, candidates=candidates, examples=examples, keep=keep)
    assert chosen.best == np.argsort(order)[:keep].tolist()
    assert chosen.losses == pytest.approx([table.losses[place].mean() for place in chosen.best])
    assert chosen.spent == table.asked.total()
    assert set(table.asked.values()) == {1}  # nothing twice
    assert chosen.exhaustive == candidates * examples
    for place in chosen.best:
        assert {example for candidate, example in table.asked if candidate == place} == set(range(examples))


def test_most_of_the_effort_is_saved() -> None:
    table = Table(np.arange(1024.0)[:, None] + np.zeros((1024, 128)))
    chosen = halve(table, candidates=1024, examples=128, keep=8)
    assert chosen.spent < 0.05 * chosen.exhaustive


def test_of_equals_the_earlier_is_better() -> None:
    assert halve(Table(np.zeros((9, 4))), candidates=9, examples=4, keep=3).best == [0, 1, 2]


def test_a_soup_by_loss_is_that_of_an_exhaustive_search(
    copy_of_all: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "TOGETHER", 2)
    by_loss = ["--set", "adapt.soup_by=loss", "--set", "adapt.soup_size=2"]
    assert run("adapt", "-m", "ties", "-C", copy_of_all, "--force", *by_loss) == 0
    assert "chosen with " in capfd.readouterr().err
    folder = copy_of_all / "data/adapt/ties-s0"
    with (folder / "soup.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    facts = json.loads((folder / "card.json").read_text())["facts"]
    shots = {task: count for task, (count, _) in facts["shots"].items()}
    assert facts["evaluations"].keys() == shots.keys()
    for task, (spent, exhaustive) in facts["evaluations"].items():
        assert exhaustive == 3 * shots[task]
        assert spent <= exhaustive
        losses = [float(row["loss"]) for row in rows if row["task"] == task]
        assert len(losses) == 2
        assert losses == sorted(losses)
    whole = halve_all(copy_of_all, run, [*by_loss[:2], "--set", "adapt.soup_size=3"])
    for task in shots:  # what was tried on all shots has the loss that it has in an exhaustive search
        of_task = {row["training_task"]: float(row["loss"]) for row in rows if row["task"] == task}
        assert of_task == pytest.approx({name: whole[task, name] for name in of_task}, abs=2e-4)


def halve_all(project: Path, run: Run, settings: list[str]) -> dict[tuple[str, str], float]:
    """The loss of every adapter on every task's shots."""
    assert run("adapt", "-m", "adapter_soup", "-C", project, "--force", *settings) == 0
    with (project / "data/adapt/adapter_soup-s0/soup.csv").open() as stream:
        return {(row["task"], row["training_task"]): float(row["loss"]) for row in csv.DictReader(stream)}
