"""Routes: similarities become weights, rows with one adapter add up, and what may not be used is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mhrctl.data import routes as module
from mhrctl.data.index import EncoderName
from mhrctl.data.routes import Routes, Weighing, load_routes
from mhrctl.data.similarity import TfIdfEncoder, cosines
from mhrctl.errors import DataError

TEXTS = {"ants": ["ant ant", "ant bee"], "cats": ["cat dog"], "elks": ["elk fox", "elk"]}
QUERIES = ["ant cat", "elk", "dog bee fox"]


def made(*, top_k: int = 2, adapters: list[list[int]] | None = None, weighing: Weighing | None = None) -> Routes:
    encoder = TfIdfEncoder.fit([text for texts in TEXTS.values() for text in texts])
    vectors = np.stack([encoder.encode(texts).mean(0) for texts in TEXTS.values()])
    return Routes(
        names=list(TEXTS),
        vectors=vectors,
        adapters=np.array(adapters or [[0, 1, 2]]),
        tasks=["new"] if adapters and len(adapters) > 1 else [],
        pool=["a", "b", "c"],
        weighing=weighing or Weighing(top_k, temperature=0.2),
        encoder=encoder,
        encoder_name=EncoderName("tfidf", "main", encoder.identity),
    )


def test_weights_are_a_softmax_of_the_nearest_cosines() -> None:
    routes = made()
    for query, mixture in zip(QUERIES, routes.of("any", QUERIES), strict=True):
        similar = cosines(routes.encoder.encode([query])[0], routes.vectors)
        nearest = np.argsort(-similar, kind="stable")[:2]
        powers = np.exp(similar[nearest] / 0.2)
        assert [place for place, _ in mixture] == nearest.tolist()
        assert [weight for _, weight in mixture] == pytest.approx((powers / powers.sum()).tolist(), abs=1e-5)


def test_a_softmax_over_all_leaves_weight_to_those_that_are_not_near() -> None:
    similar, names = [0.9, 0.1, 0.5], ["x", "y", "z"]
    powers = np.exp(np.array(similar) / 0.2)
    weighed = dict(Weighing(2, temperature=0.2, softmax="all")(similar, names))
    assert weighed == {0: pytest.approx(powers[0] / powers.sum()), 2: pytest.approx(powers[2] / powers.sum())}
    assert sum(weighed.values()) < 1
    assert sum(weight for _, weight in Weighing(2, temperature=0.2)(similar, names)) == pytest.approx(1)


def test_without_a_temperature_all_are_alike_and_equals_go_by_name() -> None:
    assert Weighing(3)([0.5, 0.5, 0.2, 0.5], ["d", "b", "a", "c"]) == [(1, 1 / 3), (3, 1 / 3), (0, 1 / 3)]
    assert Weighing(9)([0.5], ["d"]) == [(0, 1.0)]


def test_a_product_leaves_the_length_of_a_mean() -> None:
    short, query = np.array([[0.5, 0.0], [0.6, 0.6]], np.float32), np.array([[1.0, 0.0]], np.float32)
    assert (query @ Weighing(1, "product").compared(short).T)[0].tolist() == pytest.approx([0.5, 0.6])
    assert (query @ Weighing(1).compared(short).T)[0].tolist() == pytest.approx([1.0, 0.5**0.5], abs=1e-6)


def test_rows_with_the_same_adapter_add_up() -> None:
    apart, together = made(top_k=3), made(top_k=3, adapters=[[1, 1, 0]])
    for separate, summed in zip(apart.of("any", QUERIES), together.of("any", QUERIES), strict=True):
        weights = dict(separate)
        assert dict(summed) == {1: pytest.approx(weights[0] + weights[1]), 0: pytest.approx(weights[2])}
        assert sum(dict(summed).values()) == pytest.approx(1)


def test_a_test_task_has_rows_of_its_own_and_lacks_others() -> None:
    routes = made(top_k=1, adapters=[[0, 1, -1], [-1, 1, 2]])
    assert routes.of("new", ["ant", "elk"]) == [[(1, 1.0)], [(2, 1.0)]]
    assert routes.of("any", ["ant", "elk"]) == [[(0, 1.0)], [(0, 1.0)]]


def test_there_is_nothing_to_compare_a_query_with() -> None:
    with pytest.raises(DataError, match="task any: there is no task with examples to compare its queries with"):
        made(adapters=[[-1, -1, -1], [0, 1, 2]]).of("any", ["ant"])


def test_they_come_back_from_a_file(tmp_path: Path) -> None:
    routes = made(adapters=[[0, 1, -1], [-1, 1, 2]], weighing=Weighing(2, "product", 0.1, "all"))
    routes.save(tmp_path / "routes.safetensors")
    again = load_routes(tmp_path / "routes.safetensors", root=tmp_path)
    assert (again.names, again.tasks, again.pool, again.weighing) == (routes.names, ["new"], ["a", "b", "c"], routes.weighing)
    assert again.encoder_name == routes.encoder_name
    for task in ("new", "any"):
        assert again.of(task, QUERIES) == routes.of(task, QUERIES)


def test_how_many_are_embedded_at_a_time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made().of("any", QUERIES)
    monkeypatch.setattr(module, "TEXTS", 2)
    assert made().of("any", QUERIES) == whole


def test_the_order_of_the_rows_and_of_the_pool_does_not_matter() -> None:
    routes = made(top_k=3)
    turned = replace(
        routes, names=routes.names[::-1], vectors=routes.vectors[::-1], adapters=np.array([[0, 1, 2]]), pool=["c", "b", "a"]
    )
    for mixture, other in zip(routes.of("any", QUERIES), turned.of("any", QUERIES), strict=True):
        named, others = (
            [(each.pool[place], weight) for place, weight in mixed] for each, mixed in ((routes, mixture), (turned, other))
        )
        assert [name for name, _ in named] == [name for name, _ in others]
        assert [weight for _, weight in named] == pytest.approx([weight for _, weight in others], abs=1e-5)


def test_an_encoder_that_gives_nan_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = made()
    monkeypatch.setattr(routes.encoder, "encode", lambda texts: np.full((len(texts), 4), np.nan, np.float32))
    with pytest.raises(DataError, match=r"encoder tfidf .* gives 'ant' a vector that is not finite"):
        routes.of("any", ["ant"])
