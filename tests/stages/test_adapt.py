"""adapt: what is trained, the best step, and tasks side by side."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import threading
from collections import defaultdict
from operator import itemgetter
from pathlib import Path

import pytest
import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.artifacts.locking import locked
from mhrctl.data.shots import draw_shots
from tests.conftest import CELLS, Run


def cell_name(method: str) -> str:
    return f"{method}-h4-s0" if method.startswith("mhr") else f"{method}-s0"


@pytest.mark.parametrize("method", CELLS)
def test_what_each_method_trains(walked: Path, method: str) -> None:
    card = json.loads((walked / f"data/adapt/{cell_name(method)}/card.json").read_text())
    lora, layers, heads, skills = 1344 // 2, 18, 4, 2
    expected = {
        "lora": lora,
        "poly": skills * lora + layers * skills,
        "mhr": skills * lora + layers * heads * skills,
        "mhr_z": layers * heads * skills,
        "mhr_mu": lora,
    }
    assert card["facts"]["parameters"] == expected[method]
    assert card["facts"]["tasks"] == ["swap", "twice"]


def test_routing_only_leaves_the_skills_as_they_were(walked: Path) -> None:
    before = load_adapter(walked / "data/pretrain/mhr-h4-s0/adapters.safetensors")
    after = load_adapter(walked / "data/adapt/mhr_z-h4-s0/adapters.safetensors")
    for old, new in zip(before.skill_parameters(), after.skill_parameters(), strict=True):
        assert torch.equal(old, new)
    assert after.routing is not None
    assert after.routing.shape == (2, 18, 1, 8)


@pytest.mark.parametrize("method", ["mhr", "mhr_z", "lora"])
def test_tasks_side_by_side_equal_tasks_one_by_one(copy: Path, run: Run, method: str) -> None:
    path = copy / f"data/adapt/{cell_name(method)}/adapters.safetensors"
    options = ("adapt", "-m", method, "-C", copy, "--force", "--set", "adapt.select=loss")
    assert run(*options, "--together", 2) == 0
    together = load_adapter(path).state_dict()
    assert run(*options, "--together", 1, "--force") == 0
    alone = load_adapter(path).state_dict()
    for name, tensor in together.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("select", "note"), [("loss", r"validation loss \d+\.\d+"), ("task_metric", r"validation \d+\.\d")])
def test_progress_has_the_validation_as_one_reads_it(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], select: str, note: str
) -> None:
    monkeypatch.setenv("MHRCTL_PROGRESS_SECONDS", "0.001")
    assert run("adapt", "-m", "lora", "--force", "-C", copy, "--set", f"adapt.select={select}") == 0
    assert re.search(rf"adapt lora-s0: step \d of \d, {note}, .* left$", capfd.readouterr().err, re.MULTILINE)


def test_the_best_validation_score_is_kept(copy: Path, run: Run) -> None:
    assert run("adapt", "-m", "lora", "-C", copy, "--set", "adapt.select=loss", "--set", "adapt.lr=0.3") == 0
    with (copy / "data/adapt/lora-s0/validation.csv").open() as stream:
        scores: dict[str, dict[int, float]] = defaultdict(dict)
        for row in csv.DictReader(stream):
            scores[row["task"]][int(row["step"])] = float(row["score"])
    assert [sorted(steps) for steps in scores.values()] == [[0, 2, 4]] * 2
    kept = load_adapter(copy / "data/adapt/lora-s0/adapters.safetensors")
    start = load_adapter(copy / "data/pretrain/lora-s0/adapters.safetensors")
    for run_number, steps in enumerate(scores.values()):
        unchanged = torch.equal(kept.lora_A[0][run_number], start.lora_A[0][0])
        assert unchanged == (max(steps.items(), key=itemgetter(1))[0] == 0)


def test_shots_change_with_the_seed_and_never_touch_the_test_split(walked: Path) -> None:
    draws = {seed: draw_shots(walked / "data/prepare", shots=3, validation=3, seed=seed)[0] for seed in (0, 1)}
    keys = {seed: {tuple(s.input_ids) for s in draw.train} for seed, draw in draws.items()}
    assert keys[0] != keys[1]
    for draw in draws.values():
        assert (len(draw.train), len(draw.validation)) == (3, 3)
        assert {tuple(s.input_ids) for s in draw.train}.isdisjoint({tuple(s.input_ids) for s in draw.validation})


def test_adapters_of_another_backbone_are_refused(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("backbone", "-C", copy, "--set", "backbone.seed=1") == 0
    capfd.readouterr()
    assert run("adapt", "-m", "lora", "-C", copy) == 2
    error = capfd.readouterr().err
    assert "lora-s0: made for another backbone" in error
    assert error.count("\n") == 1


def test_a_missing_pretraining_says_what_to_run(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("adapt", "-m", "mhr_mu", "--heads", 2, "-C", copy) == 2
    assert "run `mhrctl pretrain mhr-h2-s0`, `mhrctl average mhr-h2-s0`" in capfd.readouterr().err


def curves(project: Path, cell: str) -> dict[str, list[int]]:
    """{task: steps at which it was validated}."""
    steps: dict[str, list[int]] = defaultdict(list)
    with (project / f"data/adapt/{cell}/validation.csv").open() as stream:
        for row in csv.DictReader(stream):
            steps[row["task"]].append(int(row["step"]))
    return steps


def test_tasks_are_validated_by_their_own_epochs_and_the_start_need_not_count(copy: Path, run: Run) -> None:
    options = ["adapt.evaluate_unit=epochs", "adapt.epoch_steps={twice: 3}", "adapt.steps=7"]
    options += ["adapt.keep_start=false", "adapt.shots=5", "adapt.lr=0.3"]  # 5 // 2 = 2 steps an epoch
    sets = [part for option in options for part in ("--set", option)]
    assert run("adapt", "-m", "lora", "-C", copy, *sets, "--set", "adapt.evaluate_every=2") == 0
    assert curves(copy, "lora-s0") == {"swap": [0, 4], "twice": [0, 6]}
    kept = load_adapter(copy / "data/adapt/lora-s0/adapters.safetensors")
    start = load_adapter(copy / "data/pretrain/lora-s0/adapters.safetensors")
    assert not torch.equal(kept.lora_A[0][0], start.lora_A[0][0])
    assert run("adapt", "-m", "lora", "-C", copy, *sets, "--set", "adapt.evaluate_every=50") == 0
    assert curves(copy, "lora-s0") == {"swap": [0, 7], "twice": [0, 7]}  # never due: the end is kept


def test_the_last_step_need_not_count(copy: Path, run: Run) -> None:
    def validated(**changed: object) -> dict[str, list[int]]:
        options = {"steps": 5, "lr": 0.3, "select": "loss"} | changed
        sets = [part for key, value in options.items() for part in ("--set", f"adapt.{key}={value}")]
        assert run("adapt", "-m", "lora", "-C", copy, *sets) == 0
        steps = curves(copy, "lora-s0")
        assert steps["swap"] == steps["twice"]
        return steps

    def is_start() -> list[bool]:
        kept, start = (load_adapter(copy / f"data/{stage}/lora-s0/adapters.safetensors") for stage in ("adapt", "pretrain"))
        return [torch.equal(kept.lora_A[0][run], start.lora_A[0][0]) for run in range(2)]

    assert validated()["swap"] == [0, 2, 4, 5]
    assert validated(keep_last=False)["swap"] == [0, 2, 4]
    assert validated(keep_last=False, steps=6)["swap"] == [0, 2, 4, 6]  # the cadence meets it
    assert validated(keep_last=False, keep_start=False)["swap"] == [0, 2, 4]
    assert validated(keep_last=False, keep_start=False, evaluate_every=50)["swap"] == [0, 5]  # nothing else could be kept
    assert is_start() == [False, False]
    assert validated(keep_last=False, evaluate_every=50)["swap"] == [0]
    assert is_start() == [True, True]
    epochs = {"evaluate_unit": "epochs", "evaluate_every": 2, "shots": 5}  # of two steps: validated at 4
    assert validated(**epochs) == validated(**epochs, keep_last=False)  # of epochs it never counts


def test_the_test_split_validates_and_its_best_score_is_reported(copy: Path, run: Run) -> None:
    assert run("adapt", "-m", "lora", "-C", copy, "--set", "adapt.validate_on=test", "--set", "adapt.lr=0.3") == 0
    card = json.loads((copy / "data/adapt/lora-s0/card.json").read_text())
    assert card["facts"]["shots"] == {"swap": [3, 4], "twice": [3, 4]}
    assert run("evaluate", "-m", "lora", "-C", copy) == 0
    metrics = json.loads((copy / "data/metrics/evaluate/lora-s0.json").read_text())
    for name, task in metrics["by_task"].items():
        assert task["validation"] == pytest.approx(card["facts"]["validation"][name])
        assert task["adapted"] == pytest.approx(task["validation"], abs=1e-3)  # one reference, the same examples
    assert metrics["adapted"]["score"] == pytest.approx(metrics["validation"], abs=1e-3)


def test_a_trial_runs_with_its_own_settings(copy: Path, run: Run) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("    lora:\n", "    lora: {search: {lr: [0.001, 0.3]}}\n"))
    assert run("grid", "sync", "-C", copy) == 0
    for stage in ("adapt", "evaluate"):
        assert run(stage, "--cell", "lora-t2-s0", "-C", copy) == 0
    card = json.loads((copy / "data/adapt/lora-t2-s0/card.json").read_text())
    assert card["params"]["adapt"]["lr"] == 0.3
    metrics = json.loads((copy / "data/metrics/evaluate/lora-t2-s0.json").read_text())
    assert (metrics["trial"], metrics["settings"]) == (2, {"lr": 0.3})
    assert metrics["validation"] is not None


def test_another_cell_s_folder_under_this_one_s_name_is_refused(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    data = copy / "data"
    for stage, other, name in (("pretrain", "poly-s0", "lora-s0"), ("adapt", "mhr_mu-h4-s0", "poly-s0")):
        shutil.rmtree(data / stage / name)
        shutil.copytree(data / stage / other, data / stage / name)
    for command, stage, other, name in (
        (("adapt", "-m", "lora"), "pretrain", "poly-s0", "lora-s0"),
        (("evaluate", "-m", "lora", "--force"), "pretrain", "poly-s0", "lora-s0"),
        (("evaluate", "-m", "poly", "--force"), "adapt", "mhr_mu-h4-s0", "poly-s0"),
        (("export", "-m", "poly"), "adapt", "mhr_mu-h4-s0", "poly-s0"),
    ):
        capfd.readouterr()
        assert run(*command, "-C", copy) == 2
        assert f"holds the {stage} output of {other}, not of {name}; remove" in capfd.readouterr().err


def test_a_second_process_in_an_output_is_refused_in_one_line(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    out = copy / "data/adapt/lora-s0"
    said: list[int] = []

    def second() -> None:
        said.append(run("adapt", "-m", "lora", "-C", copy, "--force"))

    with locked(out):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert said == [2]
    assert f"data/adapt/lora-s0: is being written by process {os.getpid()}; wait" in capfd.readouterr().err
