"""Greedy answers of the loop of our own are the tokens of transformers' `generate`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.scales import Scales
from mhrctl.data.batches import Ragged
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.speed import Speed
from mhrctl.models.t5 import greedy
from tests.models.t5.test_model import adapter_of, backbone

LENGTHS = [9, 4, 17, 1, 12, 12, 6, 3]
OWNERS = [0, 0, 0, 1, 3, 3, 3, 3]
"""Groups of unequal rows, of which one has none."""
TASKS = torch.tensor([[2], [0], [1], [3]])
"""The routing row of each group."""
ENDS = [1, 5, 11, 23, 24, 31, 38, 42]
"""So many that answers end at different steps."""


def inputs(lengths: list[int] = LENGTHS) -> Ragged:
    torch.manual_seed(1)
    return Ragged(torch.randint(2, 50, (sum(lengths),)), tuple(lengths))


def scales(shapes: Any) -> Adapter:
    made = Scales(shapes, runs=4)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, 0.3, 1.7)
    return made


ADAPTERS: dict[str, Any] = {
    "none": lambda _: None,
    "mhr": lambda shapes: adapter_of(shapes, heads=2, runs=4),
    "rank 3": lambda shapes: adapter_of(shapes, rank=3, skills=1, runs=4),
    "shared": lambda shapes: adapter_of(shapes, rank=2, skills=1),
    "rows of a routing": lambda shapes: adapter_of(shapes, heads=4),
}


def answers(model: AdaptedModel, task_ids: Tensor | None, rows: Ragged, *, most: int) -> tuple[list[list[int]], Tensor]:
    answering = model.greedy(task_ids)
    assert answering is not None
    tokens, finite = answering(rows, OWNERS, ends=ENDS, max_new_tokens=most)
    return [without_padding(row) for row in tokens.tolist()], finite


def without_padding(row: list[int]) -> list[int]:
    return row[: next((place + 1 for place, token in enumerate(row) if token in ENDS), len(row))]


def alone(model: AdaptedModel, rows: Ragged, task_ids: Tensor | None, *, most: int) -> list[list[int]]:
    """Each row by `generate`, without any other."""
    plain = AdaptedModel(model.backbone, model.adapter, speed=Speed(forward=False))
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": most, "eos_token_id": ENDS, "num_beams": 1}
    given = []
    for ids, owner in zip(rows.tokens.split(list(rows.lengths)), OWNERS, strict=True):
        adapter = model.adapter
        if adapter is not None and adapter.runs > 1:
            plain = AdaptedModel(model.backbone, adapter.select([owner]), speed=Speed(forward=False))
        row = None if task_ids is None else task_ids.view(-1, 1)[[owner]]
        (answer,) = plain.generate(row, Ragged(ids, (len(ids),)), **options).tolist()
        given.append(without_padding(answer))
    return given


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_answers_are_those_of_each_row_alone(kind: str, feed_forward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though rows leave, and there is room for three tokens at first."""
    monkeypatch.setattr(greedy, "ROOM", 3)
    model: Any = backbone(feed_forward)
    model.config.scale_decoder_outputs = feed_forward == "relu"
    adapter = ADAPTERS[kind](inject(model, "full"))
    task_ids = None if adapter is None else TASKS.view(1, -1) if kind == "rows of a routing" else TASKS
    adapted = AdaptedModel(model, adapter).eval()
    given, finite = answers(adapted, task_ids, inputs(), most=10)
    assert given == alone(adapted, inputs(), task_ids, most=10)
    assert finite.all()
    assert len(set(map(tuple, given))) > 1
    assert len({len(answer) for answer in given}) > 1


def test_scales_and_inputs_of_one_length() -> None:
    model: Any = backbone()
    adapted = AdaptedModel(model, scales(inject(model, "full"))).eval()
    rows = inputs([6] * len(OWNERS))
    given, _ = answers(adapted, TASKS, rows, most=8)
    assert given == alone(adapted, rows, TASKS, most=8)


def test_what_is_padded_and_how_long_answers_are() -> None:
    model: Any = backbone().requires_grad_(requires_grad=False)
    answering = AdaptedModel(model, None).eval().greedy(None)
    assert answering is not None
    tokens, _ = answering(inputs(), OWNERS, ends=ENDS, max_new_tokens=30)
    lengths = [len(without_padding(row)) for row in tokens.tolist()]
    assert tokens.shape == (len(OWNERS), max(lengths))
    assert all(not any(row[length:]) for row, length in zip(tokens.tolist(), lengths, strict=True))
    assert answering(inputs(), OWNERS, ends=[], max_new_tokens=40)[0].shape == (len(OWNERS), 40)


def test_rows_whose_logits_are_not_finite_are_told() -> None:
    model: Any = backbone()
    adapter = adapter_of(inject(model, "full"), runs=4)
    with torch.no_grad():
        for bank in (*adapter.lora_A, *adapter.lora_B):
            bank[3] *= 1e15
    _, finite = answers(AdaptedModel(model, adapter).eval(), TASKS, inputs(), most=4)
    assert finite.tolist() == [owner != 3 for owner in OWNERS]


def test_generate_is_left_what_the_loop_cannot_do() -> None:
    model: Any = backbone()
    adapter = adapter_of(inject(model, "full"), runs=4)
    assert AdaptedModel(model, adapter).eval().greedy(TASKS) is not None
    assert AdaptedModel(model, adapter, speed=Speed(forward=False)).eval().greedy(TASKS) is None
    assert AdaptedModel(model, adapter).train().greedy(TASKS) is None
    with torch.no_grad():
        adapter.lora_B[0][1].fill_(torch.nan)
    assert AdaptedModel(model, adapter).eval().greedy(TASKS) is None
    model.generation_config.repetition_penalty = 1.5
    assert AdaptedModel(model, None).eval().greedy(None) is None
    model.generation_config.repetition_penalty, model.generation_config.length_penalty = 1.0, 2.0
    assert AdaptedModel(model, None).eval().greedy(None) is not None
    assert AdaptedModel(model.to(torch.bfloat16), None).eval().greedy(None) is None
