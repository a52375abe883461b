"""LoraHub composes adapters of a pool for a task by a search for their weights, without gradients (arXiv 2307.13269).

The composed LoRA has A = sum_i w_i A_i and B = sum_i w_i B_i. The search begins at w = 0, the bare backbone, and minimises the
loss on the task's shots plus a penalty of mean |w|.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from mhrctl.adapters.files import load_adapter
from mhrctl.config.options import HubOptions
from mhrctl.data.shots import TaskShots
from mhrctl.errors import ParamsError
from mhrctl.evaluation.prediction import own_rows, sample_losses
from mhrctl.models.attach import attach
from mhrctl.training.execution import Execution
from mhrctl.training.objective import Objective
from mhrctl.training.start import Soup, mixing


class Search:
    """A search asks for the losses of weights, which get better.

    Args:
        count: weights.
        options: of the method.
        seed: of its random numbers.
    """

    def __init__(self, count: int, options: HubOptions, seed: str) -> None:
        import nevergrad as ng  # which takes seconds

        weights = ng.p.Array(init=np.zeros(count), lower=-options.bound, upper=options.bound)
        weights.random_state = np.random.RandomState(random.Random(seed).getrandbits(32))
        self._optimizer: Any = ng.optimizers.NGOpt(parametrization=weights, budget=options.evaluations)
        self._penalty = options.penalty

    def ask(self) -> Any:  # noqa: ANN401 - nevergrad's candidate
        """Return what to try next; its `value` are the weights."""
        with _quietly():
            return self._optimizer.ask()

    def tell(self, candidate: Any, loss: float) -> None:  # noqa: ANN401
        """Take the loss of what was asked for."""
        with _quietly():
            self._optimizer.tell(candidate, loss + self._penalty * float(np.abs(candidate.value).mean()))

    def best(self) -> list[float]:
        """Return the best weights."""
        with _quietly():
            weights: list[float] = self._optimizer.provide_recommendation().value.tolist()
        return weights


@contextmanager
def _quietly() -> Iterator[None]:
    """Let scipy's warnings pass, which are of nevergrad's own settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compose(
    soup: Soup,
    options: HubOptions,
    file: Path,
    shots: Sequence[TaskShots],
    backbone: PreTrainedModel,
    *,
    seed: int,
    objective: Objective,
    execution: Execution,
) -> list[list[float]]:
    """Search for the weights of the chosen adapters of each test task.

    Args:
        soup: which are chosen.
        options: of the method.
        file: of the pool.
        shots: of the test tasks.
        backbone: frozen, with slots or without.
        seed: of the cell.
        objective: the loss.
        execution: where to run the backbone.

    Returns:
        For each test task, the weights of its group.

    Raises:
        ParamsError: if nevergrad is not installed.
    """
    if find_spec("nevergrad") is None:
        raise ParamsError("lora_hub searches with nevergrad, which is not installed; run `pip install 'mhrctl[lora_hub]'`")
    runs, together = soup.runs, execution.speed.together
    chosen = load_adapter(file, runs)
    attach(backbone, chosen)
    searches = [Search(len(group), options, f"{seed}/{task.name}") for group, task in zip(soup.groups, shots, strict=True)]
    parts = [slice(first, first + together) for first in range(0, len(shots), together)]
    with execution.track("compose", options.evaluations * len(parts)) as bar:
        for part in parts:
            samples = [task.train for task in shots[part]]
            for _ in range(options.evaluations):
                candidates = [search.ask() for search in searches[part]]
                mixed = chosen.mixed_runs(mixing(soup.groups[part], [each.value for each in candidates], runs))
                losses = sample_losses(
                    execution.adapted(backbone, mixed),
                    samples,
                    own_rows(len(samples)),
                    objective=objective,
                    device=execution.accelerator.device,
                )
                for search, candidate, loss in zip(searches[part], candidates, losses, strict=True):
                    search.tell(candidate, loss)
                bar.advance()
    return [search.best() for search in searches]
