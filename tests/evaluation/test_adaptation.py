"""Tasks in one batch: each stops by itself and as it would alone, and a killed adaptation goes on to the same bytes."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.files import load_adapter
from mhrctl.cli import display
from mhrctl.data.batches import Batch, RunBatches
from mhrctl.evaluation import adaptation
from mhrctl.training import checkpoint
from tests.conftest import Run, mhrctl
from tests.stages.test_adapt import cell_name, curves


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

    monkeypatch.setattr(adaptation.Adaptation, "_scores", scores)
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

    monkeypatch.setattr(adaptation, "RunBatches", Counted)
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
        adaptation.Adaptation,
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


def saving_at_every_step(monkeypatch: pytest.MonkeyPatch, kill: Callable[[int], bool]) -> list[int]:
    """Have a checkpoint written at each step, and be killed after some; gives the steps that are written."""
    saved: list[int] = []

    def save(*args: Any, step: int, **rest: Any) -> None:
        checkpoint.save_checkpoint(*args, step=step, **rest)
        saved.append(step)
        if kill(len(saved)):
            raise KeyboardInterrupt

    monkeypatch.setattr(adaptation, "save_checkpoint", save)
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
