"""Adapters of decoder-only models, there and back: peft gives the logits that mhrctl gives, and mhrctl reads what peft made."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.errors import DataError
from mhrctl.interchange.convert import to_adapter, to_weights
from mhrctl.interchange.peft import read_peft, write_peft
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, find_layers, linear_shapes
from tests.models.made import logits_of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers
TASKS = 3
PROMPTS, ANSWERS = torch.arange(3, 15).view(2, 6), torch.arange(20, 28).view(2, 4)
SPECIAL: dict[str, Any] = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def llama() -> LlamaConfig:
    """Grouped queries, so that k and v are narrow."""
    return LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **SPECIAL,
    )


def gpt2() -> GPT2Config:
    """Transposed weights, with biases."""
    return GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=64, **SPECIAL)


def made(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_adapter(model: nn.Module, *, kind: str) -> Adapter:
    """An adapter of the full layout, away from zero."""
    shapes = find_layers(linear_shapes(model), "full")
    adapter: Adapter = Scales(shapes)
    if kind == "lora":
        adapter = Inventory(shapes, InventoryConfig(rank=3, alpha=5.0))
    elif kind == "poly":
        adapter = Inventory(shapes, InventoryConfig(heads=4, skills=3, rank=2, alpha=2.0), tasks=TASKS)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return adapter.eval()


def ours(model: PreTrainedModel, adapter: Adapter, task: int = 0) -> Tensor:
    model = copy.deepcopy(model)
    attach(model, adapter)
    with torch.no_grad():
        return logits_of(AdaptedModel(model, adapter).eval(), torch.tensor([[task]]), PROMPTS, ANSWERS)


def theirs(model: nn.Module, **options: Tensor) -> Tensor:
    """What the model says of the answers, the whole text read at once."""
    with torch.no_grad():
        output: Tensor = model.eval()(input_ids=torch.cat([PROMPTS, ANSWERS], 1), **options).logits
    return output[:, PROMPTS.shape[1] - 1 : -1]


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("config", [llama, gpt2])
def test_what_is_written_gives_our_logits_in_peft(tmp_path: Path, config: Callable[[], PretrainedConfig], kind: str) -> None:
    model = made(config())
    adapter = random_adapter(model, kind=kind)
    write_peft(tmp_path, to_weights(adapter), base="base", revision=None, task_type="CAUSAL_LM", transposed=config is gpt2)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["task_type"], settings["fan_in_fan_out"]) == ("CAUSAL_LM", config is gpt2)
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert isinstance(wrapped, peft.PeftModelForCausalLM)
    expected = ours(model, adapter)
    torch.testing.assert_close(theirs(wrapped), expected, rtol=1e-4, atol=1e-5)
    assert (expected - theirs(model)).abs().max() > 0.1
    again = to_adapter(read_peft(tmp_path, linear_shapes(model)), linear_shapes(model))
    torch.testing.assert_close(ours(model, again), expected, rtol=1e-6, atol=1e-6)


def test_a_routed_inventory_leaves_as_poly(tmp_path: Path) -> None:
    model = made(llama())
    adapter = random_adapter(model, kind="poly")
    write_peft(tmp_path, to_weights(adapter), base="base", revision=None, task_type="CAUSAL_LM")
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert isinstance(wrapped, peft.PeftModelForCausalLM)
    said = [theirs(wrapped, task_ids=torch.tensor([task, task])) for task in range(TASKS)]
    for task in range(TASKS):
        torch.testing.assert_close(said[task], ours(model, adapter, task), rtol=1e-4, atol=1e-5)
    assert (said[0] - said[1]).abs().max() > 0.01


def test_a_poly_of_transposed_layers_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = made(gpt2())
    with pytest.raises(DataError, match=r"peft's Poly adapts no layers with transposed weights \(Conv1D, as in GPT-2\)"):
        write_peft(
            tmp_path / "new",
            to_weights(random_adapter(model, kind="poly")),
            base="base",
            revision=None,
            task_type="CAUSAL_LM",
            transposed=True,
        )
    assert not (tmp_path / "new").exists()


MADE_BY_PEFT: list[tuple[Callable[[], PretrainedConfig], peft.PeftConfig, int]] = [
    (llama, peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM"), 4),  # q_proj and v_proj
    (llama, peft.LoraConfig(r=2, target_modules="all-linear", use_rslora=True, task_type="CAUSAL_LM"), 14),
    (gpt2, peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"), 4),
    (llama, peft.IA3Config(task_type="CAUSAL_LM"), 6),  # k_proj, v_proj, and down_proj's input
]


@pytest.mark.parametrize(("config", "settings", "layers"), MADE_BY_PEFT)
def test_what_peft_made_is_the_same_function_here(
    tmp_path: Path, config: Callable[[], PretrainedConfig], settings: peft.PeftConfig, layers: int
) -> None:
    model = made(config())
    wrapped = peft.get_peft_model(copy.deepcopy(model), copy.deepcopy(settings))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    wrapped.save_pretrained(str(tmp_path))
    shapes = linear_shapes(model)
    adapter = to_adapter(read_peft(tmp_path, shapes), shapes)
    assert len(adapter.shapes) == layers
    torch.testing.assert_close(ours(model, adapter.eval()), theirs(wrapped), rtol=1e-4, atol=1e-5)
    assert (theirs(wrapped) - theirs(model)).abs().max() > 0.1


def test_a_scale_of_an_input_needs_a_gate_beside_it(tmp_path: Path) -> None:
    """Only up_proj(x) times the gate is scaled as its factor is; the output of an activation is not."""
    model = made(llama())
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.IA3Config(task_type="CAUSAL_LM"))
    wrapped.save_pretrained(str(tmp_path))
    ungated = {name: shape for name, shape in linear_shapes(model).items() if not name.endswith("gate_proj")}
    with pytest.raises(DataError, match=r"down_proj\.ia3_l.*scales the layer's input, and no sibling wi_1 or up_proj"):
        read_peft(tmp_path, ungated)
