"""The index has training tasks by the mean embedding of their inputs, and what embeds these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from mhrctl.artifacts.cards import Card, read_card
from mhrctl.artifacts.facts import IndexFacts
from mhrctl.artifacts.names import INDEX
from mhrctl.artifacts.reading import reading
from mhrctl.data.similarity import Array, Encoder, SentenceEncoder, TfIdfEncoder, cosines, embed
from mhrctl.errors import ArtifactError, DataError, listed

NAMED = 5
"""Adapters that a message names."""


@dataclass(frozen=True)
class EncoderName:
    """This says which encoder made vectors, so that whoever reads them can open it again.

    Attributes:
        name: `tfidf`, a hub id, or a folder, as params.yaml has it.
        revision: on the hub.
        identity: what the encoder said of itself.
    """

    name: str
    revision: str
    identity: str

    def open(self, tensors: Mapping[str, Array], folder: Path, *, root: Path, device: str) -> Encoder:
        """Load the encoder.

        Args:
            tensors: that stand beside the vectors: of TF-IDF its weights, `idf`.
            folder: where they stand.
            root: what a relative folder of the encoder is relative to.
            device: where to run it.

        Raises:
            ArtifactError: if it has changed since.
            DataError: if it cannot be loaded.
        """
        if "idf" in tensors:
            return TfIdfEncoder(tensors["idf"])
        encoder = SentenceEncoder(place_of(self.name, root), revision=self.revision, device=device)
        if encoder.identity != self.identity:
            raise ArtifactError(f"{folder}: made with another encoder ({self.identity}); run `mhrctl index`")
        return encoder


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

    def of_pool(self, names: Sequence[str], samples: Mapping[str, Sequence[str]]) -> Index:
        """Return an index of a pool's adapters by their own samples, or else by the training tasks whose names they bear.

        Args:
            names: of the adapters.
            samples: {adapter: inputs that it was trained on}, of those that have any.

        Raises:
            DataError: if there is nothing to know the inputs of an adapter by.
        """
        places = {task: place for place, task in enumerate(self.tasks)}
        if bare := [name for name in names if name not in samples and name not in places]:
            raise DataError(
                f"pool: there are no samples of {listed(bare, NAMED)}, nor training tasks of these names; name a file of"
                " `samples` in the list that `mhrctl import --pool` reads"
            )
        vectors = [self.mean(samples[name]) if name in samples else self.vectors[places[name]] for name in names]
        return Index(list(names), np.stack(vectors), self.encoder)

    def mean(self, texts: Sequence[str]) -> Array:
        """Return the mean embedding of some texts, [d].

        Raises:
            DataError: if the encoder gives the texts a vector that is not finite.
        """
        vector: Array = embed(self.encoder, texts).mean(0)
        return vector

    def nearest(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return all tasks with their similarity to the mean of some texts, the most similar first.

        Raises:
            DataError: if the encoder gives the texts a vector that is not finite.
        """
        return self._ranked(self.mean(texts))

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
    return Index(tasks, vectors, encoder_of(card).open(tensors, folder, root=root, device=device))


def encoder_of(card: Card[IndexFacts]) -> EncoderName:
    """Return which encoder an index was made with."""
    return EncoderName(card.params["encoder"], card.params["revision"], card.facts.encoder)


def place_of(encoder: str, root: Path) -> str:
    """Return the folder of an encoder if that is one, else its name."""
    folder = root / encoder
    return str(folder) if folder.is_dir() else encoder
