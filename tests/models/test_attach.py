"""Which layers are adapted, and what stays as it was."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.config.fields import compiles
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import BackboneParams, PretrainParams
from mhrctl.errors import ParamsError
from mhrctl.models.attach import attach, find_layers, inject, linear_shapes, new_adapter
from mhrctl.models.layer import AdaptedLinear
from mhrctl.models.layouts import LAYOUTS
from mhrctl.tools.estimate import backbone_shape
from tests.models.families import decoder, encoder_decoder


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        ("full", 18),
        ("light", 8),
        (["q", "v"], 6),
        (["encoder.block.0.layer.0.SelfAttention.q"], 1),
        (r"decoder\..*EncDecAttention\.[kv]", 2),
    ],
)
def test_targets(tiny_t5: T5ForConditionalGeneration, targets: str | list[str], count: int) -> None:
    assert len(find_layers(linear_shapes(tiny_t5), targets)) == count


def test_layers_keep_the_slots_that_they_have(tiny_t5: T5ForConditionalGeneration) -> None:
    """Two adapters are attached, one after the other, which have a part of their layers in common."""
    shapes = linear_shapes(tiny_t5)

    def adapter(*names: str) -> Adapter:
        return Inventory({name: shapes[name] for name in shapes if name.endswith(names)}, InventoryConfig())

    attach(tiny_t5, adapter(".q", ".k"))
    before = {name: module for name, module in tiny_t5.named_modules() if isinstance(module, AdaptedLinear)}
    attach(tiny_t5, adapter(".k", ".v"))
    after = {name: module for name, module in tiny_t5.named_modules() if isinstance(module, AdaptedLinear)}
    assert before.items() <= after.items()
    assert {name.rpartition(".")[2] for name in after} == {"q", "k", "v"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q", "c_attn"], r"no linear layer is named 'c_attn' \(there are: k, lm_head, o, q"),
        ("EncDecAttention", r"no linear layer's name matches 'EncDecAttention' \(names look like encoder.block.0.layer.0"),
        ("([", r"'\(\[' is neither a layout \(full, light, attention\) nor a regular expression"),
    ],
)
def test_targets_that_match_nothing_are_rejected(
    tiny_t5: T5ForConditionalGeneration, targets: str | list[str], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        inject(tiny_t5, targets)


def test_an_expression_that_would_run_for_ever_is_rejected(
    tiny_t5: T5ForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhrctl.models.attach.MATCH_SECONDS", 0.2)
    with pytest.raises(
        ParamsError, match=r"targets: '\(x\|.\|..\)\*\(\?<!.\)' takes more than 0.2 s to match the layers' names"
    ):
        find_layers(linear_shapes(tiny_t5), "(x|.|..)*(?<!.)")


def test_layers_are_replaced_in_place_and_nothing_is_trained(tiny_t5: T5ForConditionalGeneration) -> None:
    before = {name: tensor.data_ptr() for name, tensor in tiny_t5.state_dict().items()}
    shapes = inject(tiny_t5, "light", dropout=0.25)
    adapted = {name: layer for name, layer in tiny_t5.named_modules() if isinstance(layer, AdaptedLinear)}
    assert list(adapted) == list(shapes)
    assert {name: (layer.in_features, layer.out_features) for name, layer in adapted.items()} == shapes
    assert {layer.dropout for layer in adapted.values()} == {0.25}
    assert {name: tensor.data_ptr() for name, tensor in tiny_t5.state_dict().items()} == before
    assert not any(parameter.requires_grad for parameter in tiny_t5.parameters())


def test_the_numbers_that_the_paper_prints_for_superni_are_of_the_attention_layout() -> None:
    """The 18M of LoRA-big, and the 147K and 74K of a routing of 64 and of 32 heads, more than the light layout has."""
    xl = backbone_shape(BackboneParams(source="hub", name="google/t5-xl-lm-adapt", revision="main"), Path(), 32_100)
    assert xl is not None
    shapes = find_layers(xl.linears, "attention")
    assert len(shapes) == 288
    assert 16 * sum(d_in + d_out for d_in, d_out in shapes.values()) == 18_874_368
    assert [len(shapes) * 8 * heads for heads in (64, 32)] == [147_456, 73_728]


def test_config_and_models_name_the_same_layouts() -> None:
    with pytest.raises(ValueError, match=rf"neither a layout \({', '.join(LAYOUTS)}\)"):
        compiles("([")
    described = PretrainParams.model_fields["targets"].description or ""
    assert re.findall(r"`(\w+)` \(", described) == list(LAYOUTS)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_full_is_refused_where_experts_are_no_linear_layers_and_attention_is_not(kind: str) -> None:
    backbone: Any = deepcopy(decoder(kind))

    def made(targets: str) -> Adapter:
        settings = PretrainParams(targets=targets, steps=1, batch_size=1)
        return new_adapter(backbone, METHODS["mhr"], settings, heads=4, seed=0, tasks=2)

    with pytest.raises(
        ParamsError, match="experts of a layer are no linear layers, so they would be left out; set targets: attention"
    ):
        made("full")
    assert not any(isinstance(layer, AdaptedLinear) for layer in backbone.modules())
    assert {name.rpartition(".")[2] for name in made("attention").shapes} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert (
        new_adapter(backbone, METHODS["full_ft"], PretrainParams(steps=1, batch_size=1), heads=1, seed=0, tasks=2).shapes == {}
    )


@pytest.mark.parametrize("kind", ["gpt2", "t5gemma"])
def test_layers_of_other_families_are_replaced_in_place(kind: str) -> None:
    model: Any = deepcopy(encoder_decoder(kind) if kind == "t5gemma" else decoder(kind))
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    linears = linear_shapes(model)
    shapes = inject(model, "full")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, AdaptedLinear)}
    assert list(layers) == list(shapes)
    assert {name: (layer.in_features, layer.out_features) for name, layer in layers.items()} == shapes
    assert shapes == {name: shape for name, shape in linears.items() if "lm_head" not in name}
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before


def test_an_adapter_is_attached_to_the_layers_that_it_was_made_for(tiny_t5: T5ForConditionalGeneration) -> None:
    chosen = find_layers(linear_shapes(tiny_t5), ["q", "wo"])
    attach(tiny_t5, Inventory(chosen, InventoryConfig(dropout=0.5)))
    adapted = {name: layer.dropout for name, layer in tiny_t5.named_modules() if isinstance(layer, AdaptedLinear)}
    assert adapted == dict.fromkeys(chosen, 0.5)


def test_whole_weights_have_no_layers_and_replace_none(tiny_t5: T5ForConditionalGeneration) -> None:
    attach(tiny_t5, Weights.of(tiny_t5))
    assert not any(isinstance(layer, AdaptedLinear) for layer in tiny_t5.modules())
    assert not any(parameter.requires_grad for parameter in tiny_t5.parameters())


def test_only_linear_layers_have_shapes() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Embedding(4, 3), nn.LayerNorm(3))
    assert linear_shapes(model) == {"0": (3, 5)}
    with pytest.raises(ParamsError, match=r"no linear layer is named '1' \(there are: 0\)"):
        inject(model, ["1"])
