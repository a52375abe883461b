"""What was written aside is put in place: on the disk before it has its name, and in one step, whatever is killed when.

Unfinished files and folders have names that no other process and thread has, and that nobody could have planted:
`.<name>.<process>-<random>.partial`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mhrctl.artifacts.names import CARD
from mhrctl.errors import ArtifactError, MhrctlError

PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)-[0-9a-f]{8}\.partial")
"""The name of what is unfinished."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries that are written in Rust say which error of the system it was."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def partial_of(path: Path) -> Path:
    """Return a new name beside a file or folder, for it while it is unfinished."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def old_of(folder: Path) -> Path:
    """Return where the former output is while it is being replaced, where the file system cannot swap two folders."""
    return folder.with_name(f".{folder.name}.old")


def leftovers(path: Path) -> list[Path]:
    """Return the unfinished files and folders of one name, of living and dead processes."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return sorted(each for each in beside if (match := PARTIAL.fullmatch(each.name)) and match["name"] == path.name)


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Name in an error of the system what was being written; libraries report one without the file, or by a type of theirs."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    except MhrctlError:
        raise
    except Exception as error:
        if match := _OS_ERROR.search(str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from error
        raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Make an empty unfinished file for a path: it is this process's alone, marked as alive, and gone if the block fails."""
    clean(path)
    aside = partial_of(path)
    stream = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # no locks there
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield aside
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(stream)


def clean(path: Path) -> None:
    """Remove the unfinished files of a path whose processes have ended."""
    for each in leftovers(path):
        if not is_alive(each):
            with suppress(OSError):
                each.unlink()


def is_alive(partial: Path) -> bool:
    """Return whether the process of an unfinished file or folder may still be at it."""
    match = PARTIAL.fullmatch(partial.name)
    return match is None or _lives_here(int(match["process"])) or not (partial.is_dir() or _is_free(partial))


def settle(path: Path) -> None:
    """Wait until a file, or all of a folder, is on the disk: a name must never outlive the content that it stands for."""
    if path.is_dir():
        for each in path.iterdir():
            settle(each)
    _to_disk(path, os.O_NOFOLLOW)


def _to_disk(path: Path, flags: int) -> None:
    stream = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        with _if_supported():
            os.fsync(stream)
    finally:
        os.close(stream)


@contextmanager
def _if_supported() -> Iterator[None]:
    """Pass over that a file system has no such call; a full or broken disk is an error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def put_in_place(aside: Path, folder: Path) -> None:
    """Give a finished folder its name; of the one that had it nothing is left, and one of the two is there at any moment."""
    if not os.path.lexists(folder):
        aside.rename(folder)
    elif _exchange(aside, folder):
        shutil.rmtree(aside, ignore_errors=True)
    else:
        old = old_of(folder)
        folder.rename(old)  # a kill after this line is put right by `restore`
        aside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    _to_disk(folder.parent, os.O_DIRECTORY)


def put_file_in_place(aside: Path, path: Path, *, durable: bool) -> None:
    """Give a finished file its name, in place of the file or link that had it."""
    aside.replace(path)
    if durable:
        _to_disk(path.parent, os.O_DIRECTORY)


def restore(folder: Path) -> None:
    """Put the former output back if a process was killed while it replaced it, or remove it if that was done."""
    old = old_of(folder)
    if not old.is_dir() or old.is_symlink() or not (old / CARD).is_file():
        return
    if os.path.lexists(folder):
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(folder)


def require_file(path: Path) -> None:
    """Check that a path is free, or has a file or a link, which a new file would replace and never follow.

    Raises:
        ArtifactError: if something else is there.
    """
    if os.path.lexists(path) and not path.is_symlink() and not path.is_file():
        what = "a folder" if path.is_dir() else "no ordinary file"
        raise ArtifactError(f"{path}: is {what}, in the way of a file; move it away or name another")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; whether kernel and file system can."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _lives_here(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _is_free(path: Path) -> bool:
    """Whether nobody, on whatever machine, holds an unfinished file as alive."""
    try:
        stream = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return path.is_symlink()
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(stream)
    return True
