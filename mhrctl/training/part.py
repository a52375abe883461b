"""A part of a pre-training is trained in one go: it has a checkpoint and a log of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.routing import uniform_interpolation
from mhrctl.artifacts.facts import Kept
from mhrctl.data.batches import MixedBatches, RunBatches
from mhrctl.progress import Recorder
from mhrctl.training.log import TrainingLog
from mhrctl.training.optimizers import trained_parameters
from mhrctl.training.selection import BestSteps


@dataclass(frozen=True)
class Part:
    """A part is the adapter of all tasks, or some that are trained alone, side by side.

    Attributes:
        adapter: of one run, or of one for each data set.
        batches: what it is trained on.
        steps: in all.
        checkpoint: the file of the last.
        key: identifies the training.
        before: the last row of the trainings that this one follows, from which the recorder counts on.
        data_sets: whose adapters are trained alone.
    """

    adapter: Adapter
    batches: MixedBatches | RunBatches
    steps: int
    checkpoint: Path
    key: str
    before: Sequence[Any] = ()
    data_sets: Sequence[str] = ()

    def log(
        self, columns: Sequence[str], recorder: Recorder, *, rows: list[list[Any]], first: int, micro_batches: int
    ) -> TrainingLog:
        """Begin its log, or go on with one.

        Args:
            columns: of the log.
            recorder: takes each row.
            rows: of the steps until `first`.
            first: steps taken before.
            micro_batches: of a step, of all processes.
        """

        def tokens_of(step: int) -> int:
            return sum(self.batches.tokens(micro) for micro in range((step - 1) * micro_batches, step * micro_batches))

        return TrainingLog(columns, recorder, rows=rows, first=first, tokens_of=tokens_of, before=self.before)

    def keep(self, best: BestSteps, *, uniform_steps: int) -> list[Kept]:
        """Give each run what it was in its best step, and say which that is.

        Args:
            best: the record of the best steps.
            uniform_steps: see `fade`.
        """
        best.put_into(trained_parameters(self.adapter))
        if not self.data_sets:
            self.fade(best.steps[0] - 1, uniform_steps=uniform_steps)
        scores = best.scores.tolist()
        return [Kept(step=step, validation_loss=-score) for step, score in zip(best.steps, scores, strict=True)]

    def fade(self, step: int, *, uniform_steps: int) -> None:
        """Mix the routing with the uniform one as it is in the step after so many.

        Args:
            step: steps taken.
            uniform_steps: in the last of which the routing becomes uniform.
        """
        self.adapter.interpolate(uniform_interpolation(step, steps=self.steps, last=uniform_steps))


def left_by(saved: Sequence[int]) -> str:
    """Say what a training that diverges has to go on from: checkpoints of these steps, or none."""
    return f"its checkpoint of step {saved[-1]} is kept" if saved[-1] else "it has no checkpoint yet"
