"""The templates against the repository's own projects, which are made of the same texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.config.sections import BackboneParams
from mhrctl.config.sources import SOURCES
from mhrctl.projects.templates import dvc_yaml, params_yaml, rendered, template_files

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted((ROOT / "pipelines").iterdir())]
OUTPUT = "      - data/backbone\n"
IN_GIT = "      - data/backbone:\n          cache: false # a few MB, kept in git: a clone need not train it\n"


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_dvc_yaml_follows_from_params(project: Path) -> None:
    expected = dvc_yaml(load_params(project / "params.yaml").params)
    if project == ROOT:  # which keeps its backbone in git
        head, output, tail = expected.partition("    outs:\n" + OUTPUT)
        expected = head + output.replace(OUTPUT, IN_GIT) + tail
    assert (project / "dvc.yaml").read_text() == expected


def of_the_hub(name: str | None) -> BackboneParams | None:
    return BackboneParams(source="hub", name=name, revision="main") if name else None


@pytest.mark.parametrize(
    ("suite", "backbone", "project"),
    [
        ("compositional", None, "."),
        ("superni", "google/t5-xl-lm-adapt", "pipelines/superni"),
        ("t0", "google/t5-xl-lm-adapt", "pipelines/t0"),
        ("t0", "bigscience/T0_3B", "pipelines/t0-3b"),
        ("t0", "bigscience/T0", "pipelines/t0-11b"),
    ],
)
def test_params_are_those_of_the_studies(suite: str, backbone: str | None, project: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    template = SOURCES[suite].study(backbone).template
    path.write_text(params_yaml(template, tasks=None, backbone=of_the_hub(backbone)))
    assert load_params(path).params == load_params(ROOT / project / "params.yaml").params


def test_every_study_of_the_paper_is_a_project_of_the_repository() -> None:
    studies = [study for source in SOURCES.values() for study in source.studies if study.backbone]
    for study in studies:
        params = load_params(ROOT / "pipelines" / study.template / "params.yaml").params
        assert params.backbone.name == study.backbone
        assert params.prepare.tokenizer == (study.tokenizer or study.backbone)
        assert study.table in params.report.tables
    assert [study.template for study in studies] == ["superni", "t0", "t0-3b", "t0-11b"]


CELLS = {
    "t0-3b": """
        lora lora-light lora_big lora_big-light tfew adapter_soup adapter_soup-light poly poly-light poly_z poly_z-light
        mhr-h8 mhr-h8-light mhr_z-h64 mhr_z-h32-light""",
    "t0-11b": """
        lora lora-x1000 lora-x5000 lora-x10000 tfew poly poly_z poly_mu poly_mu-x1000 poly_mu-x5000 poly_mu-x10000
        mhr-h64 mhr_z-h64 mhr_mu-h64 mhr_mu-h64-x1000 mhr_mu-h64-x5000 mhr_mu-h64-x10000""",
}
"""The paper's rows of Figure 2, right, and Table 6; of Table 3 and the lower half of Table 5."""


@pytest.mark.parametrize("study", CELLS)
def test_a_study_has_the_papers_cells_and_no_other(study: str) -> None:
    params = load_params(ROOT / "pipelines" / study / "params.yaml").params
    assert {cell.name.rpartition("-")[0] for cell in grid_cells(params)} == set(CELLS[study].split())


@pytest.mark.parametrize("study", ["t0", "superni"])
def test_no_panel_of_figures_3_and_4_needs_more_cells(study: str) -> None:
    settings = load_params(ROOT / "pipelines" / study / "params.yaml")
    cells = {cell.name.rpartition("-")[0].partition("-t1")[0]: cell for cell in grid_cells(settings.params)}
    pretrained = {cell.pretrain_cell.name: resolve_cell(settings, cell).pretrain for cell in cells.values()}
    for method in ("lora", "poly", "mhr-h8", "mhr-h64"):
        assert pretrained[f"{method}-s42"].align_every > 0
    if study == "t0":
        assert {f"{method}-skills{skills}" for method in ("poly", "poly_z") for skills in (16, 32)} <= cells.keys()
        assert {f"{method}-h{heads}" for method in ("mhr", "mhr_z") for heads in (8, 32, 64)} <= cells.keys()
        coarser = {params.granularity for name, params in pretrained.items() if name.startswith("mhr-h64")}
        assert coarser == {"layer", "sublayer", "block", "coder", "model"}
        assert pretrained["mhr-h64-blocks4-s42"].routing_blocks == 4


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_plots_and_ignored_files_are_those_of_the_projects(project: Path) -> None:
    assert (project / ".dvc/plots/curves.json").read_text() == (template_files() / "curves.json").read_text()
    ignored = set(rendered("gitignore", fetched=[]).split())
    assert ignored <= set((project / ".gitignore").read_text().split())


@pytest.mark.parametrize("name", ["tasks", "my tasks", "123", "yes", "a: b", "#1", "'quoted'", "- x", "x" * 300, "größe"])
def test_paths_are_read_back_as_they_are(name: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(params_yaml("jsonl", tasks=name, backbone=BackboneParams(source="local", name=name)))
    read = load_params(params).params
    assert (read.prepare.path, read.prepare.tokenizer, read.backbone.name) == (name, name, name)
    stages = YAML(typ="safe").load(dvc_yaml(read))["stages"]
    assert stages["prepare"]["deps"] == [name, name]
    assert stages["backbone"]["deps"][0] == name


def test_what_comes_from_the_hub_is_no_dependency(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    text = params_yaml("superni", tasks="clone", backbone=of_the_hub("google/t5-xl-lm-adapt"))
    params.write_text(text.replace("path: clone", "hub: jayelm/natural-instructions"))
    assert "deps" not in YAML(typ="safe").load(dvc_yaml(load_params(params).params))["stages"]["prepare"]


def test_the_page_of_stacks_shows_the_stages_as_they_are_written(project: Path) -> None:
    page = (ROOT / "docs/stacks.md").read_text()
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "pretrain-over" in text]
    stages = YAML(typ="safe").load(dvc_yaml(load_params(project / "params.yaml", ["pretrain.under=lora"]).params))["stages"]
    assert YAML(typ="safe").load(block) == {name: stage for name, stage in stages.items() if name.endswith("-over")}
