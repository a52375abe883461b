"""index: what it writes, and a change of its encoder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mhrctl.artifacts.hashing import digest
from mhrctl.data.examples import Examples
from mhrctl.data.index import load_index
from mhrctl.data.similarity import TfIdfEncoder
from mhrctl.errors import ArtifactError
from tests.conftest import Run
from tests.data.test_similarity import minilm


def test_the_index_has_the_mean_vector_of_every_training_task(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    folder = copy / "data/index"
    known = load_index(folder, root=copy)
    assert known.tasks == ["copy", "first", "last"]
    rows = Examples.read(copy / "data/prepare/training_tasks.parquet").of(tasks=["first"], split="train")
    np.testing.assert_allclose(known.vectors[1], known.encoder.encode(rows.column("prompt")).mean(0), atol=1e-6)
    assert sorted(load_file(folder / "index.safetensors")) == ["idf", "vectors"]
    card = json.loads((folder / "card.json").read_text())
    assert card["facts"]["encoder"] == "tfidf (no model: hashed words and pairs of words)"
    before = (folder / "index.safetensors").read_bytes()
    assert run("index", "--force", "-C", copy) == 0
    assert (folder / "index.safetensors").read_bytes() == before


def test_a_sentence_encoder_in_a_folder_of_the_project(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(minilm(), copy / "encoder")
    options = ("--set", "index.encoder=encoder", "-C", copy)
    assert run("index", *options) == 0
    known = load_index(copy / "data/index", root=copy)
    assert known.vectors.shape == (3, 384)
    assert run("pretrain", "-m", "adapter_soup", "-C", copy) == 0
    assert run("adapt", "-m", "adapter_soup", "-C", copy) == 0
    assert (copy / "data/adapt/adapter_soup-s0/soup.csv").read_text().startswith("task,training_task,cosine\nswap,")
    (copy / "encoder/README.md").write_text("changed")
    with pytest.raises(ArtifactError, match="made with another encoder"):
        load_index(copy / "data/index", root=copy)
    capfd.readouterr()
    assert run("index", "--set", "index.encoder=nobody/no-such-model", "-C", copy) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_as_many_examples_as_asked_count_evenly_spread_and_the_card_names_its_parents(copy: Path, run: Run) -> None:
    assert run("index", "--set", "index.examples=2", "-C", copy) == 0
    known = load_index(copy / "data/index", root=copy)
    file = copy / "data/prepare/training_tasks.parquet"
    prompts = Examples.read(file).of(tasks=["first"], split="train").column("prompt")
    assert len(prompts) > 2
    chosen = [prompts[0], prompts[len(prompts) // 2]]
    np.testing.assert_allclose(known.vectors[1], known.encoder.encode(chosen).mean(0), atol=1e-6)
    card = json.loads((copy / "data/index/card.json").read_text())
    assert card["parents"] == {"examples": digest(file), "tasks": digest(file.with_name("tasks.json"))}


def test_an_encoder_that_gives_no_numbers_is_refused(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TfIdfEncoder, "encode", lambda _self, texts: np.full((len(texts), 3), np.nan, np.float32))
    assert run("index", "-C", copy) == 2
    error = capfd.readouterr().err
    assert re.search(r"error: index\.encoder tfidf \(.*\): gives '.+' a vector that is not finite; set another\n", error)
    assert not (copy / "data/index").exists()
