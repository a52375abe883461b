"""`mhrctl doctor` on projects that are well, and on those that are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.tools import doctor as tools_doctor
from mhrctl.tools.doctor import doctor, environment, is_broken, project
from mhrctl.tools.installation import Finding, State
from tests.conftest import Run


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in findings}


def test_where_there_is_no_project_none_is_looked_at(tmp_path: Path) -> None:
    headings = ["versions", "only for some commands", "devices", "storage", "what stages rely on", "environment"]
    assert list(doctor(tmp_path, ())) == headings


def test_what_is_absent_is_not_broken() -> None:
    assert not is_broken({"a": [Finding("x", "", State.ABSENT), Finding("y", "", State.WARNING)]})
    assert is_broken({"a": [Finding("x", "")], "b": [Finding("y", "", State.BROKEN)]})


def test_a_project_that_is_well(copy: Path) -> None:
    findings = by_name(project(Project(copy)))
    assert findings["params.yaml"].says == "can be read: 5 cells"
    assert (findings["grid"].says, findings["left over"].says) == ("up to date", "nothing")
    assert findings["pipeline"].state is State.WARNING
    assert findings["pipeline"].facts == {"missing": [".dvc", "dvc.yaml"]}


def test_params_that_cannot_be_read_are_broken(project_folder: Path) -> None:
    (project_folder / "params.yaml").write_text("prepare: [")
    (only,) = project(Project(project_folder))
    assert only.state is State.BROKEN
    assert "params.yaml" in only.says


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    """A folder for a project."""
    return tmp_path


def test_what_has_left_the_grid_and_a_grid_that_is_not_synced(copy: Path, run: Run) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("    poly:\n", ""))
    findings = by_name(project(Project(copy)))
    assert findings["grid"].says.endswith("run `mhrctl grid sync`")
    assert findings["left over"].facts["cells"] == ["poly-s0"]
    assert findings["left over"].remedy == "`mhrctl grid prune` lists them"
    assert run("grid", "sync", "-C", copy) == 0
    assert by_name(project(Project(copy)))["grid"].state is State.OK


def test_a_grid_of_another_mhrctl_names_the_stages(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhrctl.tools import grid

    later = {**STAGE_VERSIONS, "adapt": 99}
    monkeypatch.setattr(tools_doctor, "STAGE_VERSIONS", later)
    monkeypatch.setattr(grid, "STAGE_VERSIONS", later)
    finding = by_name(project(Project(copy)))["grid"]
    assert finding.says == "of another mhrctl: adapt would run again"
    assert finding.facts["stages_of_another_version"] == ["adapt"]


def test_variables_that_have_no_effect_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MHRCTL_", "HF_")) or name.endswith("_PROXY"):
            monkeypatch.delenv(name)
    assert [each.name for each in environment({"MHRCTL_THREADS"})] == ["network"]
    monkeypatch.setenv("MHRCTL_TREADS", "4")
    monkeypatch.setenv("MHRCTL_THREADS", "4")
    monkeypatch.setenv("MHRCTL_XYZ", "4")
    findings = by_name(environment({"MHRCTL_THREADS"}))
    assert findings["MHRCTL_TREADS"].remedy == "did you mean MHRCTL_THREADS?"
    assert findings["MHRCTL_XYZ"].state is State.WARNING
    assert "MHRCTL_THREADS" not in findings


def test_the_network_is_described_and_no_secret_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:password@proxy:3128")
    network = by_name(environment(()))["network"]
    assert network.says.startswith("nothing is fetched; HF_HUB_OFFLINE=1")
    assert "HTTPS_PROXY=http://proxy:3128" in network.says
    assert network.says.endswith("HF_TOKEN is set")
    assert not any(word in f"{network.says}{network.facts}" for word in ("hf_secret", "password"))
