"""Frozen weights that two processes share: each holds half, and losses and gradients are those of the whole model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from mhrctl.errors import ParamsError
from mhrctl.models.sharding import blocks, divided_axis, is_sharded, shard, with_weights
from mhrctl.models.speed import Sharding
from tests.models.families import DECODERS, ENCODER_DECODERS, decoder, encoder_decoder
from tests.models.sharded import Case

ROOT = Path(__file__).parents[2]
CASES = {
    "t5": Case("t5"),
    "t5, blocks run again in backward": Case("t5", {"checkpointing": True}),
    "t5 of transformers": Case("t5", {"forward": False}),
    "t5 of transformers, some logits at a time": Case("t5", {"forward": False}, logits=200),
    "llama, packed": Case("llama", packs=True),
    "llama in bf16, some logits at a time": Case("llama", packs=True, dtype="bfloat16", logits=200),
    "gpt2, padded, blocks kept": Case("gpt2", reshards=False),
    "mixtral": Case("mixtral", packs=True),
    "t5, prompts read before": Case("t5", by_prompts=True),
    "llama, prompts read before": Case("llama", packs=True, by_prompts=True),
}
ROUNDED = {"t5 of transformers", "t5 of transformers, some logits at a time"}
"""Gradients of the encoder's states are summed in another order there: first those of a block's two uses of them."""


def outcomes(cases: list[Case], folder: Path, processes: int = 2) -> list[dict[str, Any]]:
    """Run cases in so many processes."""
    text, out = json.dumps([asdict(case) for case in cases]), folder / "out.json"
    command = [sys.executable, "-m", "tests.models.sharded", str(folder / "store")]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(processes), text, str(out)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for rank in range(processes)
    ]
    try:
        errors = [process.communicate(timeout=900)[1].decode() for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0] * processes, errors
    made: list[dict[str, Any]] = json.loads(out.read_text())
    return made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return dict(zip(CASES, outcomes(list(CASES.values()), tmp_path_factory.mktemp("sharded")), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_those_of_the_whole_model(shared: dict[str, dict[str, Any]], name: str) -> None:
    made = shared[name]
    assert made["scale"] > 1
    assert made["worst"] <= (1e-6 * made["scale"] if name in ROUNDED else 0)


@pytest.mark.parametrize("name", CASES)
def test_each_process_holds_half_of_the_weights(shared: dict[str, dict[str, Any]], name: str) -> None:
    made = shared[name]
    assert made["divided"]
    assert sum(made["held"]) == made["total"]
    assert all(0.48 < held / made["total"] < 0.52 for held in made["held"])


@pytest.mark.parametrize("name", CASES)
def test_slots_of_adapters_are_left_alone(shared: dict[str, dict[str, Any]], name: str) -> None:
    assert shared[name]["slots"]


@pytest.mark.slow
def test_every_family_can_be_divided_among_three(tmp_path: Path) -> None:
    cases = [*map(Case, ENCODER_DECODERS), *(Case(family, packs=True) for family in DECODERS)]
    cases += [Case("t5", {"packing": False}, reshards=False), Case("t5", dtype="bfloat16"), Case("bart", reshards=False)]
    for case, made in zip(cases, outcomes(cases, tmp_path, 3), strict=True):
        assert made["worst"] <= (1e-6 * made["scale"] if case.family in ENCODER_DECODERS else 0), case
        assert made["divided"]
        assert sum(made["held"]) == made["total"]
        assert max(made["held"]) < 0.45 * made["total"], case  # few experts are divided by whole ones where nothing else fits


def test_blocks_are_those_that_transformers_would_not_split() -> None:
    for family in (*ENCODER_DECODERS, *DECODERS):
        model = decoder(family) if family in DECODERS else encoder_decoder(family)
        kinds = [type(block).__name__ for block in blocks(model)]
        assert len(kinds) == (model.config.num_hidden_layers if family in DECODERS else 4), family
        if model._no_split_modules:  # Pegasus does not say
            assert set(kinds) <= set(model._no_split_modules), family


def test_short_axes_are_not_divided_where_another_fits() -> None:
    assert [divided_axis(shape, 2) for shape in ((32, 6), (33, 6), (3, 8, 6), (3, 7, 6), (3, 5, 7), (1,))] == [0, 0, 1, 2, 0, 0]
    assert divided_axis((8, 48, 32), 16) == 1


def test_what_is_not_sharded_is_called_as_it_is(tiny_t5: T5ForConditionalGeneration) -> None:
    assert not is_sharded(tiny_t5)
    assert with_weights(tiny_t5, lambda one, two: one - two, 5, 3) == 2


def test_only_frozen_weights_of_floating_point_numbers_are_divided(tiny_t5: T5ForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="only frozen weights"):
        shard(tiny_t5.requires_grad_(True), None, Sharding())  # type: ignore[arg-type]
    tiny_t5.requires_grad_(False)
    tiny_t5.lm_head.weight = nn.Parameter(torch.zeros(3, 3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ParamsError, match=r"^--shard: .* quantised"):
        shard(tiny_t5, None, Sharding())  # type: ignore[arg-type]
