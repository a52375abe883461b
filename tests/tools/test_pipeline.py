"""How dvc.yaml falls short of params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params
from mhrctl.errors import MhrctlError
from mhrctl.projects.templates import dvc_yaml
from mhrctl.tools.pipeline import pipeline_gaps, pipeline_refusals


def loaded(project: Path, *sets: str) -> Params:
    return load_params(project / "params.yaml", sets).params


def test_gaps_of_dvc_yaml(project: Path) -> None:
    params, path = loaded(project), project / "dvc.yaml"
    assert pipeline_gaps(params, Project(project)) == []  # there is none
    path.write_text(dvc_yaml(params))
    assert pipeline_gaps(params, Project(project)) == []
    path.write_text(dvc_yaml(params).replace("  index:\n", "  indices:\n").replace("      - tasks\n", "      - others\n"))
    assert pipeline_gaps(params, Project(project)) == [
        f"{path}: has no stage index",
        f"{path}: stage prepare does not name deps tasks",
    ]
    path.write_text(dvc_yaml(loaded(project, "adapt.under=lora")))
    assert pipeline_gaps(loaded(project, "adapt.under=lora"), Project(project)) == []
    assert pipeline_gaps(params, Project(project)) == [
        f"{path}: has the stage {name}, which no setting of params.yaml asks for now: DVC refuses it; take it out"
        for name in ("adapt-over", "evaluate-over")
    ]
    path.write_text(dvc_yaml(params))
    assert f"{path}: has no stage adapt-over" in pipeline_gaps(loaded(project, "adapt.under=lora"), Project(project))
    for text, said in (
        ("stages: [", r"dvc.yaml:1: not valid YAML"),
        ("a: 1\n", r"dvc.yaml: has no stages"),
        ("", r"dvc.yaml: has no stages"),
        ("stages: {a: &b [*b]}", r"dvc.yaml:1: not valid YAML: it holds itself"),
    ):
        path.write_text(text)
        with pytest.raises(MhrctlError, match=said):
            pipeline_gaps(params, Project(project))
    path.write_text("stages: {prepare: 1, grid: {deps: , params: {a: 1}}, report: {do: [1]}}\n")
    assert f"{path}: has no stage backbone" in pipeline_gaps(params, Project(project))


def test_what_dvc_will_refuse_is_known_before(project: Path) -> None:
    path, where = project / "dvc.yaml", Project(project)
    (project / ".dvc").mkdir()
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("recipe: null\n", ""))
    document = load_params(project / "params.yaml").document
    assert pipeline_refusals(document, where) == []  # without dvc.yaml DVC has nothing to refuse
    path.write_text(dvc_yaml(loaded(project)))
    assert pipeline_refusals(document, where) == []
    path.write_text(
        "stages: {grid: {params: [recipe, grid.seeds]}, index: {foreach: [1], do: {params: [{params.yaml: [index.x]}]}}}"
    )
    assert pipeline_refusals(document, where) == [
        f"{where.params}: has no `recipe`, which stage grid of dvc.yaml depends on, so DVC refuses it; add `recipe: null`",
        f"{where.params}: has no `index.x`, which stage index of dvc.yaml depends on, so DVC refuses it; add `index.x: {{}}`",
    ]
    path.write_text("stages: {}")
    (project / ".dvc/config").write_text("[core\n")
    assert "config: DVC cannot read it" in pipeline_refusals(document, where)[0]
    (project / ".dvc/config").write_bytes(b"\xff\xfe")
    assert "config:1: not UTF-8 text" in pipeline_refusals(document, where)[0]
