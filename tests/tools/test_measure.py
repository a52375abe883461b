"""Some steps of each stage are timed, and nothing of the project is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from accelerate import Accelerator

from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import Project
from mhrctl.config.resolve import Settings, load_params
from mhrctl.evaluation import adaptation
from mhrctl.evaluation.prediction import answer
from mhrctl.suites.task import TaskCounts
from mhrctl.tools import measure as measuring
from mhrctl.tools.estimate import backbone_shape
from mhrctl.tools.measure import Measured, measure, why_unmeasurable
from mhrctl.tools.operations import Suite, Weights, texts_of
from mhrctl.tools.timing import IMPORTS, jobs_of
from mhrctl.training.execution import Execution

Measure = Callable[..., Measured]
STEPS = 10**6
ROWS = """\
    full_ft:
    full_ft_then_lora:
    adapter_soup:
    mosa: {extra_steps: [5]}
"""


@pytest.fixture
def measured(accelerator: Accelerator) -> Measure:
    """Measures a project, with the settings that `--set` gives."""

    def of(folder: Path, *sets: str, estimated: dict[str, float] | None = None) -> Measured:
        where, settings = Project(folder), load_params(folder / "params.yaml", sets)
        vocabulary = json.loads((folder / "data/prepare/card.json").read_text())["facts"]["vocab_size"]
        shape = backbone_shape(settings.params.backbone, folder, vocabulary)
        assert shape is not None
        tasks = TaskCounts(3, 3, 2)
        suite = Suite(Weights.of(shape.linears), texts_of(where, settings.params.prepare, tasks), tasks)
        execution = Execution(accelerator)
        return measure(jobs_of(settings), project=where, execution=execution, estimated=estimated or {}, suite=suite)

    return of


def test_every_stage_of_every_method_is_measured_and_nothing_written(copy: Path, measured: Measure) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text() + ROWS)
    for name in ("pretrain", "average", "adapt", "evaluate", "scratch", "metrics"):
        assert not (copy / "data" / name).exists() or (copy / "data" / name).rename(tmp_away(copy, name))
    before = digest(copy)
    known = measured(copy)
    assert digest(copy) == before
    assert known.cells == known.kinds == 10
    labels = {"lora", "poly", "mhr-h4", "mhr_z-h4", "mhr_mu-h4", "mosa"}
    assert {key for key in known.seconds if key.startswith("adapt@")} == {f"adapt@{label}" for label in labels}
    assert {key for key in known.seconds if key.startswith("evaluate@")} == {f"evaluate@{label}" for label in labels}
    trained = {"lora", "poly", "mhr-h4", "full_ft", "adapter_soup", "mosa", "mosa-x5"}
    assert {key for key in known.seconds if key.startswith("pretrain@")} == {f"pretrain@{label}" for label in trained}
    assert min(known.seconds.values()) > IMPORTS
    assert known.memory > 10**8


def tmp_away(project: Path, name: str) -> Path:
    (project.parent / "away").mkdir(exist_ok=True)
    return project.parent / "away" / name


def test_a_few_steps_say_how_long_a_million_take(copy: Path, measured: Measure) -> None:
    only = "grid.methods={mhr: {heads: [4]}}"
    short = measured(copy, only, "pretrain.steps=10", "adapt.steps=10").seconds
    long = measured(copy, only, f"pretrain.steps={STEPS}", f"adapt.steps={STEPS}", f"adapt.evaluate_every={STEPS}").seconds
    for name in ("pretrain@mhr-h4", "adapt@mhr-h4"):
        assert long[name] - IMPORTS > 1000 * (short[name] - IMPORTS)  # ten steps and what comes before and after


def test_validations_count_as_often_as_they_come(copy: Path, measured: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = 0.2

    def slow(*args: Any, **options: Any) -> Any:
        sleep(pause)
        return answer(*args, **options)

    monkeypatch.setattr(adaptation, "answer", slow)
    only = ("grid.methods={lora: }", "adapt.steps=70")
    often, seldom = (measured(copy, *only, f"adapt.evaluate_every={every}").seconds["adapt@lora"] for every in (1, 70))
    assert often - seldom > 0.5 * (71 - 2) * pause


def test_what_would_take_too_long_is_left_to_the_estimate(copy: Path, measured: Measure) -> None:
    only = "grid.methods={lora: }"
    expected = {"pretrain@lora-s0": 1e-3, "adapt@lora-s0": 1e6, "evaluate@lora-s0": 1e-9}
    assert set(measured(copy, only, estimated=expected).seconds) == {"pretrain@lora", "evaluate@lora"}


def test_no_further_cell_is_measured_when_time_is_up(copy: Path, measured: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MEASURE_SECONDS", 0.0)
    known = measured(copy)
    assert (known.cells, known.kinds) == (1, 5)
    assert set(known.seconds) == {"pretrain@lora", "adapt@lora", "evaluate@lora"}


def test_why_nothing_can_be_measured(project: Path, copy: Path) -> None:
    def why(folder: Path, *sets: str) -> str | None:
        settings: Settings = load_params(folder / "params.yaml", sets)
        return why_unmeasurable(settings, Project(folder))

    assert why(project) == "run `mhrctl prepare` first"
    assert why(copy) is None
    assert why(copy, "pretrain.steps=9") is None
    said = why(copy, "prepare.examples=3")
    assert said == f"params.yaml has changed since {copy / 'data/prepare'} was made; run `mhrctl prepare` first"
    assert "run `mhrctl backbone` first" in str(why(copy, "backbone.scratch.steps=3"))
