"""The stage `index` holds the training tasks by the mean embedding of their inputs, to choose from a pool by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import IndexFacts
from mhrctl.artifacts.names import INDEX, TRAINING_EXAMPLES
from mhrctl.artifacts.reading import reading
from mhrctl.artifacts.writing import writing
from mhrctl.data.index import place_of
from mhrctl.data.similarity import TFIDF, Array, Encoder, SentenceEncoder, TfIdfEncoder, embed
from mhrctl.data.table import training_data_sets
from mhrctl.errors import in_section
from mhrctl.progress import Track, silent


def index(
    *,
    encoder: str,
    revision: str,
    examples: int,
    prepared: Path,
    root: Path,
    out: Path,
    device: str = "cpu",
    track: Track = silent,
) -> Card[IndexFacts]:
    """Write `index.safetensors` into `out`: the mean vector of every training task or data set, and their names.

    Without training tasks it holds the encoder alone, by which a pool's samples and queries are compared; `tfidf` then knows of
    no word that is rarer than another.

    Args:
        encoder: `tfidf`, or a sentence-transformers model: hub id, or a folder.
        revision: of an encoder on the hub.
        examples: training inputs of a task at most, from all templates of a data set alike.
        prepared: output of the prepare stage.
        root: what a relative folder of the encoder is relative to.
        out: the output folder.
        device: where to run the encoder.
        track: shows progress.

    Raises:
        DataError: if the encoder cannot be loaded, or gives vectors that are not finite.
    """
    parent = read_card(prepared, stage="prepare", command="mhrctl prepare")
    prompts = _prompts(prepared / TRAINING_EXAMPLES, training_data_sets(prepared), examples)
    tensors: dict[str, Array] = {}
    if encoder == TFIDF:
        fitted = TfIdfEncoder.fit([text for texts in prompts.values() for text in texts])
        tensors["idf"] = fitted.idf
        known: Encoder = fitted
    else:
        with in_section("index"):
            known = SentenceEncoder(place_of(encoder, root), revision=revision, device=device)
    with track("index", len(prompts)) as bar:
        vectors = []
        for task, texts in prompts.items():
            with in_section("index"):
                vectors.append(embed(known, texts).mean(0))
            bar.advance(note=task)
    tensors["vectors"] = np.stack(vectors) if vectors else known.encode([""])[:0]
    facts = IndexFacts(suite=parent.facts.suite, tasks=list(prompts), encoder=known.identity)
    with writing(out) as folder:
        save_file(tensors, folder / INDEX, {"tasks": json.dumps(list(prompts))})
        made = provenance.of_index(encoder, revision, examples, prepared=prepared, root=root)
        card = made.card(facts, threads=_threads(device) if made.rounds else None)
        write_card(folder, card)
    return card


def _threads(device: str) -> int | None:
    """The CPU threads of a sentence encoder; None if it runs elsewhere."""
    import torch  # which words alone do without

    return torch.get_num_threads() if torch.device(device).type == "cpu" else None


def _prompts(path: Path, data_sets: Mapping[str, Sequence[str]], most: int) -> dict[str, list[str]]:
    """{data set: its training inputs, at most so many, evenly spread over all}; the file is read a row group at a time."""
    with reading(path):
        return _spread(path, data_sets, most)


def _spread(path: Path, data_sets: Mapping[str, Sequence[str]], most: int) -> dict[str, list[str]]:
    labels = pq.read_table(path, columns=["task", "split"])
    is_train = pc.equal(labels["split"], "train").to_numpy()
    chosen: dict[str, list[int]] = {}
    for name, tasks in data_sets.items():
        rows = np.flatnonzero(is_train & pc.is_in(labels["task"], pa.array(tasks)).to_numpy())
        chosen[name] = rows[np.arange(min(most, len(rows))) * len(rows) // min(most, len(rows))].tolist()
    texts: dict[int, str] = {}
    wanted = np.array(sorted(row for rows in chosen.values() for row in rows))
    file, start = pq.ParquetFile(path, memory_map=True), 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        rows = wanted[(wanted >= start) & (wanted < end)]
        if len(rows):
            column = file.read_row_group(group, columns=["prompt"])["prompt"]
            texts.update(zip(rows.tolist(), column.take(pa.array(rows - start)).to_pylist(), strict=True))
        start = end
    return {name: [texts[row] for row in rows] for name, rows in chosen.items()}
