"""Every measurement on a micro model: the rows that it promises, and numbers that can be."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    artifacts,
    checks,
    command,
    compiled,
    end_to_end,
    gpu,
    grid,
    memory,
    routing,
    scoring,
    side_by_side,
    starting,
    steps,
)
from benchmarks.peers import UnequalError
from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, new_samples
from benchmarks.timing import Ratio
from mhrctl.artifacts.names import Project
from tests.conftest import PARAMS, write_tasks

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


@pytest.fixture(autouse=True)
def one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest shape, smaller."""
    monkeypatch.setitem(SHAPES, "micro", replace(SHAPES["micro"], layers=1))


def assert_sane(measured: Measured, rows: int) -> None:
    assert len(measured.rows) == rows
    for row in measured.rows:
        assert 0 < row.value.low <= row.value.median <= row.value.high < math.inf, row
    assert all(0 <= number < math.inf for number in measured.figures.values())


def test_artifacts() -> None:
    measured = artifacts.measure(artifacts.Plan(megabytes=8, rounds=2))
    assert_sane(measured, 2)
    assert all(row.value.low > 1 for row in measured.rows)


def test_steps() -> None:
    measured = steps.measure(steps.Plan(("micro",), (1, 8), 2))
    assert_sane(measured, 2 * 3)
    assert [row.what for row in measured.rows[:2]] == [f"MHR step / peft MHR (heads {heads}, d_model 64)" for heads in (1, 8)]
    assert set(measured.figures) == {
        *("micro: frozen limit", "micro: peft LoRA"),
        *(f"micro: {who}, heads {heads}" for who in ("MHR", "peft MHR") for heads in (1, 8)),
    }
    assert all(row.gate is None for row in measured.rows)  # the gates are those of wider models


def test_steps_have_the_gates_of_their_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "wide", replace(SHAPES["micro"], d_model=256, d_kv=64))
    measured = steps.measure(steps.Plan(("wide",), (1, 64), 1))
    assert [(row.gate, row.aim) for row in measured.rows] == [
        (0.75, 0.70),
        (0.68, 0.60),
        *[(0.95, 0.82)] * 2,
        *[(1.08, 0.95)] * 2,
    ]


def test_nothing_is_timed_where_losses_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.Peer.copy", lambda *_: None)
    measurements: list[Callable[[], Measured]] = [
        lambda: steps.measure(steps.Plan(("micro",), (8,), 1)),
        lambda: side_by_side.measure(side_by_side.Plan("micro", 2, 1, compiled=False)),
        lambda: scoring.measure(scoring.Plan("micro", 1)),
        lambda: end_to_end.measure(end_to_end.Plan("micro", 1, 1, longest=(64, 8), data=None)),
        lambda: memory.measure(memory.Plan("micro")),
        lambda: compiled.measure(compiled.Plan(("micro",), 1, backend="eager")),
    ]
    for measure in measurements:
        with pytest.raises(UnequalError):
            measure()


def test_end_to_end_on_made_lengths() -> None:
    measured = end_to_end.measure(end_to_end.Plan("micro", 1, 2, longest=(64, 8), data=None))
    assert_sane(measured, 1)
    assert "lognormal" in measured.notes[0]
    assert "of the peer's tokens are padding" in measured.notes[0]


def test_end_to_end_on_data(tmp_path: Path) -> None:
    clone = tmp_path / end_to_end.FOLDER
    (clone / "tasks").mkdir(parents=True)
    (clone / "splits/default").mkdir(parents=True)
    rows = [{"id": f"i{n}", "input": " ".join(["word"] * (n + 1)), "output": ["yes"]} for n in range(30)]
    task = {"Definition": ["Say yes."], "Positive Examples": [], "Negative Examples": [], "Instances": rows}
    for name in ("task1_a", "task2_b"):
        (clone / f"tasks/{name}.json").write_text(json.dumps(task))
    (clone / "splits/default/train_tasks.txt").write_text("task1_a\n")
    (clone / "splits/default/test_tasks.txt").write_text("task2_b\n")
    lengths, note = end_to_end.real_lengths(tmp_path)
    assert "1 tasks of Super-NaturalInstructions" in note
    inputs, targets, tasks = map(set, zip(*lengths, strict=True))
    assert len(inputs) == len(lengths)  # each row is a word longer
    assert (len(targets), tasks) == (1, {0})


