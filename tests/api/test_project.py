"""A project is read, and its cells are loaded."""

from __future__ import annotations

import csv
import gc
import json
import weakref
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mhrctl
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from tests.conftest import CELLS


def test_params_are_those_of_the_file_at_each_access(copy: Path) -> None:
    project = mhrctl.Project(copy)
    assert repr(project) == f"<mhrctl.Project {copy}>"
    assert (project.params.adapt.shots, project.params.grid.seeds) == (3, [0])
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("shots: 3", "shots: 2"))
    assert project.params.adapt.shots == 2
    assert project.cell_params("mhr").adapt.shots == 2
    assert project.cell_params("mhr-h4", seed=5).cell.name == "mhr-h4-s5"
    params.write_text(params.read_text().replace("shots: 2", "shotz: 2"))
    with pytest.raises(mhrctl.ParamsError, match=r"params.yaml:\d+: adapt.shotz: unknown key"):
        _ = project.params
    with pytest.raises(mhrctl.ParamsError, match=r"adapt\.shotz"):
        mhrctl.Project(copy)


def test_a_folder_without_a_project_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(mhrctl.ParamsError, match=r"no such file; `mhrctl init` makes a project in "):
        mhrctl.Project(tmp_path)


def test_cells_have_the_states_of_their_outputs(copy: Path) -> None:
    project = mhrctl.Project(copy, quiet=True)
    cells = project.cells
    assert list(cells) == ["lora-s0", "poly-s0", "mhr-h4-s0", "mhr_z-h4-s0", "mhr_mu-h4-s0"]
    assert {state for cell in cells.values() for state in cell.stages.values()} == {"up to date"}
    assert list(cells["mhr-h4-s0"].stages) == ["pretrain", "adapt", "evaluate"]
    assert list(cells["mhr_mu-h4-s0"].stages) == ["pretrain", "average", "adapt", "evaluate"]
    shown = cells["mhr-h4-s0"]
    assert (shown.method, shown.heads, shown.variant, shown.seed, shown.extra_steps) == ("mhr", 4, "plain", 0, 0)
    project.adapt("lora", settings={"adapt.steps": 2})
    assert project.cells["lora-s0"].stages == {"pretrain": "up to date", "adapt": "out of date", "evaluate": "out of date"}


