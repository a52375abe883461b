"""Predictions of new inputs: those of the test splits are what `mhrctl evaluate` has recorded."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator

import mhrctl as package
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.config.methods import METHODS
from mhrctl.errors import ArtifactError, DataError, MhrctlError, ParamsError
from mhrctl.models.speed import Speed
from mhrctl.tools.predict import of_cell, of_folders, open_base, task_of
from mhrctl.tools.predictor import Predictor
from mhrctl.training.execution import Execution
from tests.conftest import CELLS, OTHERS, Run, mhrctl, reseal
from tests.tools.answering import answers, cell_of, settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
ROUTERS = [name for name, row in METHODS.items() if row.routes_queries]
EVERY = [name for name in (*CELLS, *OTHERS) if name not in ROUTERS]
NOISE = 3.0
"""Of numbers by which a backbone that has learned nothing says this and that."""


def lines_of_tests(project: Path) -> list[dict[str, Any]]:
    """The inputs of the test splits, in an order of no use to anybody."""
    rows = pq.read_table(project / "data/prepare/test_tasks.parquet").to_pylist()
    lines = []
    for row in rows:
        if row["split"] == "test":
            source = (project / f"tasks/test/{row['task']}.jsonl").read_text().splitlines()
            text = json.loads(source[int(row["id"].rpartition("-")[2])])["input"]
            lines.append({"task": row["task"], "input": text, "id": row["id"]})
    random.Random(1).shuffle(lines)
    return lines


def recorded(project: Path, cell: str, phase: str) -> dict[tuple[str, str], str]:
    rows = pq.read_table(project / "data/evaluate" / cell / "predictions.parquet").to_pylist()
    return {(row["task"], row["id"]): row["prediction"] for row in rows if row["phase"] == phase}


def assert_as_recorded(predictor: Predictor, project: Path, cell: str, phase: str = "adapted") -> None:
    lines = lines_of_tests(project)
    before = recorded(project, cell, phase)
    assert len(before) == len(lines)
    said = [answer.text for answer in answers(predictor, project, lines)]
    assert said == [before[line["task"], line["id"]] for line in lines]


def enliven(project: Path, stage: str, cell: str, *, seed: int = 5) -> None:
    """Give the adapters of an output some numbers."""
    folder = project / "data" / stage / cell
    adapter = load_adapter(folder / ADAPTERS)
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(NOISE * torch.randn(parameter.shape, generator=numbers))
    save_adapter(adapter, folder / ADAPTERS)
    reseal(folder)


@pytest.fixture(scope="module")
def lively(walked_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose adapted cells were evaluated with such numbers."""
    folder = Path(shutil.copytree(walked_all, tmp_path_factory.mktemp("lively") / "project"))
    for number, method in enumerate(EVERY):
        enliven(folder, "adapt", cell_of(method).name, seed=5 + number)
        assert mhrctl("evaluate", "-m", method, "-C", folder) == 0
    return folder


@pytest.mark.parametrize("method", EVERY)
def test_answers_of_every_method_are_those_that_were_evaluated(lively: Path, execution: Execution, method: str) -> None:
    cell = cell_of(method)
    predictor = of_cell(cell, settings(lively), stage="adapt", project=Project(lively), execution=execution)
    assert_as_recorded(predictor, lively, cell.name)
    assert predictor.notes == []


