"""Files and folders: whole or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
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


def output(out: Path, content: str) -> None:
    with writing(out) as folder:
        (folder / "whole").write_text(content)
        write_card(folder, card(1))


def test_a_disk_that_is_full_at_any_moment_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, file = tmp_path / "out", tmp_path / "x.json"
    output(out, "old")
    write_json(file, {"old": 1})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    syncs = 0
    for allowed in range(20):
        left = allowed

        def fsync(_stream: int) -> None:
            nonlocal left, syncs
            left, syncs = left - 1, syncs + 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fsync)
            try:
                output(out, "new")
                write_json(file, {"new": 1})
            except OSError as error:
                assert error.filename  # noqa: PT017 - which line of several it was is in no message
        assert (out / "whole").read_text() in ("old", "new")
        assert json.loads(file.read_text()) in ({"old": 1}, {"new": 1})
        assert {path.name for path in tmp_path.iterdir()} == {"out", "x.json"}
        read_card(out, stage="prepare", command="mhrctl prepare")
        if left >= 0:
            break
        if (out / "whole").read_text() == "old":
            assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert syncs > 5
    assert (out / "whole").read_text() == "new"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if mount is None or os.geteuid() or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_file_system_that_is_really_full_keeps_the_former_output(small_disk: Path) -> None:
    out = small_disk / "out"
    output(out, "old")
    for size in (60_000, 10_000_000):
        with pytest.raises(OSError, match=r"No space left on device: '.*out'"):
            output(out, "x" * size)
        with pytest.raises(OSError, match="No space left on device"):
            write_text(small_disk / "x.txt", "x" * size * 2)
        assert (out / "whole").read_text() == "old"
        assert [path.name for path in small_disk.iterdir()] == ["out"]


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_no_locale_leaves_less_than_the_text(tmp_path: Path, locale: str) -> None:
    code = f"""
from pathlib import Path
from mhrctl.artifacts.writing import write_csv, write_text
folder = Path({str(tmp_path)!r})
write_text(folder / "a.md", "\\u00e9\\u4e2d\\n")
write_csv(folder / "a.csv", ["\\u00e9"], [])
"""
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (tmp_path / "a.md").read_bytes() == "é中\n".encode()
    assert (tmp_path / "a.csv").read_bytes() == "é\n".encode()


def test_nothing_foreign_is_replaced_and_no_link_followed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output(out, "1")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds notes\.txt"):
        output(out, "2")
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(ArtifactError, match="is a link"):
        output(tmp_path / "link", "2")
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    (tmp_path / "x.md").symlink_to(precious)
    write_text(tmp_path / "x.md", "ours")
    assert (precious.read_text(), (tmp_path / "x.md").read_text()) == ("mine", "ours")
    with pytest.raises(ArtifactError, match="is a folder, in the way"):
        write_text(tmp_path / "elsewhere", "2")
