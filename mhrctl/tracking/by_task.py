"""Scores by task, and their mean, are reported from tasks that are scored in batches one after another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from mhrctl.progress import Recorder


class ByTask:
    """This recorder reports scores of tasks as they come, and their mean at a step once every task has had its score there.

    Tasks that do not fit into one batch go through all steps after others have. A mean of those of a batch would jump back
    and forth with who is in it; one of all tasks comes with the last batch, or at once where there is one batch only.
    """

    def __init__(self, recorder: Recorder, *, tasks: int) -> None:
        """Begin without scores.

        Args:
            recorder: takes the numbers.
            tasks: how many tasks there are in all.
        """
        self._recorder, self._tasks = recorder, tasks
        self._scores: defaultdict[int, list[float]] = defaultdict(list)

    def __call__(self, step: int, scores: Mapping[str, float]) -> None:
        """Report the scores of some tasks at a step."""
        values = {f"validation/{task}": score for task, score in scores.items()}
        at_step = self._scores[step]
        at_step += scores.values()
        if len(at_step) == self._tasks:
            values["validation_mean"] = sum(at_step) / len(at_step)
        self._recorder.log(step, values)

    def remember(self, step: int, score: float) -> None:
        """Count a task's score at a step that an earlier command has reported."""
        self._scores[step].append(score)
