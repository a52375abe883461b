"""What is the environment's is told from what is a bug, and says what to do."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mhrctl.cli.failures import MEMORY, reason_of
from mhrctl.stages import prepare
from tests.cli.conftest import Capture, complaint
from tests.conftest import Run


class OutOfMemoryError(RuntimeError):
    """As torch has it of a GPU."""


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def raised_while(error: Exception, handled: Exception) -> Exception:
    error.__context__ = handled
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x", "data/a.json"), "data/a.json: No space left on device; make room there"),
        (OSError(errno.EROFS, "x", "a", None, "b"), "a -> b: Read-only file system; get permission"),
        (PermissionError(errno.EACCES, "x", b"a"), "Permission denied; get permission"),
        (OSError(errno.EMFILE, "x"), "Too many open files; raise the limit"),
        (NotADirectoryError(errno.ENOTDIR, "x", "data/log"), "data/log: Not a directory; move away"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known: check the network"),
        (Exception("failed to write: No space left on device (os error 28)"), "No space left on device; make room"),
        (RuntimeError("can't start new thread"), "can't start new thread: raise the limit"),
        (sqlite3.OperationalError("database or disk is full"), "database or disk is full: make room"),
        (MemoryError(), f"not enough memory: {MEMORY}"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"), "(tried to allocate 2.50 gib)"),
        (RuntimeError("CUDA error: out of memory"), "not enough memory"),
        (ImportError("libarrow.so: failed to map segment from shared object"), "not enough memory"),
        (raised_from(ValueError("wrapped"), OSError(errno.EDQUOT, "x", "a")), "a: Disk quota exceeded"),
        (raised_while(ValueError("while cleaning up"), OSError(errno.ENOSPC, "x", "a")), "a: No space left"),
    ],
)
def test_what_the_environment_does_not_give_is_a_line(error: BaseException, said: str) -> None:
    reason = reason_of(error)
    assert reason is not None
    assert said in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x", "a"),
        OSError("of no number"),
        ValueError("a bug"),
        KeyError("memory"),
        RuntimeError("No such file or directory (os error 2)"),
        raised_while(ValueError("a bug in what answers it"), PermissionError(errno.EACCES, "x", "a")),
    ],
)
def test_a_bug_is_none(error: BaseException) -> None:
    assert reason_of(error) is None


def test_torch_says_that_memory_is_short_as_we_know_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    reason = reason_of(caught.value)
    assert reason is not None
    assert reason.startswith("not enough memory (tried to allocate")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_says_its_number() -> None:
    with pytest.raises(OSError, match="No space left") as caught, open("/dev/full", "w") as full:  # noqa: PTH123
        full.write("x" * 100_000)
    assert "make room" in str(reason_of(caught.value))


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "x", "data/prepare"), 1, "error: data/prepare: No space left on device; make room there"),
        (MemoryError(), 1, "error: not enough memory: lower --together"),
        (KeyboardInterrupt(), 130, "error: interrupted: what was there is as it was"),
    ],
)
def test_a_command_ends_with_a_line_and_what_was_there_is_as_it_was(
    copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    before = (copy / "data/prepare/card.json").read_bytes()
    monkeypatch.setattr(prepare, "write_card", failing(error))
    capfd.readouterr()
    assert run("prepare", "--force", "-C", copy) == code
    assert said in complaint(capfd)
    assert (copy / "data/prepare/card.json").read_bytes() == before


def test_a_project_that_may_not_be_written_is_a_line(walked: Path, run: Run, capfd: Capture, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((walked / "params.yaml").read_bytes())
    (tmp_path / "data").write_text("in the way")
    (tmp_path / "tasks").symlink_to(walked / "tasks")
    capfd.readouterr()
    assert run("prepare", "-C", tmp_path) == 2
    assert os.strerror(errno.EEXIST) in complaint(capfd)
    assert (tmp_path / "data").read_text() == "in the way"
