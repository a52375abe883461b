"""Samples of a pool are inputs that its adapters were trained on, by which they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mhrctl.artifacts.names import SAMPLES
from mhrctl.artifacts.reading import reading


def write_samples(samples: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Write {adapter: inputs} into the output of a pool, if there are any."""
    if not samples:
        return
    rows = [(name, text) for name, texts in samples.items() for text in texts]
    table = pa.table({"adapter": [name for name, _ in rows], "input": [text for _, text in rows]})
    pq.write_table(table, folder / SAMPLES, compression="zstd")


def read_samples(folder: Path, most: int) -> dict[str, list[str]]:
    """Return {adapter: inputs, at most so many, evenly spread} of a pool; nothing of one without samples."""
    path, samples = folder / SAMPLES, dict[str, list[str]]()
    if not path.exists():
        return samples
    with reading(path):
        rows = pq.read_table(path).to_pylist()
    for row in rows:
        samples.setdefault(row["adapter"], []).append(row["input"])
    return {name: [texts[place] for place in spread(len(texts), most)] for name, texts in samples.items()}


def spread(count: int, most: int) -> list[int]:
    """Return places of `count` things, `most` of them at most, evenly spread."""
    taken = min(most, count)
    places: list[int] = (np.arange(taken) * count // max(1, taken)).tolist()
    return places
