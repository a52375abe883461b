"""Several trackers become one recorder, of which none can spoil what is recorded."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mhrctl.errors import TrackingError
from mhrctl.progress import Recorder, unrecorded
from mhrctl.tracking.backend import OpenRecorder, Subject
from mhrctl.tracking.entry import entered
from mhrctl.tracking.table import TRACKERS


@contextmanager
def recording(names: Iterable[str], subject: Subject, *, warn: Callable[[str], None]) -> Iterator[Recorder]:
    """Open trackers for as long as a stage works.

    A tracker that cannot be opened stops the command, which has done nothing yet. One that fails later is left out from
    then on, with a warning: hours of training are worth more than a picture of them, and the stage's own log has the
    numbers anyway.

    Args:
        names: of `TRACKERS`; none of them records nothing.
        subject: whose numbers are recorded.
        warn: shows one line.

    Raises:
        TrackingError: if a tracker cannot be opened.
    """
    chosen = list(dict.fromkeys(names))
    if not chosen:
        yield unrecorded
        return
    every = _Every(warn)
    with _kept_local(chosen, subject), entered(subject, chosen) as entry:
        try:
            with _one_at_a_time(subject.folder):
                for name in chosen:
                    every.open(name, entry)
            yield every
        finally:  # also when the stage is interrupted, so that what it recorded is kept
            every.close()


@contextmanager
def _kept_local(names: Iterable[str], subject: Subject) -> Iterator[None]:
    """Set the variables by which trackers keep to this machine, but for those that the user has set."""
    unset = {name: value for each in names for name, value in TRACKERS[each].local(subject).items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait while another command opens its trackers: two that make a data base, or an experiment, would make two of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".opening").open("w") as stream:
        with suppress(OSError):  # no locks there
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class _Every:
    """All trackers that have not failed."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._left: dict[str, OpenRecorder] = {}

    def open(self, name: str, subject: Subject) -> None:
        try:
            self._left[name] = TRACKERS[name].opens(subject)
        except Exception as error:
            raise TrackingError(f"--track {name}: it cannot be opened: {_reason(error)}") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._tell(lambda recorder: recorder.log(step, values), f"at step {step}")

    def summary(self, values: Mapping[str, float]) -> None:
        self._tell(lambda recorder: recorder.summary(values), "at the summary")

    def close(self) -> None:
        self._tell(lambda recorder: recorder.close(), "at the end")
        self._left.clear()

    def _tell(self, what: Callable[[OpenRecorder], None], when: str) -> None:
        for name, recorder in list(self._left.items()):
            try:
                what(recorder)
            except Exception as error:  # noqa: BLE001 - a tracker may raise anything: a lost connection, a full disk
                del self._left[name]
                self._warn(f"--track {name} failed {when} and records no more, the command goes on: {_reason(error)}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
