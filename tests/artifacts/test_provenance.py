"""What decides a stage's output: every file that it reads, and what it takes from elsewhere only if that cannot change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import IndexFacts
from mhrctl.artifacts.provenance import Provenance
from mhrctl.config.cells import Cell
from mhrctl.config.sections import AdaptParams, BackboneParams, PretrainParams
from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import DataSetParams, PrepareParams
from mhrctl.errors import ArtifactError
from tests.conftest import mhrctl

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEST = ["prepare/test_tasks.parquet", "prepare/tasks.json", "prepare/tokenizer/tokenizer.json", "backbone/card.json"]
TRAINING = ["prepare/training_tasks.parquet", "backbone/card.json"]

READS = {
    "backbone": ["prepare/training_tasks.parquet", "prepare/backbone_tasks.parquet", "prepare/tokenizer/tokenizer.json"],
    "pretrain -m mhr": TRAINING,
    "pretrain -m lora --extra-steps 3": [*TRAINING, "pretrain/lora-s0/adapters.safetensors"],
    "pretrain -m adapter_soup": [*TRAINING, "prepare/tasks.json"],
    "average -m mhr": ["pretrain/mhr-h4-s0/adapters.safetensors", "pretrain/mhr-h4-s0/card.json"],
    "index": ["prepare/training_tasks.parquet", "prepare/tasks.json"],
    "adapt -m lora": [*TEST, "pretrain/lora-s0/adapters.safetensors"],
    "adapt -m mhr_mu": [*TEST, "average/mhr-h4-s0/adapters.safetensors"],
    "adapt -m adapter_soup": [
        *TEST,
        "pretrain/adapter_soup-s0/adapters.safetensors",
        "index/index.safetensors",
        "index/card.json",
    ],
    "adapt -m full_ft_then_lora": [*TEST, "pretrain/full_ft-s0/adapters.safetensors", "pretrain/full_ft-s0/card.json"],
    "evaluate -m mhr": [
        *TEST,
        *("pretrain/mhr-h4-s0/adapters.safetensors", "pretrain/mhr-h4-s0/card.json"),
        *("adapt/mhr-h4-s0/adapters.safetensors", "adapt/mhr-h4-s0/card.json"),
    ],
    "evaluate -m lora --extra-steps 3": [*TEST, "pretrain/lora-x3-s0/adapters.safetensors", "pretrain/lora-x3-s0/card.json"],
    "evaluate -m backbone": TEST,
}
"""{command: the files below data/ whose change may change its result}."""


@pytest.fixture(scope="module")
def shared(walked_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything stands; each test leaves it as it was."""
    return Path(shutil.copytree(walked_all, tmp_path_factory.mktemp("shared") / "project"))


