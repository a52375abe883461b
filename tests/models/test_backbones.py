"""Backbones: what identifies them, where they are, and their shapes without storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import T5ForConditionalGeneration

from mhrctl.artifacts.cards import Card, read_card
from mhrctl.artifacts.facts import BackboneFacts
from mhrctl.errors import ArtifactError, DataError
from mhrctl.models.backbones import (
    T5_SIZES,
    fingerprint,
    is_tied,
    load_backbone,
    load_pretrained,
    location,
    open_backbone,
    pretrained_config,
    shape_model,
    sized_model,
)
from tests.conftest import mhrctl


def test_a_missing_model_is_one_line() -> None:
    with pytest.raises(DataError, match=r"backbone.name 'no/such': cannot be loaded"):
        load_pretrained("no/such", revision="main")


def test_a_fingerprint_is_of_names_shapes_dtypes_and_every_number(tiny_t5: T5ForConditionalGeneration) -> None:
    before = fingerprint(tiny_t5)
    assert fingerprint(tiny_t5) == before
    weight = tiny_t5.encoder.block[0].layer[0].SelfAttention.q.weight
    with torch.no_grad():
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    changed = fingerprint(tiny_t5)
    assert changed != before
    assert fingerprint(tiny_t5.to(dtype=torch.bfloat16)) not in (before, changed)  # type: ignore[call-arg]


def test_a_known_size_is_built_without_storage_and_untied() -> None:
    model = sized_model("t5-small")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not is_tied(model)
    assert 75e6 < model.num_parameters() < 78e6  # T5 v1.1 small has 77 million
    assert list(T5_SIZES) == ["t5-small", "t5-base", "t5-large", "t5-xl", "t5-xxl"]


def test_a_shape_has_the_names_of_the_model_and_its_tie(tiny_t5: T5ForConditionalGeneration) -> None:
    for tied in (True, False):
        shape = shape_model(tiny_t5.config, tied=tied)
        assert is_tied(shape) == tied
        assert [name for name, _ in shape.named_modules()] == [name for name, _ in tiny_t5.named_modules()]


def test_an_unknown_size_is_rejected_with_the_known() -> None:
    with pytest.raises(DataError, match=r"--backbone \(a size: t5-small, .*; or a config\) 't5-huge': cannot be loaded"):
        sized_model("t5-huge")


def test_a_config_that_is_no_encoder_decoders_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(DataError, match=r"a gpt2 model; an encoder-decoder \(T5 and kin\) is needed"):
        pretrained_config(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "place"),
    [("hub", "google/t5"), ("local", "data/backbone/../checkpoint"), ("scratch", "data/backbone")],
)
def test_the_weights_are_where_the_card_says(source: Literal["hub", "local", "scratch"], place: str) -> None:
    path = "../checkpoint" if source == "local" else None
    facts = BackboneFacts(
        source=source, name="google/t5", path=path, revision="main", parameters=1, tied_output=False, fingerprint="f"
    )
    card = Card(stage="backbone", version=1, params={}, parents={}, libraries={}, facts=facts)
    assert location(Path("data/backbone"), card) == place


def test_a_missing_backbone_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run `mhrctl backbone`"):
        load_backbone(tmp_path)


def test_an_adapter_of_another_backbone_is_rejected(copy: Path) -> None:
    folder = copy / "data/pretrain/lora-s0"
    card = read_card(folder, stage="pretrain", command="mhrctl pretrain")
    prepared, backbone = copy / "data/prepare", copy / "data/backbone"
    model, tokenizer = open_backbone(prepared, backbone, card, folder)
    assert fingerprint(model) == card.facts.backbone
    assert len(tokenizer) <= model.config.vocab_size
    assert mhrctl("backbone", "--set", "backbone.seed=1", "-C", copy) == 0
    with pytest.raises(ArtifactError, match="backbone"):
        open_backbone(prepared, backbone, card, folder)
    open_backbone(prepared, backbone, None, None)  # the bare one fits always
