"""The versions of the stages: in data/cells, in dvc.yaml, in cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import AdaptFacts, Parameters
from mhrctl.artifacts.names import CARD, Project
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError
from mhrctl.tools.grid import sync

ROOT = Path(__file__).parents[2]
VERSIONS = "data/cells/versions.json"
ADAPTED = AdaptFacts(suite="made", tasks=[], shots={}, validation={}, backbone="none", parameters=Parameters())


@pytest.mark.parametrize(
    "file", [ROOT / "dvc.yaml", *sorted(ROOT.glob("pipelines/*/dvc.yaml"))], ids=lambda file: file.parent.name
)
def test_every_stage_depends_on_its_own_version(file: Path) -> None:
    stages = YAML(typ="safe").load(file)["stages"]
    keys = {}
    for name, entry in stages.items():
        params = entry.get("do", entry).get("params", [])
        keys[name] = [key for each in params if isinstance(each, dict) for key in each.get(VERSIONS, [])]
    assert keys.pop("grid") == []  # it has no results
    assert keys == {name: [name.split("-")[0]] for name in keys}
    assert {key for stage_keys in keys.values() for key in stage_keys} == set(STAGE_VERSIONS)


def test_sync_writes_the_versions_small(project: Path) -> None:
    where = Project(project)
    sync(load_params(where.params), where)
    assert json.loads((project / VERSIONS).read_text()) == STAGE_VERSIONS
    assert (project / VERSIONS).stat().st_size < 200  # DVC parses it once for every stage


def test_cards_say_their_version_and_readers_refuse_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path, Card.of("adapt", {}, {}, ADAPTED))
    made = STAGE_VERSIONS["adapt"]
    assert read_card(tmp_path, stage="adapt", command="mhrctl adapt").version == made
    with monkeypatch.context() as patch:
        patch.setattr("mhrctl.artifacts.cards.STAGE_VERSIONS", STAGE_VERSIONS | {"adapt": 7})
        with pytest.raises(
            ArtifactError, match=rf"made by version {made} of adapt, .* has version 7 .* run `mhrctl adapt --seed 1`, or"
        ):
            read_card(tmp_path, stage="adapt", command="mhrctl adapt --seed 1")
    card = opened(json.loads((tmp_path / CARD).read_text()))
    del card["version"]  # as an earlier mhrctl wrote it
    (tmp_path / CARD).write_text(json.dumps(sealed(card)))
    with pytest.raises(ArtifactError, match=r"made by an mhrctl without stage versions"):
        read_card(tmp_path, stage="adapt", command="mhrctl adapt")
