"""The form that vLLM and SGLang load: what is put right, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mhrctl.errors import DataError
from mhrctl.interchange.peft import write_peft
from mhrctl.interchange.serving import max_lora_rank, require_servable, with_siblings
from mhrctl.interchange.weights import LayerSkills, SkillWeights

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
LAYER = "model.layers.0.self_attn"
SHAPES = {
    f"{LAYER}.q_proj": (8, 8),
    f"{LAYER}.k_proj": (8, 4),
    f"{LAYER}.v_proj": (8, 4),
    f"{LAYER}.o_proj": (8, 8),
    "model.layers.0.mlp.gate_proj": (8, 16),
    "model.layers.0.mlp.up_proj": (8, 16),
    "model.layers.0.mlp.down_proj": (16, 8),
}


def weights(*names: str, rank: int = 2) -> SkillWeights:
    layers = {
        name: LayerSkills(torch.randn(1, 1, d_in, rank), torch.randn(1, 1, rank, d_out))
        for name, (d_in, d_out) in SHAPES.items()
        if name in names
    }
    return SkillWeights(2.0, rank, 1, 1, layers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that servers load."""
    write_peft(tmp_path / "lora", weights(*SHAPES), base="google/gemma", revision=None, task_type="CAUSAL_LM")
    return tmp_path / "lora"


def test_a_plain_lora_is_servable(folder: Path) -> None:
    require_servable(folder)


def test_layers_in_one_matrix_get_zeros(tmp_path: Path) -> None:
    """As SGLang wants them; the function is what it was."""
    light = weights(f"{LAYER}.k_proj", f"{LAYER}.v_proj", "model.layers.0.mlp.up_proj")
    write_peft(tmp_path / "light", light, base="x", revision=None, task_type="CAUSAL_LM")
    with pytest.raises(DataError, match=r"self_attn.q_proj is not adapted and a layer beside it is"):
        require_servable(tmp_path / "light")
    whole = with_siblings(light, SHAPES)
    assert list(whole.layers) == [name for name in SHAPES if "o_proj" not in name and "down" not in name]
    write_peft(tmp_path / "whole", whole, base="x", revision=None, task_type="CAUSAL_LM")
    require_servable(tmp_path / "whole")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("light", "whole"))
    for name, tensor in after.items():
        assert torch.equal(tensor, before.get(name, torch.zeros_like(tensor)))
    assert len(after) > len(before)


def test_a_layer_that_the_backbone_has_not_gets_no_zeros() -> None:
    shapes = {"model.layers.0.mlp.up_proj": (8, 16)}
    assert list(with_siblings(weights("model.layers.0.mlp.up_proj"), shapes).layers) == list(shapes)


SETTINGS = {
    "peft_type": ("IA3", "peft_type 'IA3' is none"),
    "r": (None, "r None is none that they read"),
    "target_modules": (".*proj", r"target_modules '\.\*proj' is none that they read"),
    "bias": ("all", "bias 'all' trains biases"),
    "init_lora_weights": ("pissa", "init_lora_weights 'pissa' may have changed the backbone's weights"),
    "modules_to_save": (["lm_head"], "modules_to_save is set"),
    "use_dora": (True, "use_dora is set"),
    "use_rslora": (True, "use_rslora is set"),
    "rank_pattern": ({"q_proj": 4}, "rank_pattern is set"),
    "alpha_pattern": ({"q_proj": 4}, "alpha_pattern is set"),
    "layer_replication": ([[0, 1]], "layer_replication is set"),
    "alora_invocation_tokens": ([1], "alora_invocation_tokens is set"),
    "lora_bias": (True, "lora_bias is set"),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_that_a_server_does_not_heed_are_refused(folder: Path, key: str) -> None:
    value, said = SETTINGS[key]
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(DataError, match=rf"adapter_config.json: {said}, and vLLM and SGLang serve plain LoRA alone"):
        require_servable(folder)


PREFIX = "base_model.model."
QUERY = f"{PREFIX}{LAYER}.q_proj"
TENSORS: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "embedding": ({f"{PREFIX}model.embed_tokens.lora_embedding_A": torch.ones(2, 8)}, "is no tensor of a LoRA"),
    "magnitude": ({f"{QUERY}.lora_magnitude_vector": torch.ones(8)}, "is no tensor of a LoRA"),
    "prefix": ({f"{LAYER}.q_proj.lora_A.weight": torch.ones(2, 8)}, "is no tensor of a LoRA"),
    "rank": ({f"{QUERY}.lora_A.weight": torch.ones(3, 8)}, r"has shape \[3, 8\], which is of no rank 2"),
    "half": ({f"{QUERY}.lora_B.weight": None}, "has but one of lora_A and lora_B"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_a_server_does_not_read_are_refused(folder: Path, what: str) -> None:
    change, said = TENSORS[what]
    file = folder / "adapter_model.safetensors"
    changed = {**load_file(file), **change}
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, file)
    with pytest.raises(DataError, match=rf"adapter_model.safetensors: .*{said}"):
        require_servable(folder)


def test_other_files_are_not_read(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(DataError, match=r"adapter_model.safetensors: cannot be read .*; servers read no other file"):
        require_servable(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(DataError, match=r"adapter_config.json: cannot be read"):
        require_servable(folder)


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (2, 8), (16, 16), (65, 128), (300, 320), (512, 512)])
def test_the_option_of_a_rank(rank: int, most: int) -> None:
    assert max_lora_rank(rank) == most


def test_a_rank_beyond_all_is_refused() -> None:
    with pytest.raises(DataError, match="rank 513: vLLM serves LoRAs of a rank up to 512; export --merge"):
        max_lora_rank(513)
