"""The index has training tasks by the mean embedding of their inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import INDEX
from mhrctl.artifacts.reading import reading
from mhrctl.data.similarity import Array, Encoder, SentenceEncoder, TfIdfEncoder, cosines
from mhrctl.errors import ArtifactError, DataError


@dataclass(frozen=True)
class Index:
    """An index holds training tasks and their vectors.

    Attributes:
        tasks: names.
        vectors: the mean embedding of each task's inputs, [tasks, d].
        encoder: what embeds.
    """

    tasks: list[str]
    vectors: Array
    encoder: Encoder

    def nearest(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return all tasks with their similarity to the mean of some texts, the most similar first.

        Raises:
            DataError: if the encoder gives the texts a vector that is not finite.
        """
        vector: Array = self.encoder.encode(texts).mean(0)
        if not np.isfinite(vector).all():
            raise DataError(f"encoder {self.encoder.identity}: gives {texts[0][:40]!r} ... a vector that is not finite")
        return self._ranked(vector)

    def nearest_to(self, task: str) -> list[tuple[str, float]]:
        """Return all other tasks with their similarity to one of the tasks, the most similar first."""
        return [(name, cosine) for name, cosine in self._ranked(self.vectors[self.tasks.index(task)]) if name != task]

    def _ranked(self, vector: Array) -> list[tuple[str, float]]:
        similar = cosines(vector, self.vectors).round(6).tolist()  # so that equals are equal whatever the machine
        return sorted(zip(self.tasks, similar, strict=True), key=lambda pair: -pair[1])


def load_index(folder: Path, *, root: Path, device: str = "cpu") -> Index:
    """Open what the index stage wrote, with its encoder.

    Args:
        folder: the output folder.
        root: what a relative folder of the encoder is relative to.
        device: where to run the encoder.

    Raises:
        ArtifactError: if there is no index, or a number in it is not finite, or its encoder has changed since.
        DataError: if the encoder cannot be loaded.
    """
    card = read_card(folder, stage="index", command="mhrctl index")
    with reading(folder / INDEX), safe_open(folder / INDEX, "numpy") as file:
        tasks: list[str] = json.loads(file.metadata()["tasks"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        vectors = tensors["vectors"]
    if bad := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise ArtifactError(f"{folder / INDEX}: {', '.join(bad)} hold NaN or infinity; run `mhrctl index --force`")
    known: Encoder
    if "idf" in tensors:
        known = TfIdfEncoder(tensors["idf"])
    else:
        known = SentenceEncoder(_place(card.params["encoder"], root), revision=card.params["revision"], device=device)
        if known.identity != card.facts.encoder:
            raise ArtifactError(f"{folder}: made with another encoder ({card.facts.encoder}); run `mhrctl index`")
    return Index(tasks, vectors, known)


def _place(encoder: str, root: Path) -> str:
    folder = root / encoder
    return str(folder) if folder.is_dir() else encoder
