"""Which layers are adapted, and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.config.fields import compiles
from mhrctl.config.sections import BackboneParams, PretrainParams
from mhrctl.errors import ParamsError
from mhrctl.models.attach import LAYOUTS, attach, find_layers, inject, layout_name, linear_shapes
from mhrctl.models.layer import AdaptedLinear
from mhrctl.tools.estimate import backbone_shape


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


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_known_by_the_layers_that_it_chose(tiny_t5: T5ForConditionalGeneration, name: str) -> None:
    chosen = find_layers(linear_shapes(tiny_t5), name)
    assert layout_name(chosen) == name
    assert layout_name([*chosen, "lm_head"]) == "other"


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
    assert all(f"`{name}` ({' '.join(layers)})" in described for name, layers in LAYOUTS.items())


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
