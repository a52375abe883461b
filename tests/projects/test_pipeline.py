"""What dvc.yaml depends on, against what commands watch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.artifacts.inputs import INPUTS
from mhrctl.artifacts.provenance import Provenance
from mhrctl.config.resolve import load_params
from mhrctl.projects.pipeline import PIPELINE, stage_dependencies, stage_settings
from mhrctl.projects.templates import dvc_yaml
from tests.conftest import mhrctl

START = {"lora": "pretrain/lora-s0", "mhr_mu": "average/mhr-h4-s0", "adapter_soup": "pretrain/adapter_soup-s0"}
RUNS = [
    ("prepare", "", None),
    ("backbone", "", None),
    ("pretrain", "lora-s0", None),
    ("pretrain", "adapter_soup-s0", None),
    ("pretrain-extra", "lora-x3-s0", START["lora"]),
    ("average", "mhr-h4-s0", None),
    ("index", "", None),
    ("adapt", "mhr_mu-h4-s0", START["mhr_mu"]),
    ("adapt-soup", "adapter_soup-s0", START["adapter_soup"]),
    ("evaluate", "mhr_mu-h4-s0", START["mhr_mu"]),
    ("evaluate-zero-shot", "lora-x3-s0", "pretrain/lora-x3-s0"),
    ("evaluate-backbone", "backbone", None),
]


@pytest.fixture(scope="module")
def synced(walked_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(walked_all, tmp_path_factory.mktemp("synced") / "project"))
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("    lora:\n", "    lora: {extra_steps: [3]}\n"))
    assert mhrctl("grid", "sync", "-C", folder) == 0
    return folder


@pytest.mark.parametrize(("name", "cell", "start"), RUNS, ids=[f"{name}-{cell}" for name, cell, _ in RUNS])
def test_what_a_stage_depends_on_is_watched(
    synced: Path, name: str, cell: str, start: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[Path] = []

    def is_up_to_date(made: Provenance, *_: Path, **_options: object) -> bool:
        watched.extend(made.watched)
        return True

    monkeypatch.setattr(Provenance, "is_up_to_date", is_up_to_date)
    command = PIPELINE[name][0]
    assert mhrctl(command, *(["--cell", cell] if cell else []), "-C", synced) == 0
    entry = YAML(typ="safe").load(dvc_yaml(load_params(synced / "params.yaml").params))["stages"][name]
    depends = entry.get("do", entry)["deps"]
    named = [synced / path.replace("${key}", cell).replace("${item.start}", str(start)) for path in depends]
    assert {*named} <= {*watched}


def test_every_stage_has_its_own_settings_and_version() -> None:
    assert {stage for stage, _ in PIPELINE.values()} == INPUTS.keys()
    settings = stage_settings()
    assert settings["prepare"] == ["prepare", "data/cells/sections.json: [recipe]", "data/cells/versions.json: [prepare]"]
    assert settings["average"] == ["data/cells/versions.json: [average]"]
    assert settings["adapt-soup"] == ["data/cells/${key}.json: [cell, adapt]", "data/cells/versions.json: [adapt]"]
    assert settings["evaluate-backbone"] == ["data/cells/backbone.json: [evaluate]", "data/cells/versions.json: [evaluate]"]


def test_the_users_own_files_come_first() -> None:
    depends = stage_dependencies({"sources": ["my tasks"], "tokenizer": ["folder"], "weights": ["folder"]})
    assert depends["prepare"] == ["my tasks", "folder"]
    assert depends["backbone"][0] == "folder"
    assert stage_dependencies({})["prepare"] == []
