"""Putting in place: on the disk first, in one step, and nothing of a living process is removed."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mhrctl.artifacts import placing
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.placing import (
    PARTIAL,
    about,
    clean,
    leftovers,
    new_file,
    old_of,
    partial_of,
    put_in_place,
    require_file,
    restore,
    settle,
)
from mhrctl.errors import ArtifactError, DataError


def folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    (path / CARD).write_text("{}")
    return path


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_partial_names_are_unique_and_know_their_process(tmp_path: Path) -> None:
    one, two = partial_of(tmp_path / "x.json"), partial_of(tmp_path / "x.json")
    assert one != two
    match = PARTIAL.fullmatch(one.name)
    assert match
    assert (match["name"], match["process"]) == ("x.json", str(os.getpid()))


def test_a_dead_process_s_partial_is_removed_and_a_living_one_s_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    dead = tmp_path / f".x.json.{dead_process()}-00000000.partial"
    dead.write_text("half")
    other = tmp_path / f".y.json.{dead_process()}-00000000.partial"
    other.write_text("half")
    with new_file(path) as aside:
        assert not dead.exists()
        with new_file(path) as second:
            assert {aside, second} == set(leftovers(path))
        clean(path)
        assert aside.exists()
    assert other.exists()


def test_what_fails_is_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"), new_file(tmp_path / "x") as aside:
        aside.write_text("half")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("can_swap", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, can_swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_swap:
        monkeypatch.setattr(placing, "_exchange", lambda _one, _other: False)
    out = folder(tmp_path / "out", "old")
    put_in_place(folder(tmp_path / "aside", "new"), out)
    assert (out / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_a_kill_between_two_renames_is_put_right(tmp_path: Path) -> None:
    out = folder(tmp_path / "out", "old")
    out.rename(old_of(out))  # killed here
    restore(out)
    assert (out / "file").read_text() == "old"
    folder(old_of(out), "older")  # killed before the former one was removed
    restore(out)
    assert (out / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_not_an_output_is_not_taken_for_a_former_one(tmp_path: Path) -> None:
    old_of(tmp_path / "out").mkdir()
    (old_of(tmp_path / "out") / "notes.txt").write_text("mine")
    restore(tmp_path / "out")
    assert (old_of(tmp_path / "out") / "notes.txt").exists()
    assert not (tmp_path / "out").exists()


def test_files_and_folders_are_on_the_disk_before_they_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda stream: synced.append(Path(f"/proc/self/fd/{stream}").readlink().name))
    settle(folder(tmp_path / "aside" / "out", "1"))
    assert sorted(synced) == [CARD, "file", "out"]
    assert synced[-1] == "out"
    put_in_place(tmp_path / "aside" / "out", tmp_path / "out")
    assert synced[-1] == tmp_path.name


def test_a_disk_that_fails_to_sync_is_an_error_and_one_that_cannot_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(code: int) -> None:
        def fsync(_stream: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)

    failing(errno.EINVAL)
    settle(tmp_path)
    failing(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        settle(tmp_path)


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=re.escape(str(tmp_path))) as caught, about(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=re.escape(str(tmp_path))) as caught, about(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(DataError, match="input: No such"), about(tmp_path):  # which says more than we could
        raise DataError("input: No such device (os error 19)")
    with pytest.raises(RuntimeError, match="a bug"), about(tmp_path):
        raise RuntimeError("a bug")


def test_a_file_replaces_files_and_links_alone(tmp_path: Path) -> None:
    require_file(tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path)
    require_file(tmp_path / "link")
    with pytest.raises(ArtifactError, match="is a folder, in the way"):
        require_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="is no ordinary file, in the way"):
        require_file(tmp_path / "pipe")
