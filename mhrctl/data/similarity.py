"""Tasks are compared by their inputs: sentence embeddings, or TF-IDF where there is no model (docs/recipe.md, section 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mhrctl.adapters.finite import require_finite
from mhrctl.artifacts.hashing import digest
from mhrctl.data.loading import loading, require_report
from mhrctl.errors import DataError
from mhrctl.hub import did_you_mean, fetching

TFIDF = "tfidf"
FEATURES = 2**14
"""Hashed words and pairs of words that TF-IDF counts."""

Array = np.ndarray[Any, np.dtype[np.float32]]


class Encoder(Protocol):
    """An encoder turns texts into vectors.

    Attributes:
        identity: what a card says of it.
    """

    identity: str

    def encode(self, texts: Sequence[str]) -> Array:
        """Return vectors of unit length, [texts, d]."""


def embed(encoder: Encoder, texts: Sequence[str]) -> Array:
    """Return the vectors of texts, [texts, d].

    Raises:
        DataError: if one is not finite; names its text.
    """
    vectors = encoder.encode(texts)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(f"encoder {encoder.identity}: gives {texts[bad[0]][:40]!r} a vector that is not finite; set another")
    return vectors


class TfIdfEncoder:
    """This encoder counts words and pairs of words by hash, weighted by rarity: it needs no model, and is the same everywhere.

    Attributes:
        idf: the weights, [d].
    """

    identity = f"{TFIDF} (no model: hashed words and pairs of words)"

    def __init__(self, idf: Array) -> None:
        self.idf = idf

    @classmethod
    def fit(cls, texts: Sequence[str]) -> TfIdfEncoder:
        """Learn how rare words are; of no texts, all are as rare."""
        if not texts:
            return cls(np.ones(FEATURES, np.float32))
        from sklearn.feature_extraction.text import TfidfTransformer

        return cls(TfidfTransformer().fit(_counts(texts)).idf_.astype(np.float32))

    def encode(self, texts: Sequence[str]) -> Array:
        """Return vectors of unit length, [texts, d]."""
        from sklearn.preprocessing import normalize

        vectors: Array = normalize(_counts(texts).multiply(self.idf).tocsr()).toarray().astype(np.float32)
        return vectors


class SentenceEncoder:
    """This encoder is a sentence-transformers model."""

    def __init__(self, name: str, *, revision: str, device: str) -> None:
        """Load the model; no code of its repository is run, and its transformer is read from safetensors only.

        Args:
            name: hub id or folder.
            revision: on the hub.
            device: where to run it.

        Raises:
            DataError: if there is no such model.
        """
        folder = Path(name)
        local = folder.is_dir()
        if not local and (folder.is_absolute() or name.startswith(".")):
            raise DataError(f"encoder {name!r}: no such folder")
        if local and not (folder / "modules.json").exists():
            raise DataError(f"encoder {name!r}: not a sentence-transformers model (no modules.json)")
        self.identity = f"folder sha256:{digest(folder)}" if local else f"{name}@{revision}"
        asked = None if local else revision
        hint = did_you_mean(name)
        way_out = f"set index.encoder to a folder, or to `{TFIDF}`, which needs no model"
        with (
            loading(f"encoder {name!r}", hint=f"{hint}{' ' if hint else ''}`{TFIDF}` needs no model"),
            fetching(name, what=f"encoder {name!r}", way_out=way_out, files=("modules.json",), revision=asked),
        ):
            from sentence_transformers import SentenceTransformer  # which takes seconds

            self._model = SentenceTransformer(
                name,
                revision=asked,
                device=device,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
            _require_whole(self._model, name, revision=asked, folder=folder if local else None)

    def encode(self, texts: Sequence[str]) -> Array:
        """Return vectors of unit length, [texts, d]."""
        vectors: Array = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        ).astype(np.float32)
        return vectors


def _require_whole(model: Any, name: str, *, revision: str | None, folder: Path | None) -> None:  # noqa: ANN401
    """Check that all weights of a sentence-transformers model were in its files, and are finite.

    Raises:
        DataError: if transformers would have made some up.
    """
    where = f"encoder {name!r}"
    transformer = getattr(next(iter(model), None), "auto_model", None)
    if transformer is None:  # its first module is no model of transformers
        return
    if folder:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        name = str(folder / modules[0]["path"])
    _, report = type(transformer).from_pretrained(
        name,
        revision=revision,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    # A pooler, which gives sentence-transformers nothing, is in some checkpoints and not in others.
    used = {kind: [key for key in keys if not str(key).startswith("pooler.")] for kind, keys in report.items()}
    require_report(used, where, roots={part for part, _ in transformer.named_children()})
    require_finite(model.state_dict(), where)


def cosines(vector: Array, others: Array) -> Array:
    """Compute the cosine of a vector [d] with each of others [n, d], [n]; 0 where one of them is 0."""
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(vector)
    similar: Array = np.divide(others @ vector, lengths, out=np.zeros(len(others), np.float32), where=lengths > 0)
    return similar


def select(similarities: Sequence[float], *, top: int, min_cosine: float) -> list[int]:
    """Choose what AdapterSoup averages: the most similar, at most `top`, at least `min_cosine`; the best one always.

    Returns:
        Places, the most similar first; of equals the earlier.
    """
    order = sorted(range(len(similarities)), key=lambda place: -similarities[place])[:top]
    return order[:1] + [place for place in order[1:] if similarities[place] >= min_cosine]


def _counts(texts: Sequence[str]) -> Any:  # noqa: ANN401 - a scipy matrix
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm=None, ngram_range=(1, 2)).transform(texts)
