"""An output is written by one process at a time: a stage holds the lock of its output from its start to its end.

The lock is the kernel's (`flock`), on a file beside the output: it dies with its process, so no kill leaves one behind. On a
shared file system it holds between machines as far as that passes locks on, as NFS does on Linux; where there are no locks at
all, work goes on without, and the names of unfinished files keep two processes apart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mhrctl.artifacts.placing import leftovers, restore
from mhrctl.errors import ArtifactError

_LOCKLESS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
_held: dict[Path, int] = {}
"""{output: the thread of this process that holds its lock}."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder; first, what a killed process has left of it is put right.

    A thread that holds it already goes on.

    Args:
        folder: the output.

    Raises:
        ArtifactError: if another process is writing it, or nothing can be written there.
    """
    key = Path(os.path.abspath(folder))  # noqa: PTH100 - `resolve` would follow the output itself
    if _held.get(key) == threading.get_ident():
        yield
        return
    lock, is_new = lock_of(folder), not folder.parent.exists()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stream = _acquire(lock, folder)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written: {error.strerror} ({error.filename or lock})") from None
    _held[key] = threading.get_ident()
    try:
        if stream is not None:  # so what is unfinished here has no living owner
            restore(folder)
            for path in leftovers(folder):
                _remove(path)
        yield
    finally:
        del _held[key]
        if stream is not None:
            with suppress(OSError):
                lock.unlink()
            os.close(stream)
        if is_new:  # and stays so if nothing was written
            with suppress(OSError):
                folder.parent.rmdir()


def lock_of(folder: Path) -> Path:
    """Return where the lock of an output is."""
    return folder.with_name(f".{folder.name}.lock")


def _acquire(lock: Path, folder: Path) -> int | None:
    """Open and lock the file; None where the file system has no locks.

    Raises:
        ArtifactError: if another process holds it.
    """
    while True:
        stream = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(lock, stream):
                with suppress(OSError):  # a full disk: who holds it is for a message only
                    os.truncate(stream, 0)
                    os.pwrite(stream, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                return stream
        except OSError as error:
            owner = os.pread(stream, 100, 0).decode(errors="replace").split()
            os.close(stream)
            if error.errno in _LOCKLESS:
                return None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise ArtifactError(f"{folder}: is being written by {_named(owner)}; wait until that has ended") from None
        except BaseException:
            os.close(stream)
            raise
        os.close(stream)  # its owner ended and took the file away between our two calls


def _is_there(lock: Path, stream: int) -> bool:
    """Whether an open file is still the one of its name."""
    try:
        return os.path.samestat(lock.lstat(), os.fstat(stream))
    except FileNotFoundError:
        return False


def _named(owner: list[str]) -> str:
    if len(owner) != 2:
        return "another process"
    return f"process {owner[0]}" if owner[1] == socket.gethostname() else f"process {owner[0]} on {owner[1]}"


def _remove(path: Path) -> None:
    """Remove what is left of an unfinished output; a link is removed, and never followed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
