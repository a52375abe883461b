"""What `mhrctl check` says of time and memory."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import Project
from mhrctl.cli.times import LARGE, LONG, Machine, Times, about, large_without_gpu, memory_line, short_of_memory, times
from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.estimate import Estimate, Shape
from mhrctl.tools.measure import Measured
from mhrctl.tools.operations import Lengths, Suite, Texts, Weights
from mhrctl.tools.timing import Device, Prediction, cpu, gpu
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


def suite_of(*, measured: bool) -> Suite:
    lengths = Lengths(10, 2)
    return Suite(Weights(1000, 500, 100, 10), Texts(lengths, lengths, 60, lengths, measured), TaskCounts(3, 3, 2))


def prediction(seconds: float = 100.0, **known: Any) -> Prediction:
    return Prediction({"pretrain@lora-s0": seconds, "adapt@lora-s0": 5.0}, known, ())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, "1 s"), (40, "40 s"), (89, "89 s"), (91, "2 min"), (540, "9 min"), (11 * 3600, "11 h"), (3 * 86400, "3 days")],
)
def test_durations_are_said_in_one_unit(seconds: float, said: str) -> None:
    assert about(seconds) == said


def test_a_time_is_said_with_the_longest_job_and_how_it_is_known() -> None:
    known = Times(prediction(pretrain="logged", adapt="logged"), cpu(1))
    assert known.lines(suite_of(measured=True)) == [
        "time: about 2 min for all 2 stages on 1 thread of this CPU, one at a time; the longest is pretrain@lora-s0, 2 min",
        "      (by earlier runs: pretrain, adapt)",
    ]


def test_an_estimate_is_said_to_be_rough_and_how_to_measure() -> None:
    rough = Times(prediction(pretrain="estimated", adapt="estimated"), cpu(1))
    first, second = rough.lines(suite_of(measured=True))
    assert first.startswith("time: roughly 2 min for all")
    assert second == "      (by operations at 30 GFLOP/s: pretrain, adapt; `mhrctl check --time` measures)"
    first, second = rough.lines(suite_of(measured=False))
    assert first.startswith("time: up to roughly 2 min for all")
    assert "30 GFLOP/s and texts as long as settings allow" in second


def test_what_is_measured_is_said_with_how_much_of_it() -> None:
    some = Measured({}, memory=10**9, cells=2, kinds=5)
    first, second = Times(prediction(pretrain="measured", adapt="scaled"), cpu(1), some).lines(suite_of(measured=True))
    assert first.startswith("time: about 2 min")
    assert second == (
        "      (a few steps of 2 of 5 cells without their seeds measured: pretrain; by operations at the speed of these: adapt)"
    )


def test_what_could_not_be_measured_and_what_is_not_known_is_said() -> None:
    nothing = Times(Prediction({}, {}, ("prepare",)), cpu(1), refused="run `mhrctl prepare` first")
    assert nothing.lines(None) == [
        "note: no step was measured: run `mhrctl prepare` first",
        "time: not known: nothing has run here, and the size of the backbone or of the suite is not known",
    ]
    part = Times(Prediction({"prepare": 3.0}, {"prepare": "logged"}, ("pretrain", "adapt")), cpu(1))
    assert part.lines(None)[-1] == "      (by earlier runs: prepare; not known: pretrain, adapt)"


def shape_of(weights: int) -> Shape:
    return Shape({"q": (10, 10)}, weights)


@pytest.mark.parametrize(
    ("weights", "seconds", "device", "warned"),
    [
        (LARGE, LONG, cpu(1), True),
        (LARGE - 1, LONG, cpu(1), False),
        (LARGE, LONG - 100, cpu(1), False),
        (LARGE, LONG, gpu("H100", halves=True), False),
    ],
)
def test_a_large_backbone_without_a_gpu_is_warned_of_with_a_way_out(
    weights: int, seconds: float, device: Any, warned: bool
) -> None:
    said = large_without_gpu(Times(prediction(seconds), device), shape_of(weights), "google/flan-t5-base")
    assert (said is not None) == warned
    if said:
        assert "no GPU here, and google/flan-t5-base has 50M parameters" in said
        assert "`mhrctl check --set pretrain.steps=200`" in said


def test_memory_is_said_for_a_batch(project: Path) -> None:
    settings = load_params(project / "params.yaml")
    cells = [resolve_cell(settings, cell) for cell in grid_cells(settings.params)]
    texts = suite_of(measured=True).texts
    estimates = [Estimate({}, 0, memory) for memory in (10**6, 3 * 10**9)]
    said = memory_line(estimates, cells, texts, None, cpu(1))
    assert said.startswith("memory: about 3.0 GB at most a job with batches of 4 x 12 tokens (estimated), and 600 MB for")
    some = Measured({}, memory=2 * 10**9, cells=5, kinds=5)
    assert memory_line(estimates, cells, texts, some, cpu(1)) == (
        "memory: 2.0 GB at most a job with batches of 4 x 12 tokens (measured in a few steps, all of the process)"
    )
    assert "all allocated" in memory_line(estimates, cells, texts, some, gpu("H100", halves=True))


@pytest.mark.parametrize(
    ("estimated", "measured", "device", "short"),
    [
        (10**9, None, cpu(1), False),
        (15 * 10**8, None, cpu(1), True),  # with what the program takes
        (15 * 10**8, 10**9, cpu(1), False),
        (10**9, 3 * 10**9, cpu(1), True),
        (15 * 10**8, None, gpu("H100", halves=True), False),
    ],
)
def test_more_memory_than_there_is_is_warned_of(estimated: int, measured: int | None, device: Device, *, short: bool) -> None:
    steps = Measured({}, memory=measured, cells=5, kinds=5) if measured else None
    said = short_of_memory([Estimate({}, 0, 10), Estimate({}, 0, estimated)], steps, device, total=2 * 10**9)
    assert (said is not None) == short
    if said:
        assert said.startswith("this machine has 2.0 GB of memory; try fewer tasks in one batch (`mhrctl check --together 8`")


def test_fewer_tasks_in_a_batch_take_less_memory(
    project: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhrctl.cli.check.total_memory", lambda: 10**6)
    lines = checked(run, capfd, project)
    assert [line for line in lines if line.startswith("warning: this machine has 1.0 MB of memory; ")]
    monkeypatch.setattr("mhrctl.cli.times.PROGRAM", 0)
    most = {}
    for together in ("32", "1"):
        assert run("check", "-C", project, "--json", "--together", together) == 0
        most[together] = [cell["memory"] for cell in json.loads(capfd.readouterr().out)["cells"]]
    assert all(one <= many for one, many in zip(most["1"], most["32"], strict=True))
    assert max(most["1"]) < max(most["32"])


def checked(run: Run, capfd: Capture, folder: Path, *options: str) -> Sequence[str]:
    assert run("grid", "sync", "-C", folder) == 0
    capfd.readouterr()
    assert run("check", "-C", folder, *options) == 0
    return capfd.readouterr().out.splitlines()


def test_before_anything_runs_the_time_is_an_estimate(project: Path, run: Run, capfd: Capture) -> None:
    lines = checked(run, capfd, project)
    (said,) = [line for line in lines if line.startswith("time: ")]
    assert re.match(
        r"time: up to roughly \d+ (s|min) for all \d+ stages on 1 thread of this CPU, one at a time; the longest is ", said
    )
    assert lines[-1] == "ok: nothing to fix"


def test_when_stages_have_run_their_logs_say_it(copy: Path, run: Run, capfd: Capture) -> None:
    for path in (copy / "data/log").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 7200}))
    lines = checked(run, capfd, copy)
    (place,) = [place for place, line in enumerate(lines) if line.startswith("time: about ")]
    assert lines[place].endswith(", 2 h")
    assert "by earlier runs: prepare, backbone, pretrain, average, adapt, evaluate" in lines[place + 1]


def test_steps_are_measured_and_nothing_is_written(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("grid", "sync", "-C", copy) == 0
    before = digest(copy)
    lines = checked(run, capfd, copy, "--time")
    assert digest(copy) == before
    assert [line for line in lines if "(a few steps measured: pretrain, adapt, evaluate; " in line]
    assert [line for line in lines if line.startswith("memory: ") and "measured in a few steps" in line]


@pytest.mark.parametrize("other", ["--deep", "mhr-h4-s0"])
def test_the_time_is_of_the_whole_project(project: Path, run: Run, capfd: Capture, other: str) -> None:
    assert run("check", "--time", other, "-C", project) == 2
    assert "--time is of the whole project" in capfd.readouterr().err


def test_what_is_not_prepared_is_estimated_and_says_why(project: Path, run: Run, capfd: Capture) -> None:
    lines = checked(run, capfd, project, "--time")
    assert "note: no step was measured: run `mhrctl prepare` first" in lines
    assert [line for line in lines if line.startswith("time: up to roughly")]


def test_a_machine_has_the_threads_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.cli.times._gpu_name", lambda: "NVIDIA H100")
    assert Machine("cpu", None).known(halves=False) == cpu(1)
    assert Machine("cpu", 4).known(halves=False) == cpu(4)
    assert Machine("auto", None).known(halves=True) == gpu("NVIDIA H100", halves=True)


def test_a_suite_of_unknown_size_is_not_measured(copy: Path) -> None:
    settings = load_params(copy / "params.yaml")
    cells = [resolve_cell(settings, cell) for cell in grid_cells(settings.params)]
    known = times(settings, Project(copy), None, Machine("cpu", None), measures=True, cells=cells)
    assert known.refused == "the sizes of the suite or of the backbone are not known"
    assert known.prediction.total > 0  # by the logs
