"""Which files of a folder are data: hidden ones are not, links are followed, whatever else lies there is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhrctl.errors import DataError
from mhrctl.suites.files import data_files, first, is_hidden, printable, require_file, visible


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names(root: Path, **options: bool) -> list[str]:
    return [path.relative_to(root).as_posix() for path in data_files(root, [".jsonl"], **options).files]


def test_hidden_names_are_passed_over_and_counted(tmp_path: Path) -> None:
    hidden = [
        "._a.jsonl",
        ".ipynb_checkpoints/a-checkpoint.jsonl",
        "__MACOSX/a.jsonl",
        "a.jsonl~",
        "#a.jsonl#",
        "sub/Thumbs.db",
    ]
    touch(*(tmp_path / name for name in [*hidden, "a.jsonl", "sub/b.jsonl"]))
    assert names(tmp_path) == ["a.jsonl", "sub/b.jsonl"]
    ((what, count),) = data_files(tmp_path, [".jsonl"]).notes.items()
    assert count == 6
    assert what == "hidden or backup files and folders passed over: #a.jsonl#, ._a.jsonl, .ipynb_checkpoints and 3 more"
    assert [is_hidden(name) for name in (".", "a~", "#a#", "#a", "a.jsonl", "__MACOSX")] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert visible([tmp_path / ".a", tmp_path / "b"]) == [tmp_path / "b"]


def test_other_endings_are_named(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.jsonl", "b.json", "c.jsonl.gz", "d.txt", "README.md")))
    assert data_files(tmp_path, [".jsonl"]).notes == {
        "files without the ending .jsonl passed over: README.md, b.json, c.jsonl.gz and 1 more": 4
    }


def test_a_folder_whose_own_way_is_hidden_is_read(tmp_path: Path) -> None:
    touch(tmp_path / ".cache/tasks/a.jsonl")
    assert names(tmp_path / ".cache/tasks") == ["a.jsonl"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere/a.jsonl", tmp_path / "one.jsonl", tmp_path / "tasks/b.jsonl")
    (tmp_path / "tasks/more").symlink_to("../elsewhere")
    (tmp_path / "tasks/c.jsonl").symlink_to("../one.jsonl")
    assert names(tmp_path / "tasks") == ["b.jsonl", "c.jsonl", "more/a.jsonl"]
    (tmp_path / "whole").symlink_to("tasks")
    inside = data_files(tmp_path / "whole", [".jsonl"])
    assert len(inside.files) == 3
    assert inside.notes == {"linked folders followed, in which `dvc repro` sees no edits: more": 1}


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    touch(tmp_path / "a/b.jsonl")
    (tmp_path / "a/back").symlink_to("..")
    (tmp_path / "a/self").symlink_to("self")
    inside = data_files(tmp_path, [".jsonl"])
    assert [path.name for path in inside.files] == ["b.jsonl"]
    assert inside.notes == {
        "links to folders that they lie in passed over: a/back": 1,
        "links to nothing passed over: a/self": 1,
    }


def test_one_file_by_two_ways_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path / "test/a.jsonl")
    (tmp_path / "training").symlink_to("test")
    with pytest.raises(DataError, match=r"training/a.jsonl: is the same file as .*test/a.jsonl; remove one of the links$"):
        data_files(tmp_path, [".jsonl"])


def test_equal_copies_and_hard_links_are_two_files(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl")
    os.link(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert names(tmp_path) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "capitals"])
def test_what_cannot_be_data_but_is_named_so_is_rejected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sub/x.jsonl"
    path.parent.mkdir()
    said = {"pipe": "is a pipe", "folder": "is a folder", "link": "is a link to nothing", "capitals": "has the ending .JSONL"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        touch(tmp_path / "sub/x.JSONL")
    with pytest.raises(DataError, match=rf"sub/x.(?i:jsonl): {said[kind]}"):
        data_files(tmp_path, [".jsonl"])
    if kind == "capitals":
        assert names(tmp_path, any_case=True) == ["sub/x.JSONL"]
    elif kind != "folder":
        with pytest.raises(DataError, match=rf"{said[kind]}, not a file of data; replace or remove it$"):
            data_files(path, [".jsonl"])


def test_pipes_without_the_ending_are_named_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert data_files(tmp_path, [".jsonl"]).notes == {"pipes, sockets and devices passed over: pipe": 1}
    require_file(Path(__file__))


def test_subfolders_can_be_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl", tmp_path / "sub/b.jsonl")
    assert names(tmp_path, deep=False) == ["a.jsonl"]
    assert data_files(tmp_path / "nowhere", [".jsonl"]).files == []


def test_names_are_shown_in_one_line_of_utf8() -> None:
    assert printable("größe") == "größe"
    assert printable("a\nb\x1b[2J") == r"a\nb\x1b[2J"
    assert printable(os.fsdecode(b"a\xff")) == r"a\xff"
    assert first(["a", "b"]) == "a, b"
