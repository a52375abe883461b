"""TensorBoard gets files in which a stage that is run again takes the place of what it recorded before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mhrctl.tracking.accelerated import Accelerated, tracker_class
from mhrctl.tracking.backend import Scalar, Subject


class TensorBoard(Accelerated):
    """This recorder writes into event files, one more each time a command is run, in the folder of the stage and cell.

    A command that was killed goes on at its checkpoint, and one that is forced begins anew; both record steps that an earlier
    event file has. TensorBoard reads the files one after another, and forgets what earlier ones have from a step on if a
    later one says that it starts there. Accelerate opens the file before any step is known, so this is said before the
    first numbers and not at the opening.
    """

    def __init__(self, tracker: Any, config: Mapping[str, Scalar]) -> None:  # noqa: ANN401 - accelerate has no types
        """Open a tracker.

        Args:
            tracker: of accelerate, not started.
            config: whose numbers are recorded, and the settings.
        """
        super().__init__(tracker)
        self._config = config
        self._started = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        self._start(step)
        super().log(step, values)

    def summary(self, values: Mapping[str, float]) -> None:
        """Take what the stage has come to, at the last step."""
        self._start(0)
        super().summary(values)

    def _start(self, step: int) -> None:
        if self._started:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from torch.utils.tensorboard.summary import hparams

        self._started = True
        writer = self.tracker.tracker.file_writer
        writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)), step)
        for summary in hparams(dict(self._config), {}):  # `add_hparams` would make a run of its own of them
            writer.add_summary(summary)


def open_tensorboard(subject: Subject) -> TensorBoard:
    """Open a new event file in the folder of a stage and cell.

    Files are read in the order of their names, which begin with the second that they were made in and go on with numbers of no
    fixed width. So a file waits for a second of its own: of two from one second the later might be read first.
    """
    while any((subject.folder / subject.name).glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)
    return TensorBoard(tracker_class("tensorboard")(subject.name, str(subject.folder)), subject.config)
