"""T-Few's and mttl's files, the real one of T-Few among them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from mhrctl.errors import DataError
from mhrctl.interchange.checkpoints import read_any, read_checkpoint
from mhrctl.interchange.peft import write_peft
from mhrctl.interchange.weights import LayerSkills, ScaleWeights, SkillWeights
from mhrctl.models.attach import linear_shapes
from tests.interchange.test_peft import SKILLS, TASKS, WI_1, WO, Q, V, assert_same, random_skills, some

SHAPES = {Q: (16, 16), V: (16, 16), WI_1: (16, 32), WO: (32, 16)}
T_FEW = Path(__file__).parents[2].parent / "shared/checkpoints/t-few-t03b-ia3.pt"

State = dict[str, Tensor]


def earlier(weights: SkillWeights) -> State:
    """The names of mttl and its order of axes at the time of the paper, below `model.`."""
    state: State = {}
    for name, layer in weights.layers.items():
        state[f"model.{name}.down"], state[f"model.{name}.up"] = layer.lora_A, layer.lora_B
        if layer.routing is not None:
            state[f"model.{name}.selector.module_logits"] = layer.routing.flatten(1)
    return state


def later(weights: SkillWeights) -> State:
    """The later order of axes of mttl."""
    state = earlier(weights)
    for name, layer in weights.layers.items():
        state[f"model.{name}.down"] = layer.lora_A.transpose(0, 1)
        state[f"model.{name}.up"] = layer.lora_B.permute(1, 2, 0, 3)
    return state


def plain(weights: SkillWeights) -> State:
    """The LoRA of mttl: [d_in, rank], [rank, d_out]."""
    return {key: tensor[0, 0] for key, tensor in earlier(weights).items()}


def transposed(weights: SkillWeights) -> State:
    """The first LoRA of mttl, and that of T-Few: [rank, d_in], [d_out, rank]."""
    return {key: tensor.T for key, tensor in plain(weights).items()}


def lightning(path: Path, state: State, **settings: Any) -> Path:
    """A Lightning checkpoint, with what else stands in one."""
    others = {
        "epoch": 3,
        "pytorch-lightning_version": "2.0.1",
        "optimizer_states": [{"state": {0: {"exp_avg_sq": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [],
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5)}},
    }
    torch.save({**others, "state_dict": state, "hyper_parameters": {"lora_rank": 2, "model": "t5", **settings}}, path)
    return path


def refused(path: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        read_checkpoint(path, SHAPES)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("layout", [earlier, later])
@pytest.mark.parametrize(("heads", "skills"), [(1, SKILLS), (4, SKILLS), (8, 3)])
def test_routed_checkpoints_of_mttl(tmp_path: Path, layout: Callable[[SkillWeights], State], heads: int, skills: int) -> None:
    weights = random_skills(SHAPES, alpha=1.0, rank=2, heads=heads, skills=skills, tasks=TASKS)
    settings = {"router_selector": "poly", "router_granularity": "finegrained", "module_logits_straight_through": False}
    assert_same(read_checkpoint(lightning(tmp_path / "x.ckpt", layout(weights), **settings), SHAPES), weights)
    torch.save(layout(weights), tmp_path / "x.pt")
    assert_same(read_checkpoint(tmp_path / "x.pt", SHAPES), weights)


@pytest.mark.parametrize("layout", [plain, transposed])
def test_loras_of_mttl(tmp_path: Path, layout: Callable[[SkillWeights], State]) -> None:
    weights = random_skills(SHAPES, alpha=16.0, rank=2)
    assert_same(read_checkpoint(lightning(tmp_path / "x.ckpt", layout(weights), lora_alpha=16), SHAPES), weights)
    state = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in layout(weights).items()}
    save_file(state, tmp_path / "x.safetensors")
    alpha_one = SkillWeights(1.0, 2, 1, 1, weights.layers)
    assert_same(read_checkpoint(tmp_path / "x.safetensors", SHAPES), alpha_one)


def test_scales_of_mttl_beside_frozen_weights(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    scales = {name: torch.randn(SHAPES[name][1]) for name in (Q, WI_1)}
    state = {f"model.{name}": tensor for name, tensor in tiny_t5.state_dict().items()}
    state |= {f"model.{Q}.layer.weight": torch.ones(16, 16), f"model.{WI_1}.linear_layer.weight": torch.ones(32, 16)}
    state |= {f"model.{name}.multi_lora_b": scale for name, scale in scales.items()}
    path = lightning(tmp_path / "x.ckpt", state)
    assert_same(read_checkpoint(path, linear_shapes(tiny_t5)), ScaleWeights(scales))


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    weights = random_skills(SHAPES, alpha=1.0, rank=2)
    path = lightning(tmp_path / "x.ckpt", {key: tensor.bfloat16() for key, tensor in plain(weights).items()})
    read = read_checkpoint(path, SHAPES)
    assert isinstance(read, SkillWeights)
    assert {layer.lora_A.dtype for layer in read.layers.values()} == {torch.float32}


def test_t_fews_file() -> None:
    if not T_FEW.is_file():
        pytest.skip(f"{T_FEW.name} is not beside this repository")
    with torch.device("meta"):
        config = T5Config(
            d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32, feed_forward_proj="gated-gelu", vocab_size=32128
        )
        shapes = linear_shapes(T5ForConditionalGeneration(config))
    weights = read_any(T_FEW, shapes)
    assert isinstance(weights, ScaleWeights)
    assert Counter(name.rpartition(".")[2] for name in weights.scales) == {"k": 72, "v": 72, "wi_1": 48}
    assert sum(scale.numel() for scale in weights.scales.values()) == 540_672
    assert all(scale.shape == (shapes[name][1],) for name, scale in weights.scales.items())
    raw = torch.load(T_FEW, weights_only=True)
    assert all(torch.equal(scale, raw[f"{name}.multi_lora_b"][:, 0]) for name, scale in weights.scales.items())


def test_input_scales_of_t_few_are_read_only_where_they_are_one(tmp_path: Path) -> None:
    state = {f"{WO}.multi_lora_a": torch.ones(1, 32), f"{WO}.multi_lora_b": torch.full((16, 1), 2.0)}
    torch.save(state, tmp_path / "x.bin")
    assert_same(read_checkpoint(tmp_path / "x.bin", SHAPES), ScaleWeights({WO: torch.full((16,), 2.0)}))
    state[f"{WO}.multi_lora_a"][0, 3] = 1.5
    torch.save(state, tmp_path / "x.bin")
    refused(tmp_path / "x.bin", r"wo\.multi_lora_a: scales the layer's input")


def test_a_shared_routing_is_every_layers(tmp_path: Path) -> None:
    weights = random_skills(SHAPES, alpha=1.0, rank=2, heads=4, skills=3, tasks=TASKS)
    state = earlier(weights)
    for name in (V, WI_1, WO):
        del state[f"model.{name}.selector.module_logits"]
    z = weights.layers[Q].routing
    layers = {name: LayerSkills(layer.lora_A, layer.lora_B, z) for name, layer in weights.layers.items()}
    shared = SkillWeights(1.0, 2, 4, 3, layers)
    path = lightning(tmp_path / "x.ckpt", state, router_granularity="coarsegrained")
    assert_same(read_checkpoint(path, SHAPES), shared)
    path = lightning(tmp_path / "x.ckpt", state, router_granularity="blockwise")
    refused(path, r"EncDecAttention\.v\.selector\.module_logits.*: missing, and 3 skills need a routing")


@pytest.mark.parametrize("settings", [{"router_selector": "average"}, {"switch_to_avg_modules": True}])
def test_averaged_skills_have_no_routing(tmp_path: Path, settings: dict[str, Any]) -> None:
    weights = random_skills(SHAPES, alpha=1.0, rank=2, heads=4, skills=3)
    constant = {f"model.{name}.selector.module_logits": torch.full((4, 3), 1 / 3) for name in SHAPES}
    for state in (earlier(weights), earlier(weights) | constant):
        assert_same(read_checkpoint(lightning(tmp_path / "x.ckpt", state, **settings), SHAPES), weights)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"router_selector": "moe"}, r"router_selector: 'moe' routes in another way"),
        ({"poly_use_shared_skill": True}, r"poly_use_shared_skill: set in hyper_parameters"),
        ({"lora_alpha": "16"}, r"lora_alpha: '16' is no number"),
        ({"lora_alpha": float("nan")}, r"x\.ckpt: hyper_parameters: lora_alpha: nan scales no LoRA"),
        ({"lora_alpha": -1.0}, r"hyper_parameters: lora_alpha: -1 scales no LoRA"),
        ({"lora_alpha": 10**9}, r"hyper_parameters: lora_alpha: 1e\+09 scales no LoRA"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    weights = random_skills(SHAPES, alpha=1.0, rank=2, skills=3, tasks=TASKS)
    refused(lightning(tmp_path / "x.ckpt", earlier(weights), **settings), reason)


ROUTED = f"model.{Q}.selector.module_logits"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop(f"model.{Q}.up"), r"SelfAttention\.q\.up: missing"),
        (lambda s: s[f"model.{Q}.up"].view(-1)[:1].fill_(torch.nan), rf": model\.{Q}\.up holds NaN or infinity; only"),
        (lambda s: s[ROUTED].fill_(torch.inf), rf": {ROUTED} holds NaN or infinity; only"),
        (
            lambda s: s.update({f"model.{Q}.up": torch.ones(3, 3).to_sparse()}),
            rf": model\.{Q}\.up: no dense tensor of floating",
        ),
        (lambda s: s.update({f"model.{Q}.up": torch.ones(3, dtype=torch.cfloat)}), rf"{Q}\.up: no dense tensor of floating"),
        (lambda s: s.pop(ROUTED), r"q\.selector\.module_logits: missing, and 3 skills need a routing"),
        (lambda s: s.update({ROUTED: torch.ones(2, 5)}), r"not of shape \[tasks, 1 heads \* 3 skills\]"),
        (lambda s: s.update({ROUTED: torch.ones(2, 3)}), r"differ from .* in heads, skills, rank or tasks"),
        (
            lambda s: s.update({f"model.{Q}.down": torch.ones(16, 2)}),
            r"shapes \[16, 2\] and \[1, 3, 2, 16\] do not fit .* 16 x 16",
        ),
        (lambda s: s.update({f"{Q}.down": torch.ones(1)}), r"q\.down: another tensor stands for the same weight"),
        (
            lambda s: s.update({f"model.x{n}.down": torch.ones(1) for n in range(5)}),
            r"model\.x0\.down, model\.x1\.down, model\.x2\.down and 2 more: neither weights of the backbone nor",
        ),
        (lambda s: s.update({f"model.{Q}.lora_A.weight": torch.ones(1)}), r"q\.lora_A\.weight: neither"),
        (lambda s: s.update({"steps\n": 3}), r"'steps\\n': neither"),
        (lambda s: s.update({f"model.{Q}.multi_lora_b": torch.ones(16)}), r"down.* and 9 more: an adapter is a LoRA or an"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str) -> None:
    state: dict[str, Any] = earlier(random_skills(SHAPES, alpha=1.0, rank=2, skills=3, tasks=TASKS))
    change(state)
    refused(lightning(tmp_path / "x.ckpt", state), reason)


def test_scales_that_are_refused(tmp_path: Path) -> None:
    torch.save({f"{WI_1}.multi_lora_b": torch.ones(16)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"wi_1\.multi_lora_b: has shape \[16\], and the layer 32 outputs")
    torch.save({f"{WI_1}.multi_lora_a": torch.ones(1, 16)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"wi_1\.multi_lora_b: missing")


def test_an_order_of_axes_that_cannot_be_known_is_refused(tmp_path: Path) -> None:
    weights = random_skills(SHAPES, alpha=1.0, rank=4, heads=4, skills=4, tasks=TASKS)
    refused(lightning(tmp_path / "x.ckpt", earlier(weights)), r"4 heads of as many skills of that rank may be in")


class Harmful:
    """A pickle that leaves a file behind where it is trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_never_built(tmp_path: Path) -> None:
    state = plain(random_skills(SHAPES, alpha=1.0, rank=2))
    path = lightning(tmp_path / "x.ckpt", state, args=Harmful(tmp_path / "trusted"))
    refused(path, r"its pickle builds the Python object [\w.]+, .*save its state dict alone: torch\.save\(torch\.load\(")
    path.write_bytes(pickle.dumps({"state_dict": state, "x": Harmful(tmp_path / "trusted")}))
    refused(path, r"x\.ckpt: ")
    assert not (tmp_path / "trusted").exists()


