"""The table of inputs against what stages read: each runs to the same result where nothing else is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mhrctl.artifacts import inputs
from mhrctl.artifacts.hashing import digest, files_in
from mhrctl.artifacts.inputs import INPUTS, SETTINGS, Place
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.provenance import Provenance
from mhrctl.artifacts.versions import STAGE_VERSIONS
from tests.conftest import mhrctl

COMMANDS = [
    "prepare",
    "backbone",
    "index",
    "pretrain -m lora",
    "pretrain -m mhr",
    "pretrain -m adapter_soup",
    "pretrain -m full_ft",
    "pretrain -m lora --extra-steps 3",
    "pretrain -m mhr_mu --extra-steps 3",
    "average -m mhr",
    "adapt -m lora",
    "adapt -m mhr_z",
    "adapt -m mhr_mu",
    "adapt -m adapter_soup",
    "adapt -m full_ft_then_lora",
    "evaluate -m mhr",
    "evaluate -m mhr_mu",
    "evaluate -m adapter_soup",
    "evaluate -m full_ft_then_lora",
    "evaluate -m lora --extra-steps 3",
    "evaluate -m backbone",
]


def asked(project: Path, command: str) -> tuple[Provenance, Path]:
    """What a command says that decides its output, and where that is; nothing is computed."""
    answers: list[tuple[Provenance, Path]] = []

    def is_up_to_date(made: Provenance, out: Path, *_: Path, **_options: object) -> bool:
        answers.append((made, out))
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Provenance, "is_up_to_date", is_up_to_date)
        assert mhrctl(*command.split(), "-C", project) == 0
    (answer,) = answers
    return answer


def hashed_files(made: Provenance) -> set[Path]:
    """The files whose hashes stand in a card, with those that a hashed card answers for, and the cards beside them."""
    kept: set[Path] = set()
    for path in made.parents.values():
        kept |= {*files_in(path)}
        kept |= {*files_in(path.parent)} if path.name == CARD else set()
    for folder in made.places.values():
        kept |= {folder / CARD} if isinstance(folder, Path) and (folder / CARD).is_file() else set()
    return kept


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stage_reads_nothing_but_its_inputs(walked_all: Path, tmp_path: Path, command: str) -> None:
    """Readers in C++ and Rust open files unseen by Python, so that what is no input is taken away."""
    made, out = asked(walked_all, command)
    alone = tmp_path / "project"
    for path in hashed_files(made):
        place = alone / path.relative_to(walked_all)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    shutil.copy(walked_all / "params.yaml", alone)
    assert mhrctl(*command.split(), "--force", "-C", alone) == 0
    assert digest(alone / out.relative_to(walked_all)) == digest(out)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_hashed_is_watched(walked_all: Path, command: str) -> None:
    made, _ = asked(walked_all, command)
    for path in made.parents.values():
        assert any(path == watched or watched in path.parents for watched in made.watched)


@pytest.mark.parametrize("stage", INPUTS)
def test_dvc_sees_every_place_that_a_stage_reads(stage: str) -> None:
    rows = INPUTS[stage]
    dependencies = {row.place for row in rows if row.dependency}
    of_sources = {"tasks", "test_tasks"} if "sources" in dependencies else set()
    assert {row.place for row in rows} == dependencies | of_sources


def test_every_stage_has_inputs_settings_and_a_version() -> None:
    assert INPUTS.keys() == SETTINGS.keys() == STAGE_VERSIONS.keys()


ROOT = Path("project/data")
PLACES: dict[Place, Path] = {
    "prepare": ROOT / "prepare",
    "backbone": ROOT / "backbone",
    "index": ROOT / "index",
    "start": ROOT / "pretrain/x",
}


def test_parents_stand_in_a_card_as_they_always_did() -> None:
    """The order is part of a card's bytes: first what is read in any case, then what some cells read."""
    assert [*inputs.parents("backbone", PLACES, {"scratch"})] == ["tokenizer", "examples", "backbone_examples"]
    assert [*inputs.parents("backbone", PLACES, {"hub"})] == ["tokenizer"]
    assert [*inputs.parents("pretrain", {**PLACES, "start": None}, {"private", "index"})] == ["prepare", "backbone", "tasks"]
    always = ["examples", "tasks", "tokenizer", "backbone", "start"]
    assert [*inputs.parents("adapt", PLACES, {"learned", "pretrain"})] == always
    assert [*inputs.parents("adapt", PLACES, {"private", "index"})] == [*always, "index"]
    assert [*inputs.parents("adapt", PLACES, {"none", "new_lora"})] == [*always, "start_card"]
    assert [*inputs.parents("adapt", PLACES, {"none", "named"})] == [*always, "start_card"]


def test_a_place_that_dvc_names_whole_is_watched_whole() -> None:
    assert inputs.watched("adapt", PLACES) == [
        *(ROOT / "backbone", ROOT / "pretrain/x"),
        *(ROOT / "prepare" / name for name in ("test_tasks.parquet", "tasks.json", "tokenizer")),
        *(ROOT / "backbone/card.json", ROOT / "pretrain/x/adapters.safetensors"),
    ]
    assert ROOT / "index" in inputs.watched("adapt", PLACES, {"index"})


def test_a_place_may_be_several_files() -> None:
    several = [Path("a"), Path("b/c")]
    assert inputs.watched("prepare", {"sources": several, "tasks": [], "tokenizer": None}) == several
    assert inputs.dependencies("prepare", {"sources": ["a/", "b/c"]}) == ["a/", "b/c"]


def test_several_of_one_place_have_a_hash_each() -> None:
    assert inputs.parents("pretrain", {"loras": [Path("a"), Path("b")]}) == {"loras": Path("a"), "loras_2": Path("b")}