@pytest.mark.parametrize("method", ROUTERS)
def test_routed_answers_are_those_that_were_evaluated(
    copy_of_all: Path, execution: Execution, method: str, tmp_path: Path
) -> None:
    """Also of several cells on one backbone, in batches of lines of many tasks."""
    cell, where = cell_of(method), Project(copy_of_all)
    enliven(copy_of_all, "pretrain", "adapter_soup-s0")
    assert mhrctl("adapt", "-m", method, "-C", copy_of_all) == 0
    assert mhrctl("evaluate", "-m", method, "-C", copy_of_all) == 0
    base = open_base(where)
    of_cell(cell_of("lora"), settings(copy_of_all), stage="adapt", project=where, execution=execution, base=base)
    predictor = of_cell(cell, settings(copy_of_all), stage="adapt", project=where, execution=execution, base=base)
    assert predictor.reads_prompts
    assert (predictor.tasks, predictor.notes) == ([], [])
    for phase in ("zero_shot", "adapted"):
        assert_as_recorded(predictor, copy_of_all, cell.name, phase)
    lines = lines_of_tests(copy_of_all)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert mhrctl("predict", tmp_path / "in.jsonl", "-m", method, "-C", copy_of_all, "-o", tmp_path / "out.jsonl") == 0
    before = recorded(copy_of_all, cell.name, "adapted")
    said = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert {(line["task"], line["id"]): line["answer"] for line in said} == before
    assert len(set(before.values())) > 1
    with package.Project(copy_of_all).cell(cell.name) as loaded:
        inputs = [{"task": line["task"], "input": line["input"]} for line in lines]
        assert loaded.generate(inputs) == [before[line["task"], line["id"]] for line in lines]


def test_the_answers_that_were_evaluated_differ(lively: Path) -> None:
    """Else the tests here would say nothing: between examples and methods."""
    said = {method: recorded(lively, cell_of(method).name, "adapted") for method in EVERY}
    assert len({tuple(answers.values()) for answers in said.values()}) > len(EVERY) // 2
    assert len({text for answers in said.values() for text in answers.values()}) > len(EVERY) // 2


def test_cells_on_one_backbone_answer_as_each_alone(lively: Path, execution: Execution) -> None:
    """Those of all methods but the one that changes the weights, in any order, also of layers that few of them have."""
    where = Project(lively)
    base = open_base(where)
    enliven(lively, "adapt", "mhr-h4-light-s0")
    assert mhrctl("evaluate", "-m", "mhr", "--variant", "light", "-C", lively) == 0
    shared = [cell_of("mhr", variant="light"), *(cell_of(method) for method in EVERY if not METHODS[method].adds_lora)]
    predictors = {
        cell.name: of_cell(cell, settings(lively), stage="adapt", project=where, execution=execution, base=base)
        for cell in shared
    }
    for name, predictor in reversed(predictors.items()):
        assert_as_recorded(predictor, lively, name)


def test_a_cell_of_another_backbone_is_refused(copy: Path, execution: Execution) -> None:
    base = replace(open_base(Project(copy)), fingerprint="0" * 64)
    with pytest.raises(ArtifactError, match="another backbone"):
        of_cell(cell_of("lora"), settings(copy), stage="adapt", project=Project(copy), execution=execution, base=base)


@pytest.mark.parametrize("off", [["all"], ["together"], ["folding"]])
def test_speed_options_change_no_answer(lively: Path, accelerator: Accelerator, off: list[str]) -> None:
    execution = Execution(accelerator, Speed().without(off))
    predictor = of_cell(cell_of("mhr"), settings(lively), stage="adapt", project=Project(lively), execution=execution)
    assert_as_recorded(predictor, lively, "mhr-h4-s0")


@pytest.mark.parametrize("method", ["mhr"])
def test_before_adaptation_a_new_task_is_answered_zero_shot(
    walked_all: Path, tmp_path: Path, execution: Execution, method: str
) -> None:
    project = Path(shutil.copytree(walked_all, tmp_path / "project"))
    cell = cell_of(method)
    enliven(project, "pretrain", cell.name)
    assert mhrctl("evaluate", "-m", method, "--zero-shot", "-C", project) == 0
    assert set(recorded(project, cell.name, "zero_shot").values()) != {""}
    predictor = of_cell(cell, settings(project), stage="pretrain", project=Project(project), execution=execution)
    assert_as_recorded(predictor, project, cell.name, "zero_shot")
    why = f"answered by the average, as {cell.name} was not pre-trained on them"
    assert [note.partition(": ")[0] for note in predictor.notes] == ([why] if method == "mhr" else [])


