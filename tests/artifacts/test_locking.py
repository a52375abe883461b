"""Locks: one process an output, and what a killed one has left is put right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mhrctl.artifacts.locking import lock_of, locked
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.placing import old_of, partial_of
from mhrctl.errors import ArtifactError

HOLD = """
import sys, time
from pathlib import Path
from mhrctl.artifacts.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "held\n"
    return process


def test_another_process_is_named_and_its_death_frees_the_output_at_once(tmp_path: Path) -> None:
    out = tmp_path / "data" / "adapt"
    process = holder(out)
    try:
        with (
            pytest.raises(ArtifactError, match=rf"adapt: is being written by process {process.pid}; wait until") as caught,
            locked(out),
        ):
            pass
        assert "\n" not in str(caught.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(out):
            assert lock_of(out).exists()
    finally:
        process.kill()
        process.wait()
    assert list(out.parent.iterdir()) == []


def test_a_thread_goes_on_in_its_lock_and_another_does_not(tmp_path: Path) -> None:
    out, said = tmp_path / "out", []

    def other() -> None:
        try:
            with locked(out):
                said.append("held")
        except ArtifactError as error:
            said.append(str(error))

    with locked(out), locked(out):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in said[0]
    with locked(out):
        pass


def test_what_a_killed_process_left_is_removed_and_the_former_output_put_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    partial_of(out).mkdir()
    old_of(out).mkdir()
    (old_of(out) / CARD).write_text("{}")
    theirs = [tmp_path / ".other.1-00000000.partial", tmp_path / ".out.partial"]
    for folder in theirs:
        folder.mkdir()
    with locked(out):
        assert (out / CARD).exists()
    assert sorted(tmp_path.iterdir()) == sorted([out, *theirs])


def test_a_planted_link_is_no_lock_and_no_partial(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("1")
    out = tmp_path / "out"
    lock_of(out).symlink_to(precious / "file")
    with pytest.raises(ArtifactError, match=r"out: cannot be written: .*\.out\.lock"), locked(out):
        pass
    lock_of(out).unlink()
    (tmp_path / f".out.{os.getpid()}-00000000.partial").symlink_to(precious)
    with locked(out):
        pass
    assert (precious / "file").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ArtifactError, match=r"data/out: cannot be written: ") as caught, locked(tmp_path / "data" / "out"):
        pass
    assert "\n" not in str(caught.value)


def test_work_goes_on_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    kept = partial_of(tmp_path / "out")  # its owner may be alive
    kept.mkdir()
    with locked(tmp_path / "out"):
        pass
    assert kept.exists()
