"""adapt: what is trained, the best step, and tasks side by side."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.files import load_adapter
from mhrctl.artifacts.locking import locked
from mhrctl.cli import display
from mhrctl.data.batches import Batch, RunBatches
from mhrctl.data.shots import draw_shots
from mhrctl.stages import adapt
from mhrctl.training import checkpoint
from tests.conftest import CELLS, Run, mhrctl


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


@pytest.fixture(scope="module")
def four(walked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with four test tasks, and skills that differ enough for their routing to matter."""
    folder = Path(shutil.copytree(walked, tmp_path_factory.mktemp("four") / "project"))
    words = ["ant", "bee", "cat", "dog", "elk", "fox"]
    for number, name in enumerate(("third", "fourth"), 2):
        rows = [
            {"input": f"{words[i % 6]} {words[i // 6]}", "target": words[(i + 1) * number % 6], "definition": name}
            for i in range(12)
        ]
        (folder / f"tasks/test/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pretrainings = (["pretrain", "-m", "lora"], ["pretrain", "-m", "mhr", "--set", "pretrain.lr=0.03"])
    for step in (["prepare"], ["backbone"], *pretrainings):
        assert mhrctl(*step, "-C", folder) == 0
    return folder


@pytest.fixture
def best(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """{task: the step with the best score}; scores fall on both sides of it, whatever was learned."""
    steps: dict[str, int] = {}

    def scores(adaptation: Any, tasks: list[int]) -> list[float]:
        return [-abs(adaptation.taken - steps[adaptation._shots[task].name]) for task in tasks]

    monkeypatch.setattr(adapt._Adaptation, "_scores", scores)
    return steps


def adapted(project: Path, method: str, *settings: str, together: int = 32) -> tuple[dict[str, list[int]], dict[str, Tensor]]:
    """Adapt, validating at each of 16 steps; gives the validated steps by task, and the adapters."""
    usual = {"adapt.steps": "16", "adapt.evaluate_every": "1"}
    chosen = usual | dict(setting.split("=", 1) for setting in settings)
    options = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    assert mhrctl("adapt", "-m", method, "-C", project, "--force", "--together", together, *options) == 0
    path = project / f"data/adapt/{cell_name(method)}/adapters.safetensors"
    return curves(project, cell_name(method)), load_adapter(path).state_dict()


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [("lora", "adamw"), ("lora", "adafactor"), ("mhr", "adamw"), ("mhr_z", "adamw"), ("mhr_z", "adafactor")],
)
def test_a_task_that_gets_no_better_stops_and_the_others_go_on_as_before(
    four: Path, best: dict[str, int], method: str, optimizer: str
) -> None:
    best |= {"third": 0, "swap": 3, "twice": 8, "fourth": 16}
    settings = (f"adapt.optimizer={optimizer}", *([] if method == "mhr_z" else ["adapt.lr=0.02"]))
    everything, without = adapted(four, method, *settings)
    assert set(map(len, everything.values())) == {17}
    validated, stopped = adapted(four, method, *settings, "adapt.patience=2")
    assert {task: steps[-1] for task, steps in validated.items()} == {"third": 2, "swap": 5, "twice": 10, "fourth": 16}
    assert all(steps == list(range(len(steps))) for steps in validated.values())
    _, alone = adapted(four, method, *settings, "adapt.patience=2", together=1)
    for name, tensor in stopped.items():
        torch.testing.assert_close(tensor, without[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(tensor, alone[name], rtol=1e-5, atol=1e-5)


def test_tasks_that_are_left_are_validated_and_kept_as_alone(four: Path) -> None:
    settings = ("adapt.select=loss", "adapt.lr=0.2", "adapt.patience=2")
    epochs = ("adapt.evaluate_unit=epochs", "adapt.epoch_steps={swap: 1, twice: 2, third: 1, fourth: 3}")
    scores, adapters = [], []
    for together in (32, 1):
        validated, tensors = adapted(four, "lora", *settings, *epochs, together=together)
        adapters.append(tensors)
        with (four / "data/adapt/lora-s0/validation.csv").open() as stream:
            scores.append({(row["task"], row["step"]): float(row["score"]) for row in csv.DictReader(stream)})
    assert len({steps[-1] for steps in validated.values()}) > 2  # tasks left, and others went on
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][name], rtol=1e-3, atol=1e-3)


def test_a_task_that_has_stopped_leaves_the_batch(four: Path, best: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    best |= {"third": 0, "swap": 3, "twice": 3, "fourth": 9}
    rows: list[int] = []

    class Counted(RunBatches):
        def __call__(self, micro: int) -> Batch:
            assert micro == len(rows)
            batch = super().__call__(micro)
            rows.append(len(batch.inputs.lengths))
            return batch

    monkeypatch.setattr(adapt, "RunBatches", Counted)
    adapted(four, "lora", "adapt.patience=1")
    assert rows == [8] + 3 * [6] + 6 * [2]  # two of each task that is left


def test_patience_counts_validations_and_only_those_after_the_best(four: Path, best: dict[str, int]) -> None:
    best |= {"third": 4, "swap": 0, "twice": 2, "fourth": 7}
    options = ("adapt.patience=2", "adapt.evaluate_unit=epochs", "adapt.epoch_steps={swap: 2, twice: 4, third: 2, fourth: 3}")
    validated, _ = adapted(four, "lora", *options)
    assert validated == {
        "fourth": [0, 3, 6, 9, 12],  # 3 and 6 were better
        "swap": [0, 2, 4],
        "third": [0, 2, 4, 6, 8],
        "twice": [0, 4, 8],  # 4 is as good as the start, which is not better
    }


def test_all_tasks_stopped_end_the_stage(four: Path, best: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    best |= dict.fromkeys(("third", "swap", "twice", "fourth"), 0)
    advanced: list[int] = []

    def track(_description: str, total: int, **_about: str) -> AbstractContextManager[Any]:
        advanced.append(-total)
        return nullcontext(SimpleNamespace(advance=lambda steps=1, **_note: advanced.append(steps), resume=advanced.append))

    monkeypatch.setattr(display, "track", track)
    endless = ("adapt.steps=1000000", "adapt.patience=1")
    validated, _ = adapted(four, "lora", *endless)
    assert set(map(tuple, validated.values())) == {(0, 1)}
    assert sum(advanced) == 0  # the bar is at its end
    validated, _ = adapted(four, "lora", *endless, "adapt.keep_start=false")
    assert set(map(tuple, validated.values())) == {(0, 1, 2)}  # a start that cannot be the best is no score to beat


def test_tasks_whose_scores_never_differ_are_named(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By task, the scores at steps 0, 1, 2 and 3."""
    scores = {"swap": [0.0] * 4, "twice": [7.5] * 4, "third": [0.0, 0.0, 1e-9, 1e-9], "fourth": [9.0, 1.0, 1.0, 1.0]}
    monkeypatch.setattr(
        adapt._Adaptation,
        "_scores",
        lambda adaptation, tasks: [scores[adaptation._shots[task].name][adaptation.taken] for task in tasks],
    )

    def undecided(*settings: str) -> list[str]:
        adapted(four, "lora", "adapt.steps=2", *settings)
        facts = json.loads((four / "data/adapt/lora-s0/card.json").read_text())["facts"]
        assert facts["validation"]["swap"] == 0
        return facts["undecided"]

    assert undecided() == ["swap", "twice"]
    assert undecided("adapt.keep_start=false") == ["fourth", "swap", "twice"]  # the start is none of the steps to choose from
    assert undecided("adapt.keep_start=false", "adapt.evaluate_every=2") == []  # nor is there a choice of one
    beside = ("adapt.keep_start=false", "adapt.steps=3", "adapt.evaluate_every=2")  # the steps 2 and 3
    assert undecided(*beside) == ["fourth", "swap", "third", "twice"]
    assert undecided(*beside, "adapt.keep_last=false") == []  # step 2 alone


def test_whole_weights_stop_too(walked_all: Path, best: dict[str, int], tmp_path: Path) -> None:
    best |= {"swap": 0, "twice": 3}
    validated, _ = adapted(Path(shutil.copytree(walked_all, tmp_path / "project")), "full_ft", "adapt.patience=2")
    assert {task: steps[-1] for task, steps in validated.items()} == {"swap": 2, "twice": 5}


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


def saving_at_every_step(monkeypatch: pytest.MonkeyPatch, kill: Callable[[int], bool]) -> list[int]:
    """Have a checkpoint written at each step, and be killed after some; gives the steps that are written."""
    saved: list[int] = []

    def save(*args: Any, step: int, **rest: Any) -> None:
        checkpoint.save_checkpoint(*args, step=step, **rest)
        saved.append(step)
        if kill(len(saved)):
            raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "save_checkpoint", save)
    monkeypatch.setenv("MHRCTL_CHECKPOINT_SECONDS", "0")
    return saved


@pytest.mark.parametrize(
    ("method", "together", "settings"),
    [
        ("lora", 32, ["patience=2", "evaluate_every=1", "lr=0.2", "select=loss"]),
        ("lora", 2, ["patience=1", "evaluate_every=1", "keep_start=false", "optimizer=adafactor"]),
        ("mhr", 32, ["evaluate_unit=epochs", "epoch_steps={swap: 1, twice: 3}"]),
        ("full_ft", 1, ["lr=0.01"]),
    ],
)
def test_an_adaptation_that_is_killed_again_and_again_ends_with_the_same_bytes(
    four: Path, run: Run, monkeypatch: pytest.MonkeyPatch, method: str, together: int, settings: list[str]
) -> None:
    options = ["adapt", "-m", method, "--together", together, "--force", "-C", four, "--set", "adapt.steps=8"]
    options += [word for setting in settings for word in ("--set", f"adapt.{setting}")]
    if method == "full_ft":
        assert run("pretrain", "-m", method, "-C", four) == 0
    assert run(*options) == 0
    out = four / f"data/adapt/{cell_name(method)}"
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with monkeypatch.context() as patch:
        saved = saving_at_every_step(patch, lambda number: number % 3 == 0)
        kills = 0
        while (code := run(*options)) == 130 and kills < 20:
            kills += 1
            assert list((four / "data/scratch").glob("adapt-*.safetensors"))
    assert (code, kills > 1) == (0, True)
    assert len(saved) < 3 * (kills + 1)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert not list((four / "data/scratch").glob("adapt-*"))


def test_a_damaged_checkpoint_of_fewer_tasks_is_gone_back_from(
    four: Path, run: Run, capfd: pytest.CaptureFixture[str], best: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    best |= {"third": 0, "swap": 1, "twice": 8, "fourth": 8}
    options = ["adapt", "-m", "lora", "--force", "-C", four, "--set", "adapt.steps=8", "--set", "adapt.patience=2"]
    options += ["--set", "adapt.evaluate_every=1"]
    assert run(*options) == 0
    out = four / "data/adapt/lora-s0"
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with monkeypatch.context() as patch:
        assert saving_at_every_step(patch, lambda number: number == 4) == []
        assert run(*options) == 130
    last = four / "data/scratch/adapt-lora-s0-part0.safetensors"
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    capfd.readouterr()
    assert run(*options) == 0
    assert "is damaged (its hash is another), and was set aside as" in (said := capfd.readouterr().err)
    assert "the training goes on from step 3" in said
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