def test_the_average_and_the_bare_backbone_answer_all_alike(copy: Path, execution: Execution) -> None:
    where = Project(copy)
    enliven(copy, "average", "mhr-h4-s0")
    assert mhrctl("evaluate", "-m", "mhr_mu", "--zero-shot", "-C", copy) == 0
    average = of_cell(cell_of("mhr"), settings(copy), stage="average", project=where, execution=execution)
    assert_as_recorded(average, copy, "mhr_mu-h4-s0", "zero_shot")
    bare = of_cell(None, settings(copy), stage="adapt", project=where, execution=execution)
    assert_as_recorded(bare, copy, "backbone", "zero_shot")


def test_tasks_that_a_cell_was_not_adapted_to_are_answered_zero_shot_and_named(walked: Path, execution: Execution) -> None:
    where = Project(walked)
    lines = [
        {"task": "swap", "input": "ant bee"},
        {"task": "copy", "input": "ant bee"},
        {"task": "fresh", "input": "ant bee", "definition": "swap"},
    ]
    adapted = of_cell(cell_of("mhr"), settings(walked), stage="adapt", project=where, execution=execution)
    said = answers(adapted, walked, lines)
    assert adapted.notes == ["answered zero-shot, as mhr-h4-s0 was not adapted to them: copy, fresh"]
    average = of_cell(cell_of("mhr"), settings(walked), stage="average", project=where, execution=execution)
    assert said[1:] == answers(average, walked, lines)[1:]


def test_a_training_task_has_its_row_of_the_routing(copy: Path, execution: Execution) -> None:
    """Side by side, and as each alone does with an inventory that knows one task."""
    file = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    adapter = load_adapter(file)
    (routing,) = adapter.routing_parameters()
    with torch.no_grad():
        routing.copy_(torch.randn(routing.shape, generator=torch.Generator().manual_seed(0)) * 9)
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_adapter(adapter, file)
    reseal(file.parent)
    where = Project(copy)

    def scores(lines: Sequence[dict[str, Any]]) -> list[Sequence[float]]:
        predictor = of_cell(cell_of("mhr"), settings(copy), stage="pretrain", project=where, execution=execution)
        return [answer.scores for answer in answers(predictor, copy, lines)]

    lines = [
        {"task": task, "input": "ant bee", "definition": "copy", "choices": ["ant", "cat"]}
        for task in ("copy", "first", "last")
    ]
    together = scores(lines)
    assert len({tuple(round(score, 3) for score in row) for row in together}) == 3
    for line, row in zip(lines, together, strict=True):
        assert scores([line]) == [pytest.approx(row, rel=1e-5)]
    # The routing of a task's row alone gives the same.
    with torch.no_grad():
        routing.copy_(routing[:, :, 1:2].expand_as(routing))
    save_adapter(adapter, file)
    reseal(file.parent)
    assert scores(lines) == [pytest.approx(together[1], rel=1e-5)] * 3


def test_options_of_generation_are_heeded(lively: Path, execution: Execution) -> None:
    lines = lines_of_tests(lively)
    where = Project(lively)

    def lengths(**more: Any) -> int:
        predictor = of_cell(cell_of("lora"), settings(lively, **more), stage="adapt", project=where, execution=execution)
        return max(len(answer.text.split()) for answer in answers(predictor, lively, lines))

    assert lengths(max_new_tokens=1, beams=2) <= 1 < lengths(max_new_tokens=9)


def test_exported_folders_answer_as_their_cell(lively: Path, tmp_path: Path, execution: Execution, run: Run) -> None:
    copy = Path(shutil.copytree(lively, tmp_path / "project"))
    where = Project(copy)
    for method in ("lora", "ia3", "mhr"):
        assert run("export", "-m", method, "-C", copy) == 0
        cell = cell_of(method)
        folders = [copy / f"data/export/adapt/{cell.name}/{task}" for task in ("swap", "twice")]
        predictor = of_folders(folders, settings(copy), project=where, execution=execution)
        assert_as_recorded(predictor, copy, cell.name)
    assert task_of(folders) is None
    assert task_of(folders[:1]) == "swap"
    alone = of_folders(folders[:1], settings(copy), project=where, execution=execution)
    with pytest.raises(DataError, match=r"^in.jsonl:1: .*swap has no adapter for task twice; it has swap$"):
        answers(alone, copy, [{"task": "twice", "input": "a"}])


