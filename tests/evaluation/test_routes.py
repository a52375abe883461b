"""What a router needs is found out: the best adapter of each task, and for a test task what it may use."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from mhrctl.adapters.files import Pool
from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.config.cells import Cell
from mhrctl.config.resolve import load_params
from mhrctl.config.sections import AdaptParams
from mhrctl.data.index import load_index
from mhrctl.data.routes import load_routes
from mhrctl.data.shots import TaskShots, draw_shots
from mhrctl.errors import ParamsError
from mhrctl.evaluation.choosing import Tried
from mhrctl.evaluation.routes import NOBODY, Choice, choose_routes
from mhrctl.models.backbones import open_backbone
from mhrctl.training.execution import Execution
from mhrctl.training.objective import objective_of
from tests.conftest import Run

EXHAUSTIVE = {"first": 1000}


class Study:
    """A project whose pool is chosen from."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        project = Project(folder)
        self.root, self.prepared, self.index = folder, project.output("prepare"), project.output("index")
        self.start = project.output("pretrain", "adapter_soup-s0")
        self.backbone, _ = open_backbone(self.prepared, project.output("backbone"), None, None)
        self.execution = Execution(accelerator)
        self.params: AdaptParams = load_params(project.params).params.adapt
        self.shots = draw_shots(self.prepared, shots=3, validation=3, seed=0)

    def choose(
        self,
        method: str = "lorauter",
        names: Sequence[str] = ("copy", "first", "last"),
        index: Path | None = None,
        **settings: Any,
    ) -> Choice:
        return choose_routes(
            Cell(method=method),
            self.params.model_copy(update=settings),
            self.start,
            names,
            self.shots,
            self.backbone,
            prepared=self.prepared,
            index=index or self.index,
            root=self.root,
            execution=self.execution,
        )

    def losses(self, task: TaskShots) -> list[float]:
        """Of all adapters on a test task's shots."""
        tried = Tried(Pool(self.start / ADAPTERS), self.backbone, objective_of(self.params), self.execution)
        return [total / len(task.train) for total in tried.losses([0, 1, 2], task.train)]


@pytest.fixture(scope="module")
def study(walked_all: Path, accelerator: Accelerator) -> Study:
    return Study(walked_all, accelerator)


def test_a_task_has_the_adapter_with_the_least_loss(study: Study) -> None:
    choice = study.choose(options=EXHAUSTIVE)
    assert choice.routes.names == ["copy", "first", "last", "swap", "twice"]
    for number, task in enumerate(study.shots, 1):
        losses = study.losses(task)
        row = choice.routes.names.index(task.name)
        assert choice.routes.adapters[number, row] == np.argmin(losses)
        assert (task.name, task.name, choice.routes.pool[int(np.argmin(losses))], round(min(losses), 4)) in choice.notes
        assert choice.evaluations[task.name] == (3 * len(task.train), 3 * len(task.train))


def test_losses_are_the_same_however_many_samples_are_read_at_a_time(study: Study) -> None:
    tried = Tried(Pool(study.start / ADAPTERS), study.backbone, objective_of(study.params), study.execution)
    for task in study.shots:
        one = tried.losses([0, 1, 2], task.train)
        assert replace(tried, rows=7).losses([0, 1, 2], task.train) == pytest.approx(one, rel=1e-5)
        assert replace(tried, rows=100).losses([2], task.train) == pytest.approx(one[2:], rel=1e-5)


def test_halving_tries_fewer(study: Study) -> None:
    for spent, exhaustive in study.choose().evaluations.values():
        assert 0 < spent < exhaustive


def test_the_tasks_of_others_are_not_compared_with(study: Study) -> None:
    adapters = study.choose().routes.adapters
    assert adapters.shape == (3, 5)
    assert (adapters[:, :3] >= 0).all()
    assert (adapters[:, :3] == adapters[0, :3]).all()
    assert adapters[:, 3:].clip(max=0).tolist() == [[NOBODY, NOBODY], [0, NOBODY], [NOBODY, 0]]


def test_the_mean_of_a_tasks_inputs_is_its_vector(study: Study) -> None:
    routes, known = study.choose().routes, load_index(study.index, root=study.root)
    for task in study.shots:
        assert np.array_equal(routes.vectors[routes.names.index(task.name)], known.mean(task.prompts))


