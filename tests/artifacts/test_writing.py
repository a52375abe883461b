"""Files and folders: whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.placing import PARTIAL
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run, read_json, replacing, write_csv, write_json, write_text, writing
from mhrctl.errors import ArtifactError


def card(number: int) -> Card[PrepareFacts]:
    return Card.of("prepare", {}, {}, PrepareFacts(suite="made", tokenizer="none", vocab_size=number))


def test_a_folder_is_visible_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "prepare"
    with pytest.raises(RuntimeError, match="killed"), writing(out) as folder:
        (folder / "half").write_text("")
        raise RuntimeError("killed")
    assert not out.exists()
    with writing(out) as folder:
        (folder / "whole").write_text("1")
        write_card(folder, card(1))
    with pytest.raises(RuntimeError, match="killed"), writing(out) as folder:
        raise RuntimeError("killed")
    assert (out / "whole").read_text() == "1"
    with writing(out) as folder:
        write_card(folder, card(2))
    assert not (out / "whole").exists()
    assert read_card(out, stage="prepare", command="mhrctl prepare").facts.vocab_size == 2
    assert [path.name for path in tmp_path.iterdir()] == ["prepare"]


def test_no_folder_is_written_without_a_card(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="without a card"), writing(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_what_a_run_took_is_reported_beside_the_output(tmp_path: Path) -> None:
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


def test_a_file_that_is_not_whole_replaces_none_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "new" / "x.bin"
    with replacing(file) as aside:
        aside.write_bytes(b"1")
        assert PARTIAL.fullmatch(aside.name)
        assert not file.exists()
    with pytest.raises(RuntimeError, match="killed"), replacing(file) as aside:
        aside.write_bytes(b"2")
        raise RuntimeError("killed")
    assert [path.name for path in file.parent.iterdir()] == ["x.bin"]
    assert file.read_bytes() == b"1"
    write_text(file, "größe\n")
    assert file.read_text(encoding="utf-8") == "größe\n"


def test_json_has_a_key_a_line_and_csv_unix_line_ends(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "x.json", {"b": [1], "a": {}})
    assert (tmp_path / "new/x.json").read_text() == '{\n "b": [\n  1\n ],\n "a": {}\n}\n'
    assert read_json(tmp_path / "new/x.json") == {"b": [1], "a": {}}
    write_csv(tmp_path / "new" / "x.csv", ("task", "loss"), [("a, b", 0.5), ("c", None)])
    assert (tmp_path / "new/x.csv").read_bytes() == b'task,loss\n"a, b",0.5\nc,\n'


def test_nothing_is_written_of_inputs_that_were_edited(tmp_path: Path) -> None:
    edited = tmp_path / "input"
    edited.write_text("1")
    with pytest.raises(ArtifactError, match="input was edited"), unedited(lambda: None, edited):
        edited.write_text("2")
        write_json(tmp_path / "x.json", {})
    assert not (tmp_path / "x.json").exists()