def test_a_folder_of_another_library_answers_every_task(copy: Path, execution: Execution, run: Run) -> None:
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", copy / "theirs", "-C", copy) == 0
    (copy / "theirs/card.json").unlink()
    predictor = of_folders([copy / "theirs"], settings(copy), project=Project(copy), execution=execution)
    assert_as_recorded(predictor, copy, "lora-s0", "zero_shot")


def refused(folders: Sequence[Path], project: Path, execution: Execution, kind: type[MhrctlError], message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        of_folders(folders, settings(project), project=Project(project), execution=execution)
    assert "\n" not in str(error.value)


def test_folders_that_cannot_answer_say_why(copy: Path, execution: Execution, run: Run, tmp_path: Path) -> None:
    for options in (["-m", "lora"], ["-m", "lora", "--merge", "--out", copy / "merged"], ["-m", "mhr", "--stage", "pretrain"]):
        assert run("export", *options, "-C", copy) == 0
    exported = copy / "data/export/adapt/lora-s0"
    refused([copy / "merged/swap"], copy, execution, ParamsError, r"merged/swap: is a whole model, which needs no mhrctl")
    refused([copy / "data/adapt/lora-s0"], copy, execution, ParamsError, r"lora-s0: holds what the adapt stage has written")
    inventory = copy / "data/export/pretrain/mhr-h4-s0"
    refused(
        [inventory], copy, execution, ParamsError, r"is an inventory, whose routing names no tasks; name its cell, with --stage"
    )
    refused([copy / "nothing"], copy, execution, DataError, r"^--adapter .*nothing: no such folder$")
    shutil.copytree(exported / "swap", tmp_path / "again")
    refused(
        [exported / "swap", tmp_path / "again"], copy, execution, ParamsError, r"again: another is of swap too; leave one out"
    )
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("steps: 2, ", "steps: 3, ", 1))
    assert run("backbone", "-C", copy) == 0
    refused(
        [exported / "swap"],
        copy,
        execution,
        ArtifactError,
        r"swap: is for another backbone \(.*; predict in a project of that$",
    )


def test_damaged_exports_are_refused(copy: Path, execution: Execution, run: Run) -> None:
    assert run("export", "-m", "lora", "--task", "swap", "-C", copy) == 0
    folder = copy / "data/export/adapt/lora-s0/swap"
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")
    refused([folder], copy, execution, ArtifactError, r"adapter_model.safetensors: holds other bytes than were written")


@pytest.mark.parametrize(
    ("method", "stage", "kind", "message"),
    [
        ("lora", "average", ParamsError, "--stage average: lora has no skills to average; name --stage pretrain or adapt"),
        ("mhr", "adapt", ArtifactError, "no finished pretrain output; run `mhrctl pretrain mhr-h4-s9`"),
        (
            "mhr",
            "pretrain",
            ArtifactError,
            "no finished pretrain output; run `mhrctl pretrain mhr-h4-s9`",
        ),
    ],
)
def test_cells_without_adapters_say_what_to_run(
    walked: Path, execution: Execution, method: str, stage: Any, kind: type[MhrctlError], message: str
) -> None:
    cell = cell_of(method, seed=9)
    with pytest.raises(kind, match=re.escape(message)):
        of_cell(cell, settings(walked), stage=stage, project=Project(walked), execution=execution)


def test_private_adapters_and_soups_are_for_their_tasks_alone(walked_all: Path, execution: Execution) -> None:
    where = Project(walked_all)
    cell = cell_of("adapter_soup")
    soups = of_cell(cell, settings(walked_all), stage="adapt", project=where, execution=execution)
    with pytest.raises(DataError, match=r"^in.jsonl:1: adapter_soup-s0 has no adapter for task copy; it has swap, twice$"):
        answers(soups, walked_all, [{"task": "copy", "input": "a"}])
    private = of_cell(cell, settings(walked_all), stage="pretrain", project=where, execution=execution)
    assert len(answers(private, walked_all, [{"task": task, "input": "a"} for task in ("copy", "last")])) == 2
    with pytest.raises(DataError, match="has no adapter for task swap; it has copy, first, last"):
        answers(private, walked_all, [{"task": "swap", "input": "a"}])