def test_what_is_left_out_is_as_if_it_were_not_in_the_pool(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = study.choose(options=EXHAUSTIVE)
    best = {place: whole.routes.adapters[0, place] for place in range(3)}
    dropped = int(best[0])
    names = ["copy", "first", "last"]
    names[dropped] = "swap"
    choice = study.choose(names=names, leave_out="adapter")
    of_swap, of_twice = choice.routes.adapters[1], choice.routes.adapters[2]
    assert dropped not in of_swap
    assert (of_twice[:3] == choice.routes.adapters[0, :3]).all()
    assert dropped in of_twice
    assert any(note[:2] == ("swap", "copy") for note in choice.notes)
    monkeypatch.setattr("mhrctl.evaluation.routes.candidates", lambda *_: [place for place in range(3) if place != dropped])
    without = study.choose(names=names)
    assert (without.routes.adapters[1] == of_swap).all()


def test_without_a_tasks_examples_other_tasks_alone_answer(study: Study) -> None:
    choice = study.choose(leave_out="examples")
    assert choice.routes.names == ["copy", "first", "last"]
    assert (choice.routes.adapters[1] == choice.routes.adapters[0]).all()


def test_adapters_are_compared_by_their_own_inputs(study: Study) -> None:
    choice = study.choose("lora_retriever", options={"top_k": 2})
    known = load_index(study.index, root=study.root)
    assert np.array_equal(choice.routes.vectors, known.vectors)
    assert choice.routes.adapters.tolist() == [[0, 1, 2]] * 3
    assert choice.evaluations == {}
    ((first, second),) = choice.routes.of("swap", study.shots[0].prompts[:1])
    assert (first[1], second[1]) == (0.5, 0.5)


def test_a_retriever_lacks_the_adapter_that_is_left_out(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.evaluation.routes.read_samples", lambda *_: {"swap": ["ant bee"]})
    adapters = study.choose("lora_retriever", ["swap", "first", "last"], leave_out="adapter").routes.adapters
    assert adapters.tolist() == [[0, 1, 2], [NOBODY, 1, 2], [0, 1, 2]]


def test_a_query_that_nothing_could_be_compared_with_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.evaluation.routes.training_data_sets", lambda _: {})
    assert study.choose().routes.names == ["swap", "twice"]
    with pytest.raises(ParamsError, match=r"adapt.leave_out examples: there are no training tasks .* the queries of swap"):
        study.choose(leave_out="examples")


def test_a_pool_without_any_other_adapter_is_refused(study: Study) -> None:
    with pytest.raises(ParamsError, match=r"adapt\.leave_out adapter: the pool has no adapter but that of swap"):
        study.choose(names=["swap"], leave_out="adapter")


def test_the_stage_writes_what_was_found_out(walked_all: Path) -> None:
    folder = walked_all / "data/adapt/lorauter-s0"
    routes = load_routes(folder / ADAPTERS, root=walked_all)
    with (folder / "routes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["compared_with"] for row in rows] == routes.names
    assert [row["queries_of"] for row in rows] == ["", "", "", "swap", "twice"]
    facts = json.loads((folder / "card.json").read_text())["facts"]
    assert facts["parameters"] == 0
    assert facts["validation"] == {}
    assert facts["evaluations"].keys() == set(routes.names)


def test_the_order_of_the_pool_does_not_matter(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    order = [2, 0, 1]
    usual = study.choose(options=EXHAUSTIVE).routes
    select = Pool.select
    monkeypatch.setattr(Pool, "select", lambda pool, runs: select(pool, [order[run] for run in runs]))
    turned = study.choose(names=["last", "copy", "first"], options=EXHAUSTIVE).routes
    for row in range(3):
        assert turned.pool[turned.adapters[0, row]] == usual.pool[usual.adapters[0, row]]


def test_a_router_takes_settings_that_it_reads(walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("adapt", "-m", "lorauter", "-C", walked_all, "--set", "adapt.steps=5") == 2
    assert "--set adapt.steps: lorauter does not read it; leave it out" in capfd.readouterr().err
    assert run("check", "-m", "lora_retriever", "-C", walked_all, "--set", "adapt.options.temperature=1") == 2
    assert "temperature" in capfd.readouterr().err
