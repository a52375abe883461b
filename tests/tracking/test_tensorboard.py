"""What stages record in TensorBoard's files is what their own logs have, and changes nothing of what they write."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mhrctl.artifacts.hashing import digest
from mhrctl.evaluation import pretraining
from mhrctl.evaluation.scores import read_metrics
from mhrctl.tracking.backend import Subject
from mhrctl.tracking.tensorboard import open_tensorboard
from tests.conftest import Run, killed_after_checkpoint

Curve = list[tuple[int, float]]
TRACKED = ("--track", "tensorboard", "--force")


def near(value: float | None) -> Any:
    """A number up to the fp32 of event files."""
    return pytest.approx(value, rel=1e-6)


def recorded(project: Path, name: str) -> dict[str, Curve]:
    """{name: (step, value)} of the event files of a stage and cell, as TensorBoard reads them."""
    folder = project / "data/log/tracking" / name
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def kept_settings(project: Path, name: str) -> dict[str, Any]:
    """The settings of a stage and cell, as TensorBoard's page of hyperparameters has them."""
    events = EventAccumulator(str(project / "data/log/tracking" / name))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    return {key: getattr(value, str(value.WhichOneof("kind"))) for key, value in hparams.items()}


def training_log(project: Path, cell: str) -> list[dict[str, str]]:
    with (project / f"data/metrics/pretrain/{cell}.csv").open() as stream:
        return list(csv.DictReader(stream))


def curve(rows: list[dict[str, str]], column: str) -> Curve:
    return [(int(row["step"]), near(float(row[column]))) for row in rows if row[column]]


def written(project: Path) -> dict[str, str]:
    """The digests of all outputs but the logs of runs."""
    files = (path for path in (project / "data").rglob("*") if path.is_file() and "log" not in path.relative_to(project).parts)
    return {str(path.relative_to(project)): digest(path) for path in files}


def test_a_training_that_goes_on_hides_the_steps_that_it_takes_again(tmp_path: Path) -> None:
    for steps in ([1, 2, 3], [3, 4]):
        recorder = open_tensorboard(Subject("study", "pretrain", tmp_path / "data/log/tracking", cell="x"))
        for step in steps:
            recorder.log(step, {"loss": float(step + 10 * len(steps))})
        recorder.summary({"validation_loss": float(len(steps))})
        recorder.close()
    both = recorded(tmp_path, "pretrain-x")
    assert both["loss"] == [(1, 31.0), (2, 32.0), (3, 23.0), (4, 24.0)]
    assert both["summary/validation_loss"] == [(4, 2.0)]


def test_files_are_read_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    """Within a second the tenth file of a process would come before the ninth; each has a second of its own."""
    for number in range(3):
        recorder = open_tensorboard(Subject("study", "pretrain", tmp_path / "data/log/tracking", cell="x"))
        recorder.log(1, {"number": float(number)})
        recorder.close()
    assert recorded(tmp_path, "pretrain-x") == {"number": [(1, 2.0)]}
    seconds = {path.name.split(".")[3] for path in (tmp_path / "data/log/tracking/pretrain-x").iterdir()}
    assert len(seconds) == 3


def test_a_summary_alone_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for score in (1.0, 2.0):
        recorder = open_tensorboard(Subject("study", "evaluate", tmp_path / "data/log/tracking", cell="x"))
        recorder.summary({"score": score})
        recorder.close()
    assert recorded(tmp_path, "evaluate-x") == {"summary/score": [(0, 2.0)]}


