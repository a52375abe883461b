"""A router answers each query by a mixture of a pool's adapters of its own.

The outputs of the adapters are mixed, which is what a LoRA does whose A are theirs, one beside the other, and whose B are
theirs, each times its weight. So every query of a batch has a LoRA of its own; of the pool only the adapters that a batch
wants are in memory, unless it is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import Pool
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.data.examples import Sample
from mhrctl.data.routes import Mixture, Routes, load_routes
from mhrctl.evaluation.metrics import Answer
from mhrctl.evaluation.prediction import BATCH_ROWS, Generation, answer
from mhrctl.training.execution import Execution

NUMBERS = 2**28
"""Numbers of all LoRAs of a batch of queries: a matter of memory, not of results."""


class Router:
    """It composes adapters for queries, and answers these.

    Attributes:
        routes: which adapters answer a query.
        pool: the adapters.
    """

    def __init__(self, routes: Routes, pool: Pool) -> None:
        self.routes, self.pool = routes, pool

    @classmethod
    def open(cls, adapted: Path, start: Path, *, root: Path, device: str) -> Router:
        """Open what an adaptation has written.

        Args:
            adapted: its output.
            start: output of the pre-training, the pool.
            root: what a relative folder of the encoder is relative to.
            device: where to run the encoder.

        Raises:
            ArtifactError: if one cannot be read, or the encoder has changed since.
        """
        return cls(load_routes(adapted / ADAPTERS, root=root, device=device), Pool(start / ADAPTERS))

    def composed(self, tasks: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[list[int], Adapter]]:
        """Compose the adapter of each query, in batches of queries with like adapters.

        Args:
            tasks: of each query.
            texts: the queries.

        Yields:
            The places of some queries, and their adapters, a run each.
        """
        mixtures: dict[int, Mixture] = {}
        for task in dict.fromkeys(tasks):
            places = [place for place, each in enumerate(tasks) if each == task]
            mixtures |= zip(places, self.routes.of(task, [texts[place] for place in places]), strict=True)
        order = sorted(mixtures, key=lambda place: [adapter for adapter, _ in mixtures[place]])
        widest = max((len(mixture) for mixture in mixtures.values()), default=1)
        rows = max(1, min(BATCH_ROWS, NUMBERS // (widest * self.pool.numbers)))
        for first in range(0, len(order), rows):
            chosen = order[first : first + rows]
            yield chosen, self._joined([mixtures[place] for place in chosen])

    def _joined(self, mixtures: Sequence[Mixture]) -> Adapter:
        """One adapter of several queries; a mixture of fewer adapters than another has the first once more, with weight 0."""
        used = sorted({adapter for mixture in mixtures for adapter, _ in mixture})
        places = {adapter: place for place, adapter in enumerate(used)}
        width = max(map(len, mixtures))
        padded = [[*mixture, *[(mixture[0][0], 0.0)] * (width - len(mixture))] for mixture in mixtures]
        return self.pool.select(used).joined_runs(
            torch.tensor([[places[adapter] for adapter, _ in row] for row in padded]),
            torch.tensor([[weight for _, weight in row] for row in padded]),
        )

    def answers(
        self,
        tasks: Sequence[str],
        texts: Sequence[str],
        samples: Sequence[Sample],
        choices: Sequence[Sequence[str]],
        *,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        generation: Generation,
        execution: Execution,
    ) -> list[Answer]:
        """Answer queries, in their order.

        Args:
            tasks: of each.
            texts: of each, by which it is routed.
            samples: its tokens.
            choices: to choose from; nothing of a query whose answer is generated.
            backbone: with the slots of the pool's layers.
            tokenizer: of the backbone.
            generation: how answers come about.
            execution: how to run.

        Raises:
            DivergedError: if what the model computes is not finite.
        """
        said: dict[int, Answer] = {}
        with execution.track("route", len(tasks)) as bar:
            for places, adapter in self.composed(tasks, texts):
                answers = answer(
                    execution.adapted(backbone, adapter),
                    tokenizer,
                    [[samples[place]] for place in places],
                    [[choices[place]] if choices[place] else [] for place in places],
                    generation=generation,
                    device=execution.accelerator.device,
                    names=[tasks[place] for place in places],
                )
                said |= {place: one for place, (one,) in zip(places, answers, strict=True)}
                bar.advance(len(places))
        return [said[place] for place in range(len(tasks))]
