"""An adapter in the weights does what the attached adapter does, and leaves no trace."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.weights import Weights
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.folding import foldable, folded
from mhrctl.models.layer import AdaptedLinear
from mhrctl.models.speed import Speed
from tests.models.families import changed_weights, decoder, decoder_logits
from tests.models.made import logits_of, ragged

KINDS = ["lora, rank 1", "lora, rank 4", "ia3"]


def adapter_of(kind: str, shapes: dict[str, tuple[int, int]]) -> Adapter:
    """An adapter of which every number counts."""
    torch.manual_seed(1)
    adapter = Scales(shapes) if kind == "ia3" else Inventory(shapes, InventoryConfig(rank=int(kind[-1]), alpha=2.0))
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.5)
    return adapter


def logits(backbone: Any, adapter: Adapter | None) -> Tensor:
    ids = torch.arange(2, 12).view(2, 5)
    with torch.no_grad():
        output: Tensor = logits_of(AdaptedModel(backbone, adapter).eval(), None, ids, ids + 20)
    return output


def losses(backbone: Any, adapter: Adapter | None, speed: Speed) -> Tensor:
    ids = torch.arange(2, 12).view(2, 5)
    with torch.no_grad():
        model = AdaptedModel(backbone, adapter, speed=speed).eval()
        output: Tensor = model(None, ragged(ids), ragged(ids + 21))
    return output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("architecture", "targets"), [("tiny_t5", "full"), ("tiny_bart", ["q_proj", "v_proj", "fc1", "fc2"])])
def test_folding_equals_attaching_and_leaves_no_trace(
    architecture: str, targets: str | list[str], kind: str, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(architecture)
    adapter = adapter_of(kind, inject(backbone, targets))
    bare, attached = logits(backbone, None), logits(backbone, adapter)
    before = {name: (parameter, parameter.clone()) for name, parameter in backbone.named_parameters()}
    with folded(backbone, adapter):
        torch.testing.assert_close(logits(backbone, None), attached, rtol=1e-5, atol=1e-5)
        assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not torch.allclose(bare, attached, atol=0.01)
    after = dict(backbone.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, values) in before.items():
        assert after[name] is parameter
        assert torch.equal(parameter, values)


@pytest.mark.parametrize("kind", KINDS)
def test_both_forwards_of_t5_read_the_folded_weights(tiny_t5: T5ForConditionalGeneration, kind: str) -> None:
    adapter = adapter_of(kind, inject(tiny_t5, "full"))
    attached = losses(tiny_t5, adapter, Speed(forward=False))
    with folded(tiny_t5, adapter):
        for forward in (True, False):
            torch.testing.assert_close(losses(tiny_t5, None, Speed(forward=forward)), attached, rtol=1e-5, atol=1e-5)


def test_what_shares_a_folded_weight_is_not_touched(tiny_t5: T5ForConditionalGeneration) -> None:
    adapter = adapter_of("lora, rank 1", inject(tiny_t5, ["lm_head", "q"]))
    assert tiny_t5.lm_head.weight is tiny_t5.shared.weight
    embedding, attached = tiny_t5.shared.weight.clone(), logits(tiny_t5, adapter)
    with folded(tiny_t5, adapter):
        assert torch.equal(tiny_t5.shared.weight, embedding)
        torch.testing.assert_close(logits(tiny_t5, None), attached, rtol=1e-5, atol=1e-5)
    assert tiny_t5.lm_head.weight is tiny_t5.shared.weight


def test_weights_come_back_after_an_exception(tiny_t5: T5ForConditionalGeneration, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapter_of("lora, rank 1", inject(tiny_t5, "full"))
    before = logits(tiny_t5, None)
    with pytest.raises(KeyboardInterrupt), folded(tiny_t5, adapter):
        raise KeyboardInterrupt
    assert torch.equal(logits(tiny_t5, None), before)
    last = f"{list(adapter.shapes)[-1]}.down"
    slots = {name: slot for name, slot in adapter().items() if name != last}
    monkeypatch.setattr(adapter, "forward", lambda: slots)
    with pytest.raises(KeyError, match="down"), folded(tiny_t5, adapter):  # half of the layers were folded
        pass
    assert torch.equal(logits(tiny_t5, None), before)


def test_only_what_all_rows_have_alike_is_folded_and_only_into_fp32(tiny_t5: T5ForConditionalGeneration) -> None:
    shapes = inject(tiny_t5, "full")
    assert foldable(tiny_t5, Inventory(shapes))
    assert foldable(tiny_t5, Inventory(shapes, InventoryConfig(heads=4, skills=2)).average())
    assert foldable(tiny_t5, Scales(shapes))
    for adapter in (
        None,
        Weights.of(tiny_t5),
        Inventory(shapes, runs=2),
        Inventory(shapes, InventoryConfig(skills=2), tasks=1),
        Inventory(shapes, InventoryConfig(skills=2)).for_new_tasks([1], train_skills=True),
        Scales(shapes, runs=2),
    ):
        assert not foldable(tiny_t5, adapter)
    tiny_t5.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
    assert not foldable(tiny_t5, Inventory(shapes))
    with pytest.raises(ValueError, match="cannot be folded"), folded(tiny_t5, Inventory(shapes)):
        pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi3", "starcoder2"])
def test_folding_into_decoder_only_models_equals_attaching(family: str, kind: str) -> None:
    """GPT-2's weights are stored as [d_in, d_out]."""
    plain = decoder(family)
    backbone: Any = deepcopy(plain)
    adapter = adapter_of(kind, inject(backbone, "full"))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(0.5)
    attached = losses(backbone, adapter, Speed())
    ids = torch.arange(2, 12).view(2, 5)
    for row, target in enumerate(ids + 21):
        logits = decoder_logits(plain, changed_weights(plain, adapter(), 0), ids[row].tolist(), target.tolist())
        by_hand = F.cross_entropy(logits, target, reduction="none")
        torch.testing.assert_close(attached[row], by_hand, rtol=1e-5, atol=1e-5)
    before = {name: (parameter, parameter.clone()) for name, parameter in backbone.named_parameters()}
    bare = losses(backbone, None, Speed())
    with folded(backbone, adapter):
        torch.testing.assert_close(losses(backbone, None, Speed()), attached, rtol=1e-5, atol=1e-5)
        assert all(layer.weight.is_contiguous() for layer in backbone.modules() if isinstance(layer, AdaptedLinear))
    assert torch.equal(losses(backbone, None, Speed()), bare)
    after = dict(backbone.named_parameters())
    assert all(after[name] is parameter and torch.equal(parameter, values) for name, (parameter, values) in before.items())
    merged: Any = deepcopy(plain)
    adapter.put_into(merged)
    torch.testing.assert_close(losses(merged, None, Speed()), attached, rtol=1e-5, atol=1e-5)


def test_a_folded_output_layer_of_gpt2_leaves_the_embedding_that_it_is_tied_to() -> None:
    backbone: Any = deepcopy(decoder("gpt2"))
    adapter = adapter_of("lora, rank 1", inject(backbone, ["lm_head", "c_attn"]))
    embedding, attached = backbone.transformer.wte.weight, losses(backbone, adapter, Speed())
    values = embedding.clone()
    with folded(backbone, adapter):
        assert backbone.transformer.wte.weight is embedding
        assert torch.equal(embedding, values)
        torch.testing.assert_close(losses(backbone, None, Speed()), attached, rtol=1e-5, atol=1e-5)
    assert backbone.lm_head.weight is embedding