def test_files_that_are_no_adapter(tmp_path: Path) -> None:
    refused(tmp_path / "x.pt", r"no such file")
    for content in (b"", b"nonsense", pickle.dumps([1], 2)[:-3]):
        (tmp_path / "x.pt").write_bytes(content)
        refused(tmp_path / "x.pt", r"not a file that torch\.save wrote, or a damaged one")
    torch.save(torch.ones(2), tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"holds a Tensor, not a state dict")
    torch.save({"state_dict": [1]}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"state_dict holds a list")
    torch.save({f"{Q}.weight": torch.ones(16, 16)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"holds no adapter")


def test_either_kind_is_read(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    shapes = linear_shapes(tiny_t5)
    weights = random_skills(some(tiny_t5), alpha=1.0, rank=2)
    write_peft(tmp_path / "folder", weights, base="base", revision=None)
    assert_same(read_any(tmp_path / "folder", shapes), weights)
    assert_same(read_any(lightning(tmp_path / "x.ckpt", plain(weights)), shapes), weights)
    with pytest.raises(DataError, match=r"a folder without adapter_config\.json; an adapter is a folder that .* or a file"):
        read_any(tmp_path, shapes)
    with pytest.raises(DataError, match=r"nowhere: not there; an adapter is"):
        read_any(tmp_path / "nowhere", shapes)