@pytest.fixture
def is_up_to_date(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Asks a command whether its output stands; nothing is computed."""
    real = Provenance.is_up_to_date
    answers: list[bool] = []

    def answer(made: Provenance, *paths: Path, **options: Any) -> bool:
        answers.append(real(made, *paths, **options))
        return True

    def ask(command: str) -> bool:
        answers.clear()
        return mhrctl(*command.split(), "-C", shared) == 0 and answers == [True]

    monkeypatch.setattr(Provenance, "is_up_to_date", answer)
    return ask


@pytest.mark.parametrize(("command", "file"), [(command, file) for command, files in READS.items() for file in files])
def test_no_output_is_up_to_date_when_what_it_was_made_from_has_changed(
    shared: Path, is_up_to_date: Callable[[str], bool], command: str, file: str
) -> None:
    path = shared / "data" / file
    before = path.read_bytes()
    assert is_up_to_date(command)
    try:
        path.write_bytes(before + b"\n")
        assert not is_up_to_date(command)
        path.unlink()
        assert not is_up_to_date(command)
    finally:
        path.write_bytes(before)


def test_so_many_processes_learn_something_of_their_own(
    is_up_to_date: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_up_to_date("pretrain -m lora")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    assert not is_up_to_date("pretrain -m lora")


@pytest.mark.parametrize("file", ["test_tasks.parquet", "tasks.json"])
def test_tasks_that_are_only_tested_decide_no_pretraining(
    shared: Path, is_up_to_date: Callable[[str], bool], file: str
) -> None:
    path = shared / "data/prepare" / file
    before = path.read_bytes()
    path.write_bytes(before + b"\n")
    assert is_up_to_date("pretrain -m mhr")
    path.write_bytes(before)


def test_the_users_own_tasks_decide_what_is_prepared(shared: Path, is_up_to_date: Callable[[str], bool]) -> None:
    assert is_up_to_date("prepare")
    path = shared / "tasks/training/new.jsonl"
    path.write_text('{"input": "a", "target": "b"}\n')
    assert not is_up_to_date("prepare")
    path.unlink()
    assert is_up_to_date("prepare")


def prepared(**params: Any) -> Callable[[Path], Provenance]:
    return lambda root: provenance.of_prepare(PrepareParams(**({"tokenizer": "word"} | params)), root=root)


def backbone(**params: Any) -> Callable[[Path], Provenance]:
    return lambda root: provenance.of_backbone(BackboneParams(**params), prepared=root, root=root)


def indexed(encoder: str, revision: str = "main") -> Callable[[Path], Provenance]:
    return lambda root: provenance.of_index(encoder, revision, 9, prepared=root, root=root)


def soup(encoder: str, revision: str = "main") -> Callable[[Path], Provenance]:
    def of(root: Path) -> Provenance:
        index = root / "index"
        index.mkdir()
        facts = IndexFacts(suite="made", tasks=[], encoder=encoder)
        write_card(index, Card.of("index", {"encoder": encoder, "revision": revision, "examples": 9}, {}, facts))
        folders = {"prepared": root, "backbone": root, "start": root, "index": index, "root": root}
        params = AdaptParams(steps=1, batch_size=1, shots=1, evaluate_every=1)
        return provenance.of_adapt(Cell(method="adapter_soup"), params, **folders)

    return of


SUPERNI = "Muennighoff/natural-instructions"
T0 = {"training_few_shot": ["rte"], "few_shot": "sets"}


@pytest.mark.parametrize(
    ("of", "complete"),
    [
        (prepared(source="compositional"), True),
        (prepared(source="compositional", tokenizer="bpe"), True),
        (prepared(source="jsonl", path="tasks", tokenizer="google/t5", tokenizer_revision=COMMIT), True),
        (prepared(source="jsonl", path="tasks", tokenizer="google/t5"), False),
        (prepared(source="jsonl", path="tasks", tokenizer="folder", tokenizer_revision=COMMIT), False),
        (prepared(source="superni", hub=SUPERNI, revision=COMMIT), True),
        (prepared(source="superni", hub=SUPERNI), False),
        (prepared(source="superni", path="clone"), False),
        (prepared(source="t0", hub="bigscience/P3", revision=COMMIT), False),
        (prepared(source="t0", t0=T0), False),
        (backbone(source="scratch"), True),
        (backbone(source="hub", name="google/t5", revision=COMMIT), True),
        (backbone(source="hub", name="google/t5", revision="main"), False),
        (backbone(source="hub", name="google/t5", revision=COMMIT[:7]), False),
        (backbone(source="local", name="folder"), False),
        (indexed("tfidf"), True),
        (indexed("sentence-transformers/x", COMMIT), True),
        (indexed("sentence-transformers/x"), False),
        (indexed("folder", COMMIT), False),
        (soup("tfidf"), True),
        (soup("sentence-transformers/x"), False),
        (soup("folder", COMMIT), False),
    ],
)
def test_what_may_change_unseen_is_read_again(tmp_path: Path, of: Callable[[Path], Provenance], complete: bool) -> None:
    (tmp_path / "folder").mkdir()
    assert of(tmp_path).is_complete == complete


def test_every_hashed_file_of_a_source_is_a_parent(tmp_path: Path) -> None:
    for name in ("data.jsonl", "few.jsonl"):
        (tmp_path / name).write_text("{}\n")
    params = PrepareParams(source="hub", path="data.jsonl", tokenizer="word", test=DataSetParams(path="few.jsonl"))
    made = provenance.of_prepare(params, root=tmp_path)
    assert made.parents == {"tasks": tmp_path / "data.jsonl", "test_tasks": tmp_path / "few.jsonl"}
    assert made.is_complete
    for source in SOURCES.values():
        if source.hashed:
            assert set(source.files(params)) <= {"tasks", "test_tasks"}  # the places that of_prepare knows


def test_the_number_of_threads_counts_where_a_result_is_rounded(tmp_path: Path) -> None:
    cell, scratch = Cell(method="lora"), BackboneParams.model_validate({"source": "scratch"})
    local = BackboneParams.model_validate({"source": "local", "name": "weights"})
    steps = PretrainParams(steps=1, batch_size=1)
    places = {"prepared": tmp_path, "root": tmp_path}
    rounds = {
        "scratch": provenance.of_backbone(scratch, **places).rounds,
        "local": provenance.of_backbone(local, **places).rounds,
        "tfidf": provenance.of_index("tfidf", "main", 9, **places).rounds,
        "encoder": provenance.of_index("an/encoder", COMMIT, 9, **places).rounds,
        "pretrain": provenance.of_pretrain(cell, steps, prepared=tmp_path, backbone=tmp_path, start=None).rounds,
    }
    assert rounds == {"scratch": True, "local": False, "tfidf": False, "encoder": True, "pretrain": True}
    facts = IndexFacts(suite="s", tasks=["t"], encoder="tfidf")
    for is_rounded, held in ((True, 3), (False, None)):
        made = Provenance("index", {}, {}, rounds=is_rounded)
        card = made.card(facts, threads=3)
        assert card.threads == held
        out = tmp_path / f"index-{is_rounded}"
        out.mkdir()
        write_card(out, card)
        assert [made.is_up_to_date(out, threads=threads) for threads in (3, 1, None)] == [True, not is_rounded, True]


def test_all_missing_inputs_are_asked_for_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    cell = Cell(method="mhr_mu", heads=4, seed=7)
    places: Any = {place: data / place for place in ("prepare", "backbone", "index")}
    made = Provenance("adapt", {"cell": cell.model_dump()}, places | {"start": data / "average/mhr-h4-s7"})
    commands = "`mhrctl prepare`, `mhrctl backbone`, `mhrctl pretrain {0}`, `mhrctl average {0}`".format("mhr-h4-s7")
    with pytest.raises(ArtifactError) as raised:  # a cell that the grid has not: no stage of dvc.yaml makes it
        made.require_inputs()
    assert str(raised.value) == f"{data}/average/mhr-h4-s7: no finished average output; run {commands}"
    (data / "cells").mkdir(parents=True)
    (data / "cells/mhr_mu-h4-s7.json").write_text("{}")
    for place in ("prepare", "pretrain/mhr-h4-s7"):
        (data / place).mkdir(parents=True)
        (data / place / "card.json").write_text("{}")
    with pytest.raises(ArtifactError) as raised:
        made.require_inputs()
    how = "`mhrctl run adapt@mhr_mu-h4-s7` does it with all that comes before (backbone, average)"
    assert str(raised.value) == f"{data}/average/mhr-h4-s7: no finished average output; {how}"
    for place in ("backbone", "average/mhr-h4-s7"):
        (data / place).mkdir(parents=True)
        (data / place / "card.json").write_text("{}")
    made.require_inputs()
