"""Selection decides which step of a training is kept, and when it is over: for each of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class BestSteps:
    """This record holds the best step of each run so far, by its validation scores.

    Attributes:
        scores: the best score of each run, [runs]; minus infinity before the first.
        steps: each run's best step; 0 before the first score.
        since_best: scores of each run since its best one.
        parameters: {name: those of each run's best step, [runs, ...]}, on the CPU; those of the start before the first score.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        runs: int | None = None,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Begin with the parameters of the start.

        Args:
            parameters: {name: [runs, ...]}.
            runs: how many, where nothing is trained of which they could be counted.
            patience: scores in a row without a better one after which a run is over; None is never.
            dtype: in which scores are compared.
        """
        self.parameters = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}
        runs = len(next(iter(self.parameters.values()))) if runs is None else runs
        self.scores, self.steps = torch.full((runs,), -torch.inf, dtype=dtype), [0] * runs
        self._patience, self.since_best = patience, [0] * runs

    @torch.no_grad()
    def record(
        self, runs: Sequence[int], scores: Sequence[float], parameters: Mapping[str, Tensor], rows: Sequence[int], *, step: int
    ) -> None:
        """Take the scores of some runs at a step.

        Args:
            runs: which were validated.
            scores: of each; an equal one is not better.
            parameters: {name: [rows, ...]}, as they are in this step.
            rows: where each of `runs` is in them.
            step: the step's number.
        """
        for run, row, score in zip(runs, rows, torch.tensor(scores, dtype=self.scores.dtype), strict=True):
            self.since_best[run] += 1
            if score > self.scores[run]:
                self.scores[run], self.steps[run], self.since_best[run] = score, step, 0
                for name, parameter in parameters.items():
                    self.parameters[name][run].copy_(parameter[row])

    @torch.no_grad()
    def restore(self, parameters: Mapping[str, Tensor], best: Sequence[tuple[int, float, int] | tuple[int, float]]) -> None:
        """Go back to an earlier record of the same runs.

        Args:
            parameters: {name: those of each run's best step, [runs, ...]}.
            best: each run's best step, its score, and how many scores came since, none where patience was not counted.
        """
        for name, kept in self.parameters.items():
            kept.copy_(parameters[name])
        for run, (step, score, *since) in enumerate(best):
            self.steps[run], self.scores[run], self.since_best[run] = step, score, sum(since)

    @torch.no_grad()
    def put_into(self, parameters: Mapping[str, Tensor]) -> None:
        """Give all runs the parameters of their best steps."""
        for name, parameter in parameters.items():
            parameter.copy_(self.parameters[name])

    def over(self, run: int) -> bool:
        """Return whether a run has gone on for its patience without getting better."""
        return self._patience is not None and self.since_best[run] >= self._patience
