"""The templates against the repository's own projects, which are made of the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.config.resolve import load_params
from mhrctl.config.sections import BackboneParams
from mhrctl.projects.templates import dvc_yaml, rendered, template_files

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted((ROOT / "pipelines").iterdir())]
OUTPUT = "      - data/backbone\n"
IN_GIT = "      - data/backbone:\n          cache: false # a few MB, kept in git: a clone need not train it\n"
T5_XL = BackboneParams(source="hub", name="google/t5-xl-lm-adapt", revision="main")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_dvc_yaml_follows_from_params(project: Path) -> None:
    expected = dvc_yaml(load_params(project / "params.yaml").params)
    if project == ROOT:  # which keeps its backbone in git
        head, output, tail = expected.partition("    outs:\n" + OUTPUT)
        expected = head + output.replace(OUTPUT, IN_GIT) + tail
    assert (project / "dvc.yaml").read_text() == expected


@pytest.mark.parametrize(
    ("suite", "backbone", "project"),
    [("compositional", None, "."), ("superni", T5_XL, "pipelines/superni"), ("t0", T5_XL, "pipelines/t0")],
)
def test_params_are_those_of_the_studies(suite: str, backbone: BackboneParams | None, project: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(rendered(f"{suite}.yaml", tasks=None, backbone=backbone))
    assert load_params(path).params == load_params(ROOT / project / "params.yaml").params


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_plots_and_ignored_files_are_those_of_the_projects(project: Path) -> None:
    assert (project / ".dvc/plots/curves.json").read_text() == (template_files() / "curves.json").read_text()
    ignored = set(rendered("gitignore", fetched=[]).split())
    assert ignored <= set((project / ".gitignore").read_text().split())


@pytest.mark.parametrize("name", ["tasks", "my tasks", "123", "yes", "a: b", "#1", "'quoted'", "- x", "x" * 300, "größe"])
def test_paths_are_read_back_as_they_are(name: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(rendered("jsonl.yaml", tasks=name, backbone=BackboneParams(source="local", name=name)))
    read = load_params(params).params
    assert (read.prepare.path, read.prepare.tokenizer, read.backbone.name) == (name, name, name)
    stages = YAML(typ="safe").load(dvc_yaml(read))["stages"]
    assert stages["prepare"]["deps"] == [name, name]
    assert stages["backbone"]["deps"][0] == name


def test_what_comes_from_the_hub_is_no_dependency(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    text = rendered("superni.yaml", tasks="clone", backbone=T5_XL)
    params.write_text(text.replace("path: clone", "hub: jayelm/natural-instructions"))
    assert "deps" not in YAML(typ="safe").load(dvc_yaml(load_params(params).params))["stages"]["prepare"]
