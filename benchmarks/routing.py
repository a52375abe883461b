"""What it costs to route a batch of queries over a pool, as the pool grows: to embed, compare, compose and answer them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from benchmarks.results import Measured, Row
from benchmarks.shapes import SHAPES, new_backbone, new_samples
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.adapters import files
from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import Pool, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.data.batches import collate
from mhrctl.data.examples import Sample
from mhrctl.data.index import EncoderName
from mhrctl.data.routes import Routes, Weighing
from mhrctl.data.similarity import TfIdfEncoder
from mhrctl.evaluation.prediction import own_rows
from mhrctl.evaluation.router import Router
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject

TASKS = 64
"""That queries are compared with, where tasks have the adapters."""
WORDS, LENGTH = 2000, 30
"""Words that there are, and of a text."""
TEXTS = 20
"""Inputs of a task, or of an adapter."""
TOP_K = 3


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shape: a name of `SHAPES`, whose rows are the queries.
        pools: adapters, from few to many.
        rank: of each.
        repetitions: of a batch.
    """

    shape: str
    pools: Sequence[int]
    rank: int
    repetitions: int


PLANS = {False: Plan("tiny", (10, 100, 1000), 1, 9), True: Plan("tiny", (10, 100), 1, 3)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time a forward pass of a batch with one adapter, and the same routed over pools that are mapped from disk."""
    shape = SHAPES[plan.shape]
    backbone = new_backbone(shape).eval()
    shapes = inject(backbone, "full")
    samples, texts = new_samples(shape, shape.rows), _texts(shape.rows, seed=1)

    def answered(adapter: Adapter, samples: Sequence[Sample]) -> Tensor:
        batch = collate(samples, own_rows(adapter.runs))
        with torch.no_grad():
            losses: Tensor = AdaptedModel(backbone, adapter).eval()(batch.task_ids, batch.inputs, batch.targets)
        return losses

    def routed(router: Router) -> Callable[[], None]:
        def step() -> None:
            for places, adapter in router.composed(["any"] * len(texts), texts):
                answered(adapter, [samples[place] for place in places])

        return step

    with TemporaryDirectory() as folder:
        largest = Path(folder) / "pool.safetensors"
        save_adapter(Inventory(shapes, InventoryConfig(rank=plan.rank), runs=max(plan.pools)), largest)
        steps: dict[str, Callable[[], object]] = {}
        for size in plan.pools:
            for method, rows in (("lorauter", TASKS), ("lora_retriever", size)):
                steps[f"{method}, {size:,} adapters"] = routed(Router(_routes(rows, size), _mapped(largest)))
        one = _mapped(largest).first
        steps["one adapter"] = lambda: answered(one, samples)
        times = interleave(steps, repetitions=plan.repetitions)
    rows_of = [
        Row(f"batch of {shape.rows} queries, {name} / {other}", ratio(times[name], times[other]))
        for name, other in _pairs(plan.pools)
    ]
    return Measured(rows_of, milliseconds(times))


def _pairs(pools: Sequence[int]) -> list[tuple[str, str]]:
    """(what is timed, against what)."""
    pairs = []
    for method in ("lorauter", "lora_retriever"):
        named = [f"{method}, {size:,} adapters" for size in pools]
        pairs += [(name, "one adapter") for name in named]
        pairs += [(named[-1], named[0])]
    return pairs


def _mapped(path: Path) -> Pool:
    """A pool of which a batch reads what it uses."""
    kept, files.IN_MEMORY = files.IN_MEMORY, 0
    try:
        return Pool(path)
    finally:
        files.IN_MEMORY = kept


def _texts(count: int, *, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(0, WORDS, LENGTH)) for _ in range(count)]


def _routes(rows: int, pool: int) -> Routes:
    """Routes over rows of random words, each with an adapter of the pool."""
    encoder = TfIdfEncoder.fit(_texts(TEXTS, seed=0))
    return Routes(
        names=[f"row {row}" for row in range(rows)],
        vectors=np.stack([encoder.encode(_texts(TEXTS, seed=row + 2)).mean(0) for row in range(rows)]),
        adapters=np.arange(rows)[None] * 7 % pool,
        tasks=[],
        pool=[f"adapter {place}" for place in range(pool)],
        weighing=Weighing(TOP_K, temperature=0.2),
        encoder=encoder,
        encoder_name=EncoderName("tfidf", "main", encoder.identity),
    )