def test_memory_counts_each_storage_once() -> None:
    assert_sane(memory.measure(memory.Plan("micro")), 4)
    weight = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(4, 8, requires_grad=True)
    assert memory.saved_bytes(lambda: x @ weight, [weight]) == x.nbytes
    assert memory.saved_bytes(lambda: (x @ weight, x[:2] @ weight), [weight]) == x.nbytes
    assert memory.saved_bytes(lambda: [(x @ weight).exp()], [weight]) == 2 * x.nbytes
    assert memory.saved_bytes(lambda: [(x @ weight).exp()], []) == 2 * x.nbytes + weight.nbytes


def test_side_by_side() -> None:
    measured = side_by_side.measure(side_by_side.Plan("micro", 3, 2, compiled=False))
    assert_sane(measured, 2)
    assert all("3 adaptations" in row.what and row.more_is_better for row in measured.rows)


def test_scoring() -> None:
    assert_sane(scoring.measure(scoring.Plan("micro", 2, rows=3, choices=2)), 1)


def test_routing_grows_with_pools() -> None:
    measured = routing.measure(routing.Plan("micro", (2, 5), rank=1, repetitions=2))
    assert_sane(measured, 6)
    assert set(measured.figures) == {
        *(f"{method}, {size} adapters" for method in ("lorauter", "lora_retriever") for size in (2, 5)),
        "one adapter",
    }


def test_checks_are_a_part_of_a_step() -> None:
    measured = checks.measure(checks.Plan(("micro",), (1, 3), 2))
    assert_sane(measured, 2)
    assert [row.gate for row in measured.rows] == [None, None]  # the gate is that of wider models
    assert set(measured.figures) == {"micro: step", "micro: 200 checks, 1 run(s)", "micro: 200 checks, 3 run(s)"}


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled() -> None:
    assert_sane(compiled.measure(compiled.Plan(("micro",), 2, backend="eager")), 4)


def test_compiled_is_left_out_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    measured = compiled.measure(compiled.Plan(("micro",), 2))
    assert measured.rows == []
    assert "C++ compiler" in measured.notes[0]


@pytest.mark.slow
def test_grid(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    write_tasks(tmp_path / "tasks")
    measured = grid.measure(grid.Plan(tmp_path, {"grid": {"methods": {"lora": None}}}))
    assert_sane(measured, 3)
    assert not Project(tmp_path).data.exists()  # what is there is left alone


@pytest.mark.slow
def test_starting() -> None:
    assert_sane(starting.measure(starting.PLANS[True]), 7)


def test_gpu_dry_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--dry", "--repetitions", "1", "--out", str(tmp_path / "gpu.json")]) == 0
    shown = capsys.readouterr().out
    assert "MHR step / peft LoRA, eager" in shown
    assert "MHR step / the same without a check of finite numbers" in shown
    assert "3 adaptations one by one with peft / side by side (MHR)" in shown
    assert "MHR step, 3 tasks in a batch / frozen packed forward and backward" in shown
    assert list(tmp_path.iterdir()) == []


def test_gpu_without_a_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_gpu_counts_the_operations_of_a_step() -> None:
    assert gpu.flops(SHAPES["t5-xl"]) == pytest.approx(29.05e12, rel=1e-3)
    one = replace(SHAPES["micro"], rows=1)
    assert gpu.flops(replace(one, rows=3)) == 3 * gpu.flops(one)


def test_the_command_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached, missed = (Row("a / b", Ratio(value, value, value), 1.0, 0.5) for value in (0.7, 2.0))
    fakes = {"steps": lambda _quick: Measured([reached]), "grid": lambda _quick: Measured([missed], notes=["once"])}
    monkeypatch.setattr("benchmarks.command.MEASUREMENTS", fakes)
    assert command.main(["--out", str(tmp_path)]) == 0  # the grid only where it is named
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["steps"]
    assert command.main(["--only", "grid", "--quick", "--out", str(tmp_path)]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quick.json", "quick.md", "results.json", "results.md"]
    assert "gate 1.00, aim 0.50: missed" in capsys.readouterr().out


def test_samples_do_not_repeat() -> None:
    first, second = (new_samples(SHAPES["micro"], 2, seed=seed) for seed in (0, 1))
    assert first[1].input_ids.tolist() != second[1].input_ids.tolist()
