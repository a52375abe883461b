"""Trackio prints on opening and closing where its files are, which is this project's to say."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from mhrctl.tracking.accelerated import Accelerated, tracker_class
from mhrctl.tracking.backend import Subject


class Trackio(Accelerated):
    """This recorder is a run of trackio."""

    def close(self) -> None:
        """Write what is left, and let go."""
        import trackio

        with redirect_stdout(io.StringIO()):
            trackio.finish()  # that of accelerate's tracker leaves the run open for the end of the process


def open_trackio(subject: Subject) -> Trackio:
    """Open a run, or go on in that of a killed command, which is the last of its name."""
    tracker = tracker_class("trackio")(
        run_name=subject.project,
        name=subject.name,
        group=subject.group,
        config=subject.config,
        resume="allow" if subject.is_continued else "never",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    with redirect_stdout(io.StringIO()):
        return Trackio(tracker)