def test_stages_record_what_their_own_logs_have_and_write_the_same_bytes(copy: Path, run: Run) -> None:
    before = written(copy)
    for stage in ("pretrain", "adapt", "evaluate"):
        assert run(stage, "-m", "mhr", *TRACKED, "-C", copy) == 0
    assert written(copy) == before

    of_training, rows = recorded(copy, "pretrain-mhr-h4-s0"), training_log(copy, "mhr-h4-s0")
    for name in ("loss", "lr", "routing_lr", "tokens"):
        assert of_training[name] == curve(rows, name)
    assert [step for step, _ in of_training["tokens_per_second"]] == [2, 4]
    assert all(speed > 0 for _, speed in of_training["tokens_per_second"])
    with (copy / "data/pretrain/mhr-h4-s0/validation.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert of_training["summary/validation_loss"] == [(4, near(fmean(losses)))]
    assert set(of_training) == {"loss", "lr", "routing_lr", "tokens", "tokens_per_second", "summary/validation_loss"}

    settings = kept_settings(copy, "pretrain-mhr-h4-s0")
    assert (settings["group"], settings["stage"], settings["pretrain.lr"]) == ("mhr-h4", "pretrain", 0.001)
    assert len(settings["key"]) == 64

    of_adapting = recorded(copy, "adapt-mhr-h4-s0")
    with (copy / "data/adapt/mhr-h4-s0/validation.csv").open() as stream:
        scores = list(csv.DictReader(stream))
    by_step: dict[int, list[float]] = {}
    for row in scores:
        by_step.setdefault(int(row["step"]), []).append(float(row["score"]))
    for task in ("swap", "twice"):
        assert of_adapting[f"validation/{task}"] == curve([row for row in scores if row["task"] == task], "score")
    assert of_adapting["validation_mean"] == [(step, near(fmean(each))) for step, each in by_step.items()]
    facts = json.loads((copy / "data/adapt/mhr-h4-s0/card.json").read_text())["facts"]
    assert of_adapting["summary/best_mean"] == [(4, near(fmean(facts["validation"].values())))]
    assert of_adapting["summary/best/swap"] == [(4, near(facts["validation"]["swap"]))]

    of_scores, metrics = recorded(copy, "evaluate-mhr-h4-s0"), read_metrics(copy / "data/metrics/evaluate")["mhr-h4-s0"]
    assert metrics.adapted is not None
    for phase, means in (("zero_shot", metrics.zero_shot), ("adapted", metrics.adapted)):
        for name, value in means.items():
            assert of_scores[f"summary/{phase}/{name}"] == [(0, near(value))]
    for task, scores_of in metrics.by_task.items():
        assert of_scores[f"summary/zero_shot/task/{task}"] == [(0, near(scores_of.zero_shot))]
        assert of_scores[f"summary/adapted/task/{task}"] == [(0, near(scores_of.adapted))]


def test_a_backbone_records_its_loss_and_rate_and_is_the_same(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("--set", "backbone.scratch.steps=100")
    assert run("backbone", *steps, "-C", copy) == 0
    before = digest(copy / "data/backbone")
    monkeypatch.setenv("MHRCTL_TRACK", "tensorboard")
    assert run("backbone", *steps, "--force", "-C", copy) == 0
    assert digest(copy / "data/backbone") == before
    curves = recorded(copy, "backbone")
    assert [step for step, _ in curves["loss"]] == [50, 100]
    assert curves["lr"] == [(50, near(1e-3 * 50 / 95)), (100, 0.0)]


def test_gradient_alignment_is_recorded_where_it_was_measured(copy: Path, run: Run) -> None:
    assert run("pretrain", "-m", "mhr", "--set", "pretrain.align_every=3", *TRACKED, "-C", copy) == 0
    curves, rows = recorded(copy, "pretrain-mhr-h4-s0"), training_log(copy, "mhr-h4-s0")
    assert [step for step, _ in curves["loss"]] == [2, 3, 4]
    for name in ("shared", "composed"):
        assert [step for step, _ in curves[name]] == [3, 4]
        assert curves[name] == curve(rows, name)


@pytest.mark.parametrize("method", ["mhr", "adapter_soup"])
def test_a_killed_training_goes_on_in_its_curve(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """adapter_soup trains an adapter a task one after another, whose steps are counted on."""
    options = ["pretrain", "-m", method, "--together", "1", "--set", "pretrain.log_every=1", *TRACKED, "-C", copy]
    cell = "mhr-h4-s0" if method == "mhr" else "adapter_soup-s0"
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    with killed_after_checkpoint():
        assert run(*options) == 130
    partly = recorded(copy, f"pretrain-{cell}")
    assert [step for step, _ in partly["loss"]] == [1, 2]
    assert run(*options) == 0
    whole, rows = recorded(copy, f"pretrain-{cell}"), training_log(copy, cell)
    assert len(rows) > len(partly["loss"])
    for name in ("loss", "lr", "tokens"):
        assert whole[name] == curve(rows, name)
    assert len(list((copy / "data/log/tracking" / f"pretrain-{cell}").iterdir())) == 2


def test_tasks_adapted_one_after_another_have_their_curves_and_a_mean(copy: Path, run: Run) -> None:
    assert run("adapt", "-m", "lora", "--together", "1", *TRACKED, "-C", copy) == 0
    curves = recorded(copy, "adapt-lora-s0")
    for name in ("validation_mean", "validation/swap", "validation/twice"):
        assert [step for step, _ in curves[name]] == [0, 2, 4]


def test_a_second_training_takes_the_place_of_the_first(copy: Path, run: Run) -> None:
    for seed in ("0.01", "0.02"):
        assert run("pretrain", "-m", "lora", "--set", f"pretrain.lr={seed}", *TRACKED, "-C", copy) == 0
    assert recorded(copy, "pretrain-lora-s0")["lr"] == curve(training_log(copy, "lora-s0"), "lr")
