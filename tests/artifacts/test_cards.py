"""Cards: what outputs say of themselves, and readers that refuse what does not fit."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from mhrctl.artifacts.cards import (
    Card,
    facts_in,
    is_up_to_date,
    read_card,
    require_backbone,
    require_parent,
    require_replaceable,
    require_tasks,
    write_card,
)
from mhrctl.artifacts.facts import EvaluateFacts, IndexFacts, Parameters, PrepareFacts, PretrainFacts
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.errors import ArtifactError

FACTS = PrepareFacts(suite="made", tokenizer="none", vocab_size=1)
AGAIN = "mhrctl prepare"


def card() -> Card[PrepareFacts]:
    return Card.of("prepare", {}, {}, FACTS)


def pretrained(parents: dict[str, Path]) -> Card[PretrainFacts]:
    facts = PretrainFacts(suite="made", tasks=["a", "b"], backbone="1" * 64, parameters=Parameters(multi_task=1))
    return Card.of("pretrain", {}, parents, facts)


def test_readers_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no finished prepare output; run `mhrctl prepare`$"):
        read_card(tmp_path, stage="prepare", command=AGAIN)
    write_card(tmp_path, card())
    with pytest.raises(ArtifactError, match=r"written by stage prepare, expected pretrain; run `mhrctl pretrain"):
        read_card(tmp_path, stage="pretrain", command="mhrctl pretrain --method lora")
    (tmp_path / CARD).write_text("{")
    with pytest.raises(ArtifactError, match=r"card.json: not a card"):
        read_card(tmp_path, stage="prepare", command=AGAIN)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"stage": "prepare"}', "3"])
def test_what_is_no_card_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    why = "has no seal, as an older mhrctl wrote it;" if text.endswith("}") else f"not a card; remove {tmp_path} and"
    with pytest.raises(ArtifactError, match=rf"^\S+card.json: {why} run `mhrctl prepare`$"):
        read_card(tmp_path, stage="prepare", command=AGAIN)
    assert facts_in(tmp_path, PrepareFacts) is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, r"facts.suite: Field required"),
        ({"suite": "made", "tokenizer": "none"}, r"facts.vocab_size: Field required"),
        ({"suite": "made", "tokenizer": "none", "vocab_size": "many"}, r"facts.vocab_size: Input should be a valid integer"),
        (None, r"facts: Input should be"),
    ],
)
def test_a_malformed_fact_is_one_line_and_its_output_is_not_up_to_date(tmp_path: Path, facts: object, message: str) -> None:
    write_card(tmp_path, card())
    assert is_up_to_date(tmp_path, "prepare", {}, {})
    record = opened(json.loads((tmp_path / CARD).read_text()))
    (tmp_path / CARD).write_text(json.dumps(sealed(record | {"facts": facts})))
    with pytest.raises(ArtifactError, match=message) as caught:
        read_card(tmp_path, stage="prepare", command=AGAIN)
    assert str(caught.value).endswith(f"; remove {tmp_path} and run `mhrctl prepare`")
    assert "\n" not in str(caught.value)
    assert not is_up_to_date(tmp_path, "prepare", {}, {})


def test_cards_of_equal_runs_are_equal_and_hash_their_parents(tmp_path: Path) -> None:
    def average() -> Card[EvaluateFacts]:
        return Card.of("average", {"x": 1}, {"a": tmp_path / "a"}, EvaluateFacts(tasks=[]))

    (tmp_path / "a").write_text("1")
    first = average()
    assert first == average()
    (tmp_path / "a").write_text("2")
    assert first != average()


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("1")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "whole").write_text("12")
    write_card(folder, card(), beside={"log.csv": tmp_path / "log.csv"})
    read = read_card(folder, stage="prepare", command=AGAIN)
    assert (read.facts, read.files, [*read.beside]) == (
        FACTS,
        {"whole": {"bytes": 2, "sha256": sha256(b"12").hexdigest()}},
        ["log.csv"],
    )
    assert Card.read(json.loads(json.dumps(read.record)), PrepareFacts) == read
    assert facts_in(folder, PrepareFacts) == FACTS


def test_an_output_is_up_to_date_only_with_the_files_that_its_card_names(tmp_path: Path) -> None:
    (tmp_path / "whole").write_text("12")
    write_card(tmp_path, card())
    assert is_up_to_date(tmp_path, "prepare", {}, {})
    assert not is_up_to_date(tmp_path, "prepare", {"examples": 1}, {})
    assert not is_up_to_date(tmp_path, "backbone", {}, {})
    assert not is_up_to_date(tmp_path, "prepare", {}, {"tasks": tmp_path / "whole"})
    (tmp_path / "whole").write_text("1")
    assert not is_up_to_date(tmp_path, "prepare", {}, {})


def test_only_outputs_of_the_same_stage_are_replaced(tmp_path: Path) -> None:
    require_replaceable(tmp_path / "new", "inspect")
    require_replaceable(tmp_path, "inspect")
    write_card(tmp_path, card())
    require_replaceable(tmp_path, "prepare")
    with pytest.raises(ArtifactError, match=r"holds other things, which an inspect would replace"):
        require_replaceable(tmp_path, "inspect")


def test_what_was_made_for_another_backbone_other_tasks_or_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    made = pretrained({"start": tmp_path / "a"})
    require_backbone(made, tmp_path, "1" * 64, tmp_path)
    with pytest.raises(ArtifactError, match=r"made for another backbone \(111111111111, not 222222222222 in"):
        require_backbone(made, tmp_path, "2" * 64, tmp_path)
    require_tasks(made, tmp_path, ["a", "b"])
    with pytest.raises(ArtifactError, match=r"made for other tasks \(differs in their order\)"):
        require_tasks(made, tmp_path, ["b", "a"])
    with pytest.raises(ArtifactError, match=r"made for other tasks \(differs in c\)"):
        require_tasks(Card.of("index", {}, {}, IndexFacts(suite="", tasks=["c"], encoder="")), tmp_path, [])
    require_parent(made, tmp_path, "start", tmp_path / "a", AGAIN)
    (tmp_path / "a").write_text("2")
    with pytest.raises(ArtifactError, match=r"a has changed since; run `mhrctl prepare`"):
        require_parent(made, tmp_path, "start", tmp_path / "a", AGAIN)
