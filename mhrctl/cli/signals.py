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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mhrctl.cli.display import seconds_of

IMPORTING = "<frozen importlib._bootstrap>"
AGAIN_SECONDS = 0.01
SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"
"""Begins the line of a terminal again and shows its cursor, which a spinner hides."""
WORDS = {signal.SIGINT: b"error: interrupted\n", signal.SIGTERM: b"error: terminated\n"}


CHECKPOINT_SECONDS = "MHRCTL_CHECKPOINT_SECONDS"
"""The variable that says how many seconds of training there are between checkpoints, 300 by default."""


def seconds_between_checkpoints() -> float:
    """Return the seconds of training between checkpoints."""
    from mhrctl.training import pauses

    return seconds_of(CHECKPOINT_SECONDS, pauses.CHECKPOINT_SECONDS)


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


@contextmanager
def stopping(*, launched: bool = False) -> Iterator[Callable[[], bool]]:
    """Let the first signal ask for an end in good order until the block ends, and the second raise, as all do afterwards.

    Args:
        launched: whether this is one of several processes, to which their launcher sends a signal once more at once.

    Yields:
        What says whether a signal has come.
    """
    before = {number: signal.getsignal(number) for number in WORDS}
    if threading.current_thread() is not threading.main_thread() or _raise not in before.values():
        yield lambda: False
        return
    came: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if came and not launched:
            _raise(number, frame)
        came.append(number)
        _asked.append(number)
        if sys.__stderr__ and sys.__stderr__.isatty():
            os.write(sys.__stderr__.fileno(), b"\r\nstopping after this step; once more stops at once\r\n")

    for number, handler in before.items():
        if handler is _raise:
            signal.signal(number, ask)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:  # too late for the work to notice
        _raise(came[0], None)


def _raise(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        if sys.__stderr__ and sys.__stderr__.isatty():
            os.write(sys.__stderr__.fileno(), SHOW_CURSOR)
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
    main = threading.main_thread().ident  # only a signal to it ends what it waits for
    for error, number in ((KeyboardInterrupt, signal.SIGINT), (TerminatedError, signal.SIGTERM)):
        if isinstance(what.exc_value, error):
            threading.Timer(AGAIN_SECONDS, signal.pthread_kill, [main, number]).start()
            return
    sys.__unraisablehook__(what)