def test_results_are_those_of_the_report(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project = mhrctl.Project(copy)
    (copy / "data/report/scores.csv").unlink()
    results = project.results()
    assert [result.cell for result in results][:1] == ["backbone"]
    assert {result.cell for result in results} == {"backbone", *(cell.name for cell in project.cells.values())}
    assert project.report() == results
    assert "Results: jsonl" in capfd.readouterr().out
    with (copy / "data/report/scores.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [{name: "" if value is None else str(value) for name, value in result.flat().items()} for result in results] == [
        dict(sorted(row.items(), key=lambda item: list(results[0].flat()).index(item[0]))) for row in table
    ]
    lora = next(result for result in results if (result.cell, result.phase) == ("lora-s0", "adapted"))
    recorded = json.loads((copy / "data/metrics/evaluate/lora-s0.json").read_text())
    assert lora.tasks == {task: scores["adapted"] for task, scores in recorded["by_task"].items()}
    assert lora.adaptation == recorded["parameters"]["adaptation"]


def test_a_project_without_scores_has_no_results_and_no_report(project: Path) -> None:
    here = mhrctl.Project(project)
    assert here.results() == []
    with pytest.raises(mhrctl.ArtifactError, match="nothing to report yet"):
        here.report()
    assert {state for cell in here.cells.values() for state in cell.stages.values()} == {"missing"}


@pytest.mark.parametrize(("stage", "tasks"), [("pretrain", ["copy", "first", "last"]), ("adapt", ["swap", "twice"])])
def test_routing_has_the_weights_of_the_inventory(walked: Path, stage: str, tasks: list[str]) -> None:
    routing = mhrctl.Project(walked).routing("mhr", stage=stage)  # type: ignore[arg-type]
    assert routing.tasks == tasks
    inventory = load_adapter(walked / f"data/{stage}/mhr-h4-s0/adapters.safetensors")
    assert isinstance(inventory, Inventory)
    assert list(routing.weights) == list(dict.fromkeys(inventory.part_of[layer] for layer in inventory.shapes))
    for weights in routing.weights.values():
        assert weights.shape == (len(tasks), 4, 2)
        assert weights.sum(-1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("cell", "stage", "message"),
    [
        ("lora", "pretrain", r"^--method lora: has no routing; inspect --stage pretrain is of poly, "),
        ("mhr_mu", "adapt", r"^--method mhr_mu: adapts the average of the skills"),
        ("mhr-h4-s3", "pretrain", r"no finished pretrain output; run `mhrctl pretrain mhr-h4-s3`$"),
    ],
)
def test_what_has_no_routing_says_so(walked: Path, cell: str, stage: str, message: str) -> None:
    with pytest.raises(mhrctl.MhrctlError, match=message):
        mhrctl.Project(walked).routing(cell, stage=stage)  # type: ignore[arg-type]


def test_a_cell_answers_by_the_adapters_of_a_stage(walked: Path) -> None:
    project = mhrctl.Project(walked)
    pretrained = project.cell("mhr_mu", stage="pretrain")
    assert (pretrained.name, pretrained.tasks) == ("mhr-h4-s0", ["copy", "first", "last"])
    averaged = project.cell("mhr_mu", stage="average")
    assert (averaged.name, averaged.stage, averaged.tasks) == ("mhr-h4-s0", "average", [])
    bare = project.cell("backbone")
    assert (bare.name, bare.method, bare.card) == ("backbone", "backbone", {})
    rows = [{"task": "swap", "input": "ant bee"}, {"task": "copy", "input": "fox"}]
    recorded = pq.read_table(walked / "data/evaluate/backbone/predictions.parquet").to_pylist()
    assert set(bare.generate([*rows])) <= {row["prediction"] for row in recorded}


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("mhrr", {}, r"^unknown cell 'mhrr'"),
        ("lora", {"stage": "average"}, r"^--stage average: lora has no skills to average"),
        ("lora", {"stage": "prepare"}, r"^--stage prepare: choose adapt, average or pretrain"),
        ("lora-x3-s0", {}, r"^--extra-steps: such a cell is not adapted; name --stage pretrain$"),
        ("mhr-h4-s3", {}, r"no finished pretrain output; run `mhrctl pretrain mhr-h4-s3`$"),
        ("lora", {"off": ["nothing"]}, r"^--off nothing: |unknown"),
        ("lora", {"together": 0}, r"^--together 0: must be a whole number, 1 or more"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_the_line_of_the_command(
    walked: Path, cell: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(mhrctl.MhrctlError, match=message) as error:
        mhrctl.Project(walked).cell(cell, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_cells_share_a_backbone_until_the_last_is_closed(walked: Path) -> None:
    project = mhrctl.Project(walked)
    cells = [project.cell(cell) for cell in CELLS]
    backbones = {id(cell._predictor._backbone): weakref.ref(cell._predictor._backbone) for cell in cells}
    (backbone,) = backbones.values()
    other = mhrctl.Project(walked).cell("lora")
    assert other._predictor._backbone is not backbone()
    for cell in cells[1:]:
        cell.close()
    gc.collect()
    assert backbone() is cells[0]._predictor._backbone
    cells[0].close()
    gc.collect()
    assert backbone() is None


def test_a_cell_that_changes_the_weights_has_a_backbone_of_its_own(walked_all: Path) -> None:
    project = mhrctl.Project(walked_all)
    names = ["lora", *(name for name in project.cells if project.cell_params(name).cell.row.adds_lora)]
    assert len(names) > 1
    cells = [project.cell(name) for name in names]
    assert len({id(cell._predictor._backbone) for cell in cells}) == len(names)


def test_a_project_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = mhrctl.init(tmp_path / "study", no_scm=True)
    assert (project.folder, project.quiet) == (tmp_path / "study", False)
    assert list(project.cells)[:3] == ["lora-s0", "poly-s0", "mhr-h8-s0"]
    assert project.sync() == []
    with pytest.raises(mhrctl.DataError, match=r"already has a project"):
        mhrctl.init(tmp_path / "study")
    with pytest.raises(mhrctl.DataError, match=r"^--path .*nothing: no such file or folder$"):
        mhrctl.init(tmp_path / "other", tasks=tmp_path / "nothing")
    monkeypatch.chdir(project.folder)
    assert list(mhrctl.Project().cells) == list(project.cells)
