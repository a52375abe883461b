"""The index of training tasks: what is nearest, and an index that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mhrctl.data.examples import Examples
from mhrctl.data.index import Index, load_index
from mhrctl.data.similarity import TfIdfEncoder
from mhrctl.errors import ArtifactError, DataError
from tests.conftest import Run


def test_a_task_is_nearest_to_the_texts_of_its_own(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    known = load_index(copy / "data/index", root=copy)
    for task in known.tasks:
        prompts = Examples.read(copy / "data/prepare/training_tasks.parquet").of(tasks=[task], split="train").column("prompt")
        assert known.nearest(prompts)[0][0] == task
        assert task not in dict(known.nearest_to(task))


def test_the_nearest_are_by_the_mean_of_all_texts(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    known = load_index(copy / "data/index", root=copy)
    prompts = Examples.read(copy / "data/prepare/training_tasks.parquet").of(tasks=["last"], split="train").column("prompt")
    assert dict(known.nearest(prompts))["last"] == pytest.approx(1, abs=1e-5)


def test_an_index_that_is_damaged_is_rejected(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    (copy / "data/index/index.safetensors").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"index.safetensors: has 1 bytes in place of .*; run `mhrctl index`"):
        load_index(copy / "data/index", root=copy)


def test_ranks_are_by_cosine_and_equals_keep_their_order() -> None:
    encoder = TfIdfEncoder.fit(["ant bee", "cat dog", "elk fox"])
    vectors = encoder.encode(["ant bee", "cat dog", "ant bee"])
    known = Index(["first", "other", "again"], vectors, encoder)
    assert [name for name, _ in known.nearest(["ant bee"])] == ["first", "again", "other"]
    assert known.nearest(["ant bee", "cat dog"])[0][1] == known.nearest(["ant bee", "cat dog"])[1][1] < 1
    assert known.nearest_to("again") == [("first", 1.0), ("other", 0.0)]


def test_a_pool_is_known_by_its_samples_or_by_names() -> None:
    encoder = TfIdfEncoder.fit(["ant bee", "cat dog", "elk fox"])
    known = Index(["insects", "pets"], encoder.encode(["ant bee", "cat dog"]), encoder)
    pool = known.of_pool(["pets", "game", "insects"], {"game": ["elk", "fox"], "insects": ["ant"]})
    assert pool.tasks == ["pets", "game", "insects"]
    means = [known.vectors[1], encoder.encode(["elk", "fox"]).mean(0), encoder.encode(["ant"])[0]]
    assert np.array_equal(pool.vectors, np.stack(means))
    with pytest.raises(
        DataError, match=r"pool: there are no samples of game, nor training tasks of these names; name a file of"
    ):
        known.of_pool(["pets", "game"], {})


def test_there_is_no_index_to_open(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no finished index output; run `mhrctl index`"):
        load_index(tmp_path / "index", root=tmp_path)


def test_vectors_that_are_not_finite_are_refused(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    known = load_index(copy / "data/index", root=copy)
    assert isinstance(known.encoder, TfIdfEncoder)
    known.encoder.encode = lambda texts: np.full((len(texts), 3), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"^encoder tfidf .*: gives 'ant bee' a vector that is not finite"):
        known.nearest(["ant bee"])
    path = copy / "data/index/index.safetensors"
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["vectors"][1, 2] = np.inf
    save_file(tensors, path, metadata)
    with pytest.raises(ArtifactError, match=r"index.safetensors"):
        load_index(copy / "data/index", root=copy)
