"""What is nobody's fault but the environment's is said in one line: a full disk, no permission, no memory.

An `OSError` counts as that by its number: those below come of disks, permissions, limits and networks, whatever the code does.
The others, such as "no such file", come of a reader or a writer that has not looked: they are bugs, and keep their traceback.
Libraries that are not written in Python say the number in their text alone, or name what they could not have.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator

FULL = "make room there, then run it again: what was there is as it was"
DENIED = "get permission to read and write there, then run it again"
LIMIT = "raise the limit (`ulimit -a` shows it), or run less at once"
SHAPE = "move away what is there, then run it again"
DEVICE = "check the device or the mount that it is on, then run it again"
NETWORK = "check the network, then run it again"
MEMORY = (
    "lower --together, a batch size (`pretrain.batch_size`, `adapt.batch_size`) or --jobs, or use --checkpointing; else take a"
    " machine with more"
)

REMEDIES: dict[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), DENIED),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOLCK, errno.EFBIG), LIMIT),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.ETXTBSY), SHAPE),
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EBUSY, errno.EREMOTEIO), DEVICE),
    **dict.fromkeys((errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH), NETWORK),
    errno.ENOMEM: MEMORY,
}
"""{number of an `OSError` that is the environment's: what to do about it}."""
IN_TEXT = re.compile(r"(?:\(os error |\[Errno |Error code |errno:? ?)(\d+)")
"""How libraries in Rust and C++ say the number of an error of the operating system."""
NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED|"
    r"std::bad_alloc|unable to allocate|cannot allocate memory|failed to map segment from shared object",
    re.IGNORECASE,
)
ASKED = re.compile(r"[Tt]ried to allocate [\d.,]+ ?[A-Za-z]+")
NO_THREADS = "can't start new thread"
LINKS = 100
DISK_FULL = "database or disk is full"


def reason_of(error: BaseException) -> str | None:
    """Return what an error says of the environment and what to do, in one line; None if it is none of the environment's."""
    for link, is_cause in _chain(error):
        reason = _reason(link)
        if reason is not None and (is_cause or reason.endswith((FULL, MEMORY))):
            return reason
    return None


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """An error and those before it, and whether it was raised from them: what only came up meanwhile may be a bug of its own.

    A disk that is full, and memory that is short, make whatever cleans up fail too.
    """
    link: BaseException | None = error
    is_cause = True
    for _ in range(LINKS):
        if link is None:
            return
        yield link, is_cause
        is_cause = is_cause and (link.__cause__ is not None or link.__context__ is None)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _reason(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or NO_MEMORY.search(text):
        asked = ASKED.search(text)
        return f"not enough memory{f' ({asked[0].lower()})' if asked else ''}: {MEMORY}"
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}: {NETWORK}"
    if NO_THREADS in text:
        return f"{text}: {LIMIT}"
    if DISK_FULL in text:
        return f"{text}: {FULL}"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (said := IN_TEXT.search(text)):
        number = int(said[1])
    if number not in REMEDIES:
        return None
    places = [str(name) for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name is not None]
    return (
        f"{': '.join([' -> '.join(places)] if places else [])}{': ' if places else ''}{os.strerror(number)}; {REMEDIES[number]}"
    )
