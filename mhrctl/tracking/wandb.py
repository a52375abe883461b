"""Weights & Biases gets steps as a number of their own: its own steps may not go back, and those of stages do."""

from __future__ import annotations

from collections.abc import Mapping

from mhrctl.tracking.accelerated import Accelerated, tracker_class
from mhrctl.tracking.backend import Subject

STEP = "step"
"""The name of the number that curves are drawn over."""


class WeightsAndBiases(Accelerated):
    """This recorder is a run of Weights & Biases, with the identifier of the entry.

    Tasks that do not fit into one batch are adapted one batch after another, each from the first step, and what a killed
    command has recorded after its checkpoint comes again: with steps of W&B's own, both would be dropped.
    """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        self.tracker.log({**values, STEP: step})
        self._last = step

    def summary(self, values: Mapping[str, float]) -> None:
        """Take what the stage has come to."""
        self.log(self._last, {f"summary/{name}": value for name, value in values.items()})


def open_wandb(subject: Subject) -> WeightsAndBiases:
    """Open a run, or go on in that of a killed command."""
    tracker = tracker_class("wandb")(
        run_name=subject.project,
        name=subject.name,
        id=subject.entry,
        resume="allow",
        group=subject.group,
        job_type=subject.stage,
        config=subject.config,
        dir=str(subject.folder),
    )
    recorder = WeightsAndBiases(tracker)
    tracker.tracker.define_metric("*", step_metric=STEP)
    return recorder
