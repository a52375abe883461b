"""Quantised backbones: adapted layers add to what the packages' layers give, and the same bits come back from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import QUANTISERS, PretrainParams, QuantisationName
from mhrctl.data.batches import Ragged
from mhrctl.errors import DataError, ParamsError
from mhrctl.models import quantised
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject, linear_shapes, new_adapter
from mhrctl.models.backbones import fingerprint, load_pretrained
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.folding import foldable
from mhrctl.models.layer import AdaptedQuantised, adapted, is_quantised_layer
from mhrctl.models.layouts import layers_of
from mhrctl.models.precision import set_precision
from mhrctl.models.quantised import (
    CONFIGS,
    is_quantised,
    plain_tensors,
    require_changeable,
    require_package,
    require_unquantised,
)
from tests.models.families import END, PAD

SIZES = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
EXACT: Sequence[QuantisationName] = ("nf4", "int8")
"""Quantisations that round weights alone, so that a token's product does not depend on the tokens beside it."""
TASKS = torch.tensor([[2, 0, 1]])
INPUTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14], [15, 16, 17, 18], [19, 20, 21], [22, 23, 24, 25, 26]]
TARGETS = [[30, 31], [32], [33, 34, 35], [36], [37, 38, 39, 40], [41, 42]]


class Halved(nn.Linear):
    """Its weights stand for twice what they are, as those of no package do: what an adapted layer must not know."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.weight = nn.Parameter((linear.weight * 8).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) / 8, self.bias)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_key_value_heads=2, pad_token_id=PAD, bos_token_id=1, eos_token_id=END)  # type: ignore[arg-type]
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    folder = tmp_path_factory.mktemp("whole")
    model.save_pretrained(folder)
    return folder


def loaded(whole: Path, name: QuantisationName) -> PreTrainedModel:
    pytest.importorskip(QUANTISERS[name].package)
    return load_pretrained(str(whole), quantisation=name)[0].requires_grad_(requires_grad=False)


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    return Ragged(torch.tensor([token for row in rows for token in row]), tuple(map(len, rows)))


def attached(model: PreTrainedModel, kind: type[Adapter] = Inventory) -> tuple[PreTrainedModel, Adapter]:
    """A copy of a model with adapters that change what it computes."""
    backbone = deepcopy(model)
    shapes = inject(backbone, "full")
    torch.manual_seed(0)
    config = InventoryConfig(heads=4, skills=3, rank=2, alpha=2.0)
    adapter: Adapter = Scales(shapes, runs=3) if kind is Scales else Inventory(shapes, config, tasks=3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return backbone, adapter


def dequantised(model: PreTrainedModel, whole: Path) -> PreTrainedModel:
    """An ordinary model with the weights that a quantised one stands for: the products of the unit vectors."""
    plain, _ = load_pretrained(str(whole))
    with torch.no_grad():
        for name, layer in model.named_modules():
            if is_quantised_layer(layer):
                assert isinstance(layer, nn.Linear)
                plain.get_parameter(f"{name}.weight").copy_(layer(torch.eye(layer.in_features)).T)
    return plain


@pytest.mark.parametrize("bias", [True, False])
def test_an_adapted_layer_calls_the_quantised_one_and_adds_the_update(bias: bool) -> None:
    torch.manual_seed(0)
    frozen = Halved(nn.Linear(5, 3, bias=bias))
    layer, x = adapted(frozen).eval(), torch.randn(4, 6, 5)
    assert isinstance(layer, AdaptedQuantised)
    assert torch.equal(layer(x), frozen(x))
    down, up, scale = torch.randn(2, 2, 5), torch.randn(2, 2, 3), torch.randn(2, 3)
    updated = torch.func.functional_call(layer, {"down": down, "up": up}, (x,))
    scaled = torch.func.functional_call(layer, {"scale": scale}, (x,))
    for group, rows in enumerate((slice(0, 2), slice(2, 4))):
        torch.testing.assert_close(updated[rows], frozen(x[rows]) + x[rows] @ down[group].T @ up[group])
        torch.testing.assert_close(scaled[rows], frozen(x[rows]) * scale[group])


def test_a_model_of_quantised_layers_is_neither_folded_nor_tuned_whole(whole: Path) -> None:
    model: Any = load_pretrained(str(whole))[0]
    layer = model.model.layers[0].mlp
    assert not is_quantised(model)
    layer.up_proj = Halved(layer.up_proj)
    assert is_quantised(model)
    settings = PretrainParams(steps=1, batch_size=1, skills=2, targets=["up_proj"])
    with pytest.raises(
        ParamsError, match=r"^--merge: this changes the backbone's weights, which are quantised, .*; leave out b"
    ):
        require_changeable(model, "--merge")
    adapter = new_adapter(model, METHODS["lora"], settings, heads=1, seed=0, tasks=2)
    assert is_quantised(model)
    assert adapter.foldable
    assert not foldable(model, adapter)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", [Inventory, Scales])
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_losses_and_gradients_are_those_of_the_weights_that_are_stood_for(
    whole: Path, name: QuantisationName, kind: type[Adapter], packs: bool
) -> None:
    model = loaded(whole, name)
    assert {name for name, layer in model.named_modules() if is_quantised_layer(layer)} == {
        *layers_of("full", linear_shapes(model))
    }
    results = []
    for each in (model, dequantised(model, whole)):
        backbone, adapter = attached(each, kind)
        setattr(backbone, PACKS, packs)
        losses = AdaptedModel(backbone, adapter).eval()(TASKS, ragged(INPUTS), ragged(TARGETS))
        results.append((losses, torch.autograd.grad(losses.sum(), list(adapter.parameters()))))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert other.any()
        assert (one - other).abs().max() <= 1e-5 * other.abs().max() + 1e-6


@pytest.mark.parametrize("name", EXACT)
@torch.no_grad()
def test_answers_are_those_of_each_input_alone(whole: Path, name: QuantisationName) -> None:
    backbone, adapter = attached(loaded(whole, name))
    model = AdaptedModel(backbone, adapter).eval()
    answers = model.generate(TASKS, ragged(INPUTS), max_new_tokens=4, do_sample=False)
    for row, source in enumerate(INPUTS):
        alone = model.generate(TASKS[:, [row // 2]], ragged([source]), max_new_tokens=4, do_sample=False)[0].tolist()
        assert answers[row, : len(alone)].tolist() == alone
    assert len({tuple(answer.tolist()) for answer in answers}) > 1


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_without_an_adapter_a_model_is_what_the_package_makes_of_it(whole: Path, name: QuantisationName) -> None:
    model = loaded(whole, name)
    ids = torch.tensor([INPUTS[0]])
    alone, exact = model(ids).logits, load_pretrained(str(whole))[0](ids).logits
    assert not torch.equal(alone, exact)
    assert F.cosine_similarity(alone.flatten(), exact.flatten(), dim=0) > 0.9
    backbone = deepcopy(model)
    inject(backbone, "full")
    assert torch.equal(backbone(ids).logits, alone)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_folder_gives_the_same_model_again_bit_by_bit(whole: Path, tmp_path: Path, name: QuantisationName) -> None:
    model, how = loaded(whole, name), {"min_new_tokens": 1}
    before = fingerprint(model, how)
    model.save_pretrained(str(tmp_path))
    again, _ = load_pretrained(str(tmp_path), quantised=True)
    assert fingerprint(again, how) == before
    assert fingerprint(load_pretrained(str(whole))[0], how) != before
    ids = torch.tensor([INPUTS[0]])
    first = again(ids).logits
    assert torch.equal(first, model(ids).logits)
    assert torch.equal(first, again(ids).logits)  # and what it computes does not depend on what it has computed
    assert fingerprint(again, how) == before
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size < 0.55 * sum(file.stat().st_size for file in whole.glob("*.safetensors"))


@pytest.mark.parametrize("name", EXACT)
def test_a_quantised_model_computes_in_bf16_too(whole: Path, name: QuantisationName) -> None:
    model = loaded(whole, name)
    (backbone, adapter), ids = attached(model), torch.tensor([INPUTS[0]])
    with torch.no_grad():
        expected = model(ids).logits
    losses = AdaptedModel(backbone, adapter).eval()(TASKS, ragged(INPUTS), ragged(TARGETS))
    set_precision(backbone, "bf16")
    coarse = AdaptedModel(backbone, adapter).eval()(TASKS, ragged(INPUTS), ragged(TARGETS))
    assert coarse.dtype == torch.float32
    assert 0 < (coarse - losses).abs().max() < 0.3
    assert all(gradient.any() for gradient in torch.autograd.grad(coarse.sum(), list(adapter.parameters())))
    set_precision(model, "bf16")
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        assert 0 < (model(ids).logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_tensors_made_of_others_are_taken_apart(whole: Path) -> None:
    state = loaded(whole, "int8").state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    plain = plain_tensors({name: state[name], "lm_head.weight": state["lm_head.weight"]})
    assert {name: each.dtype for name, each in plain.items()} == {
        f"{name}.qdata": torch.int8,
        f"{name}.scale": torch.float32,
        f"{name}.zero_point": torch.int8,
        "lm_head.weight": torch.float32,
    }


def test_a_missing_package_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda _package: None)
    with pytest.raises(ParamsError, match=r"quantisation nf4: needs the package bitsandbytes; run `pip install 'mhrctl\[quan"):
        require_package("nf4")
    with pytest.raises(ParamsError, match=r"quantisation int8: needs the package torchao; run `pip"):
        require_package("int8")


@pytest.mark.parametrize("within", [False, True])
def test_what_is_quantised_already_is_refused(within: bool) -> None:
    says: dict[str, Any] = {"quantization_config": {"quant_method": "mxfp4"}}
    with pytest.raises(
        DataError, match=r"^it: its weights are quantised already \(mxfp4\); name the model that they were made"
    ):
        require_unquantised({"model_type": "gemma3", "text_config": says} if within else says, "it")
    require_unquantised({"model_type": "llama", "rope_parameters": {"rope_type": "default"}}, "it")
