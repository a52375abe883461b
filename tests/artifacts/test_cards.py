"""Output folders: whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.writing import logging_run, write_json, writing
from mhrctl.errors import ArtifactError


def card(**facts: object) -> Card:
    return Card.of("prepare", {}, {}, **facts)


def test_a_folder_is_visible_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "prepare"
    with pytest.raises(RuntimeError, match="killed"), writing(out) as folder:
        (folder / "half").write_text("")
        raise RuntimeError("killed")
    assert not out.exists()
    with writing(out) as folder:
        (folder / "whole").write_text("1")
        write_card(folder, card(number=1))
    with pytest.raises(RuntimeError, match="killed"), writing(out) as folder:
        raise RuntimeError("killed")
    assert (out / "whole").read_text() == "1"
    with writing(out) as folder:
        write_card(folder, card(number=2))
    assert not (out / "whole").exists()
    assert read_card(out, stage="prepare", command="mhrctl prepare").facts == {"number": 2}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".prepare.partial") == ["prepare"]


def test_readers_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no finished prepare output; run `mhrctl prepare` or `dvc repro`"):
        read_card(tmp_path, stage="prepare", command="mhrctl prepare")
    write_card(tmp_path, card())
    with pytest.raises(ArtifactError, match=r"written by stage prepare, expected pretrain; run `mhrctl pretrain"):
        read_card(tmp_path, stage="pretrain", command="mhrctl pretrain --method lora")
    (tmp_path / CARD).write_text("{")
    with pytest.raises(ArtifactError, match=r"card.json: not a card"):
        read_card(tmp_path, stage="prepare", command="mhrctl prepare")


def test_cards_of_equal_runs_are_equal_and_hash_their_parents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = Card.of("average", {"x": 1}, {"a": tmp_path / "a"})
    assert first == Card.of("average", {"x": 1}, {"a": tmp_path / "a"})
    (tmp_path / "a").write_text("2")
    assert first != Card.of("average", {"x": 1}, {"a": tmp_path / "a"})


def test_digest_of_a_folder_sees_names_and_contents_but_not_dvcs_gitignore(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest(tmp_path)
    (tmp_path / ".gitignore").write_text("/a")
    assert digest(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(tmp_path) != before


def test_what_a_run_took_is_told_beside_the_output(tmp_path: Path) -> None:
    with logging_run(tmp_path / "log" / "x.json", device="cpu") as record:
        record["more"] = 1
    content = json.loads((tmp_path / "log" / "x.json").read_text())
    assert content["device"] == "cpu"
    assert content["more"] == 1
    assert content["seconds"] >= 0


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
