"""Adapters are chosen by successive halving: the best are found, and most effort goes to what is good."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mhrctl.config.sections import AdaptParams
from mhrctl.errors import ParamsError
from mhrctl.evaluation import choosing
from mhrctl.evaluation.choosing import halve
from mhrctl.training import start
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


def test_first_says_on_how_many_examples_all_are_tried() -> None:
    table = Table(np.arange(8.0)[:, None] + np.zeros((8, 16)))
    assert halve(table, candidates=8, examples=16, keep=1, first=100).spent == 8 * 16
    early = halve(table, candidates=8, examples=16, keep=1, first=1)
    assert (early.best, early.spent) == ([0], 8 + 4 * 1 + 2 * 2 + 1 * 4 + 1 * 8)


def test_a_soup_by_loss_needs_no_index(copy_of_all: Path, run: Run) -> None:
    shutil.rmtree(copy_of_all / "data/index")
    assert run("adapt", "-m", "adapter_soup", "-C", copy_of_all, "--set", "adapt.soup_by=loss") == 0
    card = json.loads((copy_of_all / "data/adapt/adapter_soup-s0/card.json").read_text())
    assert "index" not in card["parents"]


def shots(*names: str) -> Any:
    return [SimpleNamespace(name=name, prompts=[name]) for name in names]


def test_a_soup_by_name_is_the_tasks_adapter_alone() -> None:
    soup = choosing._by_name(["a", "b", "c"], shots("c", "a"))
    assert (soup.groups, soup.notes) == ([[2], [0]], [("c", "c"), ("a", "a")])
    by_name = cast("AdaptParams", SimpleNamespace(soup_by="name"))
    assert choosing.soup_table(soup, by_name) == (["task", "training_task"], soup.notes)
    with pytest.raises(ParamsError, match=r"adapt\.soup_by name: the pool has no adapter that is called d, e"):
        choosing._by_name(["a"], shots("d", "a", "e"))


@pytest.mark.parametrize("by", ["inputs", "loss"])
def test_a_soup_has_not_the_adapter_that_is_left_out(
    copy_of_all: Path, run: Run, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A training task's name is given to a test task for that."""
    usable = start.candidates
    monkeypatch.setattr(choosing, "candidates", lambda params, names, task: usable(params, names, NAMED_LIKE[task]))
    monkeypatch.setattr(start, "candidates", lambda params, names, task: usable(params, names, NAMED_LIKE[task]))
    settings = ["--set", f"adapt.soup_by={by}", "--set", "adapt.soup_size=3", "--set", "adapt.soup_min_cosine=-1.0"]
    for leave_out, left in (("nothing", 6), ("adapter", 4)):
        asked = [*settings, "--set", f"adapt.leave_out={leave_out}"]
        assert run("adapt", "-m", "adapter_soup", "-C", copy_of_all, "--force", *asked) == 0
        with (copy_of_all / "data/adapt/adapter_soup-s0/soup.csv").open() as stream:
            chosen = [(row["task"], row["training_task"]) for row in csv.DictReader(stream)]
        assert len(chosen) == left
        assert (("swap", "copy") in chosen) == (leave_out == "nothing")
        assert ("swap", "first") in chosen


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["leave_out=examples"], "adapt.leave_out examples: ties chooses by the examples of the test task"),
        (["leave_out=adapter", "soup_by=name"], "soup_by name takes the adapter that this leaves out"),
    ],
)
def test_what_means_nothing_is_refused(
    walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str], settings: list[str], said: str
) -> None:
    assert (
        run("adapt", "-m", "ties", "-C", walked_all, *(part for each in settings for part in ("--set", f"adapt.{each}"))) == 2
    )
    assert said in capfd.readouterr().err


NAMED_LIKE = {"swap": "copy", "twice": "last"}


def halve_all(project: Path, run: Run, settings: list[str]) -> dict[tuple[str, str], float]:
    """The loss of every adapter on every task's shots."""
    assert run("adapt", "-m", "adapter_soup", "-C", project, "--force", *settings) == 0
    with (project / "data/adapt/adapter_soup-s0/soup.csv").open() as stream:
        return {(row["task"], row["training_task"]): float(row["loss"]) for row in csv.DictReader(stream)}
