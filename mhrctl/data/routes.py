"""Routes say for each query which adapters of a pool answer it, and with which weights.

A query is compared with means of inputs: of tasks, for each of which an adapter was chosen (LORAUTER, arXiv 2601.21795), or of
the adapters' own samples (LoraRetriever, arXiv 2402.09997).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from mhrctl.artifacts.reading import reading
from mhrctl.data.index import EncoderName
from mhrctl.data.similarity import Array, Encoder, TfIdfEncoder, embed
from mhrctl.errors import DataError

TEXTS = 256
"""Queries that are embedded at a time: a matter of memory, not of results."""
_KIND = "routes"

Mixture = Sequence[tuple[int, float]]
"""(place of an adapter in its pool, weight) of each adapter that answers a query, the greatest weight first."""


@dataclass(frozen=True)
class Weighing:
    """A weighing says how similarities become weights.

    Attributes:
        top_k: of what a query is compared with, the nearest that count.
        similarity: the cosine, or the product of the query's vector of unit length with a mean as it is.
        temperature: similarities are divided by it before their softmax; None weighs all alike.
        softmax: over the nearest, or over all, of whose weights those of the nearest are kept as they are.
    """

    top_k: int
    similarity: Literal["cosine", "product"] = "cosine"
    temperature: float | None = None
    softmax: Literal["nearest", "all"] = "nearest"

    def compared(self, vectors: Array) -> Array:
        """Return the vectors [rows, d] whose products with a query of unit length are its similarities."""
        return _unit(vectors) if self.similarity == "cosine" else vectors

    def __call__(self, similar: Sequence[float], order: Sequence[str]) -> list[tuple[int, float]]:
        """Weigh the nearest.

        Args:
            similar: to each row.
            order: names of the rows, by which equals are ordered.

        Returns:
            (row, weight), the nearest first.
        """
        ranked = sorted(range(len(similar)), key=lambda row: (-similar[row], order[row]))
        nearest = ranked[: self.top_k]
        if self.temperature is None:
            return [(row, 1 / len(nearest)) for row in nearest]
        over = ranked if self.softmax == "all" else nearest
        powers = np.exp((np.array([similar[row] for row in over]) - similar[ranked[0]]) / self.temperature)
        return list(zip(nearest, (powers / powers.sum()).tolist(), strict=False))


@dataclass(frozen=True)
class Routes:
    """Routes are all that routing needs but the adapters.

    Attributes:
        names: of the rows, which a query is compared with: tasks, or adapters.
        vectors: the mean embedding of each row's inputs, [rows, d].
        adapters: for each test task, and before them for any other, the adapter of each row by its place in the pool, or -1
            where the task's queries are not compared with that row; [1 + test tasks, rows].
        tasks: the test tasks.
        pool: names of all adapters.
        weighing: how similarities become weights.
        encoder: what embeds.
        encoder_name: by which that is opened again.
    """

    names: list[str]
    vectors: Array
    adapters: np.ndarray[Any, np.dtype[np.int64]]
    tasks: list[str]
    pool: list[str]
    weighing: Weighing
    encoder: Encoder
    encoder_name: EncoderName

    def of(self, task: str, texts: Sequence[str]) -> list[Mixture]:
        """Route queries.

        Args:
            task: that they are of; only what may not answer it depends on that.
            texts: the queries.

        Raises:
            DataError: if there is nothing to compare them with.
        """
        adapters = self.adapters[self.tasks.index(task) + 1 if task in self.tasks else 0]
        rows = np.flatnonzero(adapters >= 0)
        if not len(rows):
            raise DataError(f"task {task}: there is no task with examples to compare its queries with")
        order = [self.names[row] for row in rows]
        return [
            self._summed([(int(adapters[rows[row]]), weight) for row, weight in self.weighing(similar[rows].tolist(), order)])
            for similar in self._similar(texts)
        ]

    @cached_property
    def _compared(self) -> Array:
        return self.weighing.compared(self.vectors)

    def _similar(self, texts: Sequence[str]) -> Iterator[Array]:
        """The similarities of each query to all rows, rounded, so that equals are equal on any machine."""
        for first in range(0, len(texts), TEXTS):
            queries = embed(self.encoder, texts[first : first + TEXTS])
            yield from (_unit(queries) @ self._compared.T).round(6)

    def _summed(self, weighed: Sequence[tuple[int, float]]) -> Mixture:
        """The weights of rows with the same adapter add up."""
        weights: dict[int, float] = {}
        for place, weight in weighed:
            weights[place] = weights.get(place, 0.0) + weight
        return sorted(weights.items(), key=lambda each: (-each[1], self.pool[each[0]]))

    def save(self, path: Path) -> None:
        """Write them."""
        tensors: dict[str, np.ndarray[Any, Any]] = {"vectors": self.vectors, "adapters": self.adapters}
        if isinstance(self.encoder, TfIdfEncoder):
            tensors["idf"] = self.encoder.idf
        said = {name: getattr(self, name) for name in ("names", "tasks", "pool")}
        said |= {"weighing": asdict(self.weighing), "encoder": asdict(self.encoder_name)}
        save_file(tensors, path, {_KIND: json.dumps(said)})


def load_routes(path: Path, *, root: Path, device: str = "cpu") -> Routes:
    """Read what `Routes.save` wrote, and open the encoder.

    Args:
        path: of the file.
        root: what a relative folder of the encoder is relative to.
        device: where to run the encoder.

    Raises:
        ArtifactError: if the file cannot be read, or the encoder has changed since.
        DataError: if the encoder cannot be loaded.
    """
    with reading(path), safe_open(path, "numpy") as file:
        said = json.loads(file.metadata()[_KIND])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        weighing, name = Weighing(**said["weighing"]), EncoderName(**said["encoder"])
    return Routes(
        names=said["names"],
        vectors=tensors["vectors"],
        adapters=tensors["adapters"],
        tasks=said["tasks"],
        pool=said["pool"],
        weighing=weighing,
        encoder=name.open(tensors, path.parent, root=root, device=device),
        encoder_name=name,
    )


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
