"""Ctrl-C and SIGTERM end a command in order: what it writes aside is removed, and it says so in one line.

Python raises `KeyboardInterrupt` wherever it is at work. In an import, modules make other errors of it, or swallow it, and in a
destructor Python prints it and goes on. So an import is ended at once, as nothing hangs on it, and what a destructor has
swallowed is raised again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

IMPORTING = "<frozen importlib._bootstrap>"
AGAIN_SECONDS = 0.01
WORDS = {signal.SIGINT: b"error: interrupted\n", signal.SIGTERM: b"error: terminated\n"}


class TerminatedError(BaseException):
    """The process has been asked to end, by SIGTERM."""


_asked: list[int] = []
"""The signals that have come, of which libraries may have made errors of their own."""


def asked_to_end() -> int | None:
    """Return the first signal that has come since `raising_signals`, whatever error has come of it; None if none has."""
    return _asked[0] if _asked else None


@contextmanager
def raising_signals() -> Iterator[None]:
    """Raise what SIGINT and SIGTERM ask for until the block ends; a signal that is ignored stays so."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = [number for number in WORDS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _raise) for number in asked}
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, WORDS[signal.Signals(number)])
        os._exit(128 + number)
    _asked.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else TerminatedError


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False


def _unraisable(what: Any) -> None:  # noqa: ANN401 - it has no public name
    """Raise a signal once more that nobody could take; show all else as Python does."""
    for error, number in ((KeyboardInterrupt, signal.SIGINT), (TerminatedError, signal.SIGTERM)):
        if isinstance(what.exc_value, error):
            threading.Timer(AGAIN_SECONDS, signal.raise_signal, [number]).start()
            return
    sys.__unraisablehook__(what)
