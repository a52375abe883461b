"""Adapters through peft's own saving and loading, there and back, and as functions."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from mhrctl.errors import ArtifactError, DataError
from mhrctl.interchange.peft import read_peft, write_peft
from mhrctl.interchange.weights import LayerSkills, ScaleWeights, Shapes, SkillWeights
from mhrctl.models.attach import linear_shapes

Q, V = "encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.1.EncDecAttention.v"
WI_1, WO = "encoder.block.0.layer.1.DenseReluDense.wi_1", "encoder.block.0.layer.1.DenseReluDense.wo"
TASKS, SKILLS = 3, 4

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers


def random_skills(shapes: Shapes, *, alpha: float, rank: int, heads: int = 1, skills: int = 1, tasks: int = 0) -> SkillWeights:
    """Skills away from zero for some layers."""
    layers = {
        name: LayerSkills(
            torch.randn(heads, skills, d_in // heads, rank),
            torch.randn(heads, skills, rank, d_out // heads),
            torch.randn(tasks, heads, skills) if tasks else None,
        )
        for name, (d_in, d_out) in shapes.items()
    }
    return SkillWeights(alpha, rank, heads, skills, layers)


def applied(model: nn.Module, weights: SkillWeights | ScaleWeights, task: int = 0) -> nn.Module:
    """A copy of a model with the adapter put into its weights, by the formulas."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        if isinstance(weights, ScaleWeights):
            for name, scale in weights.scales.items():
                model.get_parameter(f"{name}.weight").mul_(scale[:, None])
            return model
        for name, layer in weights.layers.items():
            z = torch.zeros(weights.heads, weights.skills) if layer.routing is None else layer.routing[task]
            mixing = z.sigmoid() / z.sigmoid().sum(-1, keepdim=True)
            a = torch.cat([torch.einsum("k,kdr->dr", head, bank) for head, bank in zip(mixing, layer.lora_A, strict=True)])
            b = torch.cat([torch.einsum("k,kro->ro", head, bank) for head, bank in zip(mixing, layer.lora_B, strict=True)], -1)
            model.get_parameter(f"{name}.weight").add_((weights.alpha / weights.rank) * (a @ b).T)
    return model


def logits(model: nn.Module, **options: Tensor) -> Tensor:
    ids = torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        output: Tensor = model.eval()(input_ids=ids, decoder_input_ids=ids[:, :4], **options).logits
    return output


def assert_same(ours: SkillWeights | ScaleWeights, theirs: SkillWeights | ScaleWeights) -> None:
    if isinstance(ours, ScaleWeights) or isinstance(theirs, ScaleWeights):
        assert isinstance(ours, ScaleWeights)
        assert isinstance(theirs, ScaleWeights)
        torch.testing.assert_close(ours.scales, theirs.scales, rtol=0, atol=0)
        return
    assert (ours.alpha, ours.rank, ours.heads, ours.skills) == (theirs.alpha, theirs.rank, theirs.heads, theirs.skills)
    assert ours.layers.keys() == theirs.layers.keys()
    for name, layer in ours.layers.items():
        torch.testing.assert_close(vars(layer), vars(theirs.layers[name]), rtol=0, atol=0)


def saved(model: nn.Module, config: peft.PeftConfig, folder: Path) -> nn.Module:
    """A model of peft with random adapters, which it has saved."""
    wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    wrapped.save_pretrained(str(folder))
    return wrapped


def some(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: shape for name, shape in linear_shapes(model).items() if name in {Q, V, WI_1, WO}}


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_of_peft_is_the_same_function(tiny_t5: T5ForConditionalGeneration, tmp_path: Path, rslora: bool) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=6, use_rslora=rslora, target_modules=["q", "wo"], task_type="SEQ_2_SEQ_LM")
    wrapped = saved(tiny_t5, config, tmp_path)
    weights = read_peft(tmp_path, linear_shapes(tiny_t5))
    assert isinstance(weights, SkillWeights)
    assert (weights.rank, weights.heads, weights.skills, len(weights.layers)) == (4, 1, 1, 5)
    assert weights.alpha == pytest.approx(12 if rslora else 6)
    theirs = wrapped.get_parameter(f"base_model.model.{Q}.lora_A.default.weight")
    assert torch.equal(weights.layers[Q].lora_A[0, 0], theirs.T)
    torch.testing.assert_close(logits(applied(tiny_t5, weights)), logits(wrapped), rtol=1e-4, atol=1e-5)
    assert (logits(wrapped) - logits(tiny_t5)).abs().max() > 0.1


@pytest.mark.parametrize("heads", [1, 4])
def test_poly_of_peft_is_the_same_function(tiny_t5: T5ForConditionalGeneration, tmp_path: Path, heads: int) -> None:
    config = peft.PolyConfig(
        r=2, n_tasks=TASKS, n_skills=SKILLS, n_splits=heads, target_modules=["q", "wi_0"], task_type="SEQ_2_SEQ_LM"
    )
    wrapped = saved(tiny_t5, config, tmp_path)
    weights = read_peft(tmp_path, linear_shapes(tiny_t5))
    assert isinstance(weights, SkillWeights)
    assert (weights.alpha, weights.rank, weights.heads, weights.skills) == (1.0, 2, heads, SKILLS)
    for task in range(TASKS):
        theirs = logits(wrapped, task_ids=torch.tensor([task, task]))
        torch.testing.assert_close(logits(applied(tiny_t5, weights, task)), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", [None, ["wi_1", "wo"]])
def test_ia3_of_peft_is_the_same_function(
    tiny_t5: T5ForConditionalGeneration, tmp_path: Path, targets: list[str] | None
) -> None:
    feedforward = None if targets is None else ["wo"]
    wrapped = saved(
        tiny_t5, peft.IA3Config(target_modules=targets, feedforward_modules=feedforward, task_type="SEQ_2_SEQ_LM"), tmp_path
    )
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (sorted(settings["target_modules"]), settings["feedforward_modules"]) == (targets or ["k", "v", "wo"], ["wo"])
    weights = read_peft(tmp_path, linear_shapes(tiny_t5))
    assert isinstance(weights, ScaleWeights)
    assert {name.rpartition(".")[2] for name in weights.scales} == ({"wi_1"} if targets else {"k", "v", "wi_1"})
    torch.testing.assert_close(logits(applied(tiny_t5, weights)), logits(wrapped), rtol=1e-4, atol=1e-5)
    assert (logits(wrapped) - logits(tiny_t5)).abs().max() > 0.1


@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_written_lora_loads_in_peft(tiny_t5: T5ForConditionalGeneration, tmp_path: Path, alpha: float) -> None:
    weights = random_skills(some(tiny_t5), alpha=alpha, rank=3)
    write_peft(tmp_path / "new/adapter", weights, base="google/t5-small-lm-adapt", revision="main", dropout=0.25)
    config = peft.PeftConfig.from_pretrained(str(tmp_path / "new/adapter"))
    assert isinstance(config, peft.LoraConfig)
    assert (config.base_model_name_or_path, config.revision, config.lora_dropout) == ("google/t5-small-lm-adapt", "main", 0.25)
    assert config.inference_mode
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_t5), tmp_path / "new/adapter")
    assert isinstance(wrapped, peft.PeftModelForSeq2SeqLM)
    assert {name for name, layer in wrapped.base_model.model.named_modules() if hasattr(layer, "lora_A")} == set(weights.layers)
    torch.testing.assert_close(logits(wrapped), logits(applied(tiny_t5, weights)), rtol=1e-4, atol=1e-5)
    file = tmp_path / "new/adapter/adapter_config.json"  # with patterns that change nothing
    file.write_text(json.dumps({**json.loads(file.read_text()), "rank_pattern": {"q": 3}, "alpha_pattern": {"q": alpha}}))
    again = read_peft(tmp_path / "new/adapter", linear_shapes(tiny_t5))
    assert_same(again, weights)
    assert isinstance(again, SkillWeights)
    assert list(again.layers) == list(weights.layers)


def test_written_scales_load_in_peft(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    weights = ScaleWeights({name: torch.randn(d_out) for name, (_, d_out) in some(tiny_t5).items()})
    write_peft(tmp_path, weights, base="base", revision=None)
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_t5), tmp_path)
    torch.testing.assert_close(logits(wrapped), logits(applied(tiny_t5, weights)), rtol=1e-4, atol=1e-5)
    assert_same(read_peft(tmp_path, linear_shapes(tiny_t5)), weights)


@pytest.mark.parametrize(("heads", "skills", "alpha"), [(1, SKILLS, 1.0), (4, SKILLS, 3.0), (1, 1, 1.0)])
def test_written_poly_loads_in_peft(
    tiny_t5: T5ForConditionalGeneration, tmp_path: Path, heads: int, skills: int, alpha: float
) -> None:
    weights = random_skills(some(tiny_t5), alpha=alpha, rank=2, heads=heads, skills=skills, tasks=TASKS)
    write_peft(tmp_path, weights, base="base", revision=None, inference=False)
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_t5), tmp_path, is_trainable=True)
    for task in range(TASKS):
        theirs = logits(wrapped, task_ids=torch.tensor([task, task]))
        torch.testing.assert_close(logits(applied(tiny_t5, weights, task)), theirs, rtol=1e-4, atol=1e-5)
    again = read_peft(tmp_path, linear_shapes(tiny_t5))
    assert isinstance(again, SkillWeights)
    assert torch.equal(again.layers[Q].lora_B, weights.layers[Q].lora_B * alpha)


def test_skills_without_routing_are_written_as_their_mean(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    weights = random_skills(some(tiny_t5), alpha=1.0, rank=2, heads=2, skills=SKILLS)
    write_peft(tmp_path, weights, base="base", revision=None)
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_t5), tmp_path)
    theirs = logits(wrapped, task_ids=torch.tensor([0, 0]))
    torch.testing.assert_close(logits(applied(tiny_t5, weights)), theirs, rtol=1e-4, atol=1e-5)


def test_files_are_the_same_every_time(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    weights = random_skills(some(tiny_t5), alpha=1.0, rank=2)
    for number in "12":
        write_peft(tmp_path / number, weights, base="base", revision=None)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert json.loads((tmp_path / "1/adapter_config.json").read_text())["target_modules"] == list(weights.layers)


def test_old_bin_is_read_without_trusting_it(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    shapes = linear_shapes(tiny_t5)
    weights = random_skills(some(tiny_t5), alpha=1.0, rank=2)
    write_peft(tmp_path, weights, base="base", revision=None)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    assert_same(read_peft(tmp_path, shapes), weights)
    torch.save({**tensors, "x": Path("x")}, tmp_path / "adapter_model.bin")
    refused(tmp_path, shapes, r"adapter_model\.bin: its pickle builds the Python object pathlib\.")
    torch.save({"x": [1]}, tmp_path / "adapter_model.bin")
    refused(tmp_path, shapes, r"adapter_model\.bin: not a flat dictionary of tensors")


def refused(folder: Path, shapes: Shapes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as error:
        read_peft(folder, shapes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"peft_type": "VERA"}, r"adapter_config\.json: unknown peft_type 'VERA' \(known: LORA, IA3, POLY\)"),
        ({"peft_type": None}, r"unknown peft_type 'None'"),
        ({"use_dora": True}, r"adapter_config\.json: use_dora: set here"),
        ({"use_future": True, "lora_bias": True}, r"lora_bias, use_future: set here"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: set here"),
        ({"bias": "lora_only"}, r"bias: 'lora_only' trains biases"),
        ({"init_lora_weights": "pissa_niter_4"}, r"init_lora_weights: 'pissa_niter_4' changed the backbone's own weights"),
        ({"rank_pattern": {"q": 8}}, r"q: rank_pattern differs from r;"),
        ({"alpha_pattern": {"q": 8}}, r"q: alpha_pattern differs from lora_alpha;"),
        ({"lora_alpha": "2"}, r"lora_alpha: '2' is no number"),
        ({"lora_alpha": None}, r"adapter_config\.json: lora_alpha: None is no number"),
        (
            {"lora_alpha": math.nan},
            r"adapter_config\.json: lora_alpha: nan scales no LoRA; it is above 0 and at most 1,000,000",
        ),
        ({"lora_alpha": math.inf}, r"lora_alpha: inf scales no LoRA"),
        ({"lora_alpha": 0}, r"lora_alpha: 0 scales no LoRA"),
        ({"lora_alpha": -16}, r"lora_alpha: -16 scales no LoRA"),
        ({"lora_alpha": 1e300, "use_rslora": True}, r"lora_alpha: 1e\+300 scales no LoRA"),
        ({"lora_alpha": 10**400}, r"lora_alpha: a number of many digits scales no LoRA"),
        ({"r": 0}, r"r: 0 is no positive whole number"),
        ({"r": 3}, r"q\.lora_A\.weight: has shape \[2, 16\] and not \[3, 16\]"),
    ],
)
def test_settings_that_are_refused(
    tiny_t5: T5ForConditionalGeneration, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    write_peft(tmp_path, random_skills(some(tiny_t5), alpha=2.0, rank=2), base="base", revision=None)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    refused(tmp_path, linear_shapes(tiny_t5), reason)


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(f"base_model.model.{Q}.lora_B.weight"), re.escape(f"{Q}.lora_B.weight: missing")),
        (
            lambda t: t.update({f"base_model.model.{Q}.lora_B.bias": torch.ones(16)}),
            r"q\.lora_B\.bias: no part of such an adapter",
        ),
        (
            lambda t: t.update({f"base_model.model.x{n}.lora_A.weight": torch.ones(1) for n in range(5)}),
            r"x0, x1, x2 and 2 more: the backbone has no such linear layer",
        ),
        (
            lambda t: t.update({f"base_model.model.{Q}.lora_B.weight": torch.ones(2, 16)}),
            r"has shape \[2, 16\] and not \[16, 2\]",
        ),
        (lambda t: t.clear(), r"holds no tensors"),
        (
            lambda t: t[f"base_model.model.{Q}.lora_B.weight"].view(-1)[5:6].fill_(math.nan),
            rf"adapter_model\.safetensors: base_model\.model\.{re.escape(Q)}\.lora_B\.weight holds NaN or infinity; only",
        ),
        (
            lambda t: t.update({f"base_model.model.{Q}.lora_A.weight": torch.full((2, 16), 1e300, dtype=torch.float64)}),
            r"q\.lora_A\.weight holds NaN or infinity; only an adapter whose numbers are all finite in fp32 is read",
        ),
        (
            lambda t: t.update({f"base_model.model.{Q}.lora_A.weight": torch.full((2, 16), torch.inf, dtype=torch.float16)}),
            r"q\.lora_A\.weight holds NaN or infinity",
        ),
    ],
)
def test_tensors_that_are_refused(tiny_t5: T5ForConditionalGeneration, tmp_path: Path, change: Change, reason: str) -> None:
    write_peft(tmp_path, random_skills(some(tiny_t5), alpha=2.0, rank=2), base="base", revision=None)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    refused(tmp_path, linear_shapes(tiny_t5), reason)


def test_poly_that_does_not_fit_is_refused(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    shapes = linear_shapes(tiny_t5)
    write_peft(tmp_path, random_skills(some(tiny_t5), alpha=1.0, rank=2, heads=4, tasks=2), base="base", revision=None)
    refused(tmp_path, {**shapes, Q: (18, 18)}, r"4 heads do not divide the layer's widths")
    refused(tmp_path, {**shapes, Q: (32, 16)}, r"q\.poly_lora_A: has shape \[4, 1, 4, 2\] and not \[4, 1, 8, 2\]")


def test_scales_that_do_not_fit_are_refused(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    shapes = linear_shapes(tiny_t5)
    saved(tiny_t5, peft.IA3Config(target_modules=["wo"], feedforward_modules=["wo"]), tmp_path)
    ungated = {name: shape for name, shape in shapes.items() if not name.endswith("wi_1")}
    refused(tmp_path, ungated, r"wo\.ia3_l: scales the layer's input, and no sibling wi_1")
    refused(tmp_path, {**shapes, WO: (8, 16)}, r"wo\.ia3_l: has shape \[1, 32\] and not \[16, 1\] or \[1, 8\]")
    saved(tiny_t5, peft.IA3Config(target_modules=["q"], feedforward_modules=["q"]), tmp_path / "q")
    refused(tmp_path / "q", shapes, r"q\.ia3_l: scales the layer's input")


def test_folders_that_are_no_adapter(tmp_path: Path) -> None:
    refused(tmp_path, {}, r"adapter_config\.json: no such file")
    for content, reason in (("{", "not JSON"), ("[]", "not a JSON object"), ('{"peft_type": "IA3"}', "no such file")):
        (tmp_path / "adapter_config.json").write_text(content)
        refused(tmp_path, {}, reason)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nonsense")
    refused(tmp_path, {}, r"adapter_model\.safetensors: no safetensors file")


@pytest.mark.parametrize("kind", ["ia3", "poly"])
def test_every_kind_of_adapter_must_have_finite_numbers(tiny_t5: T5ForConditionalGeneration, tmp_path: Path, kind: str) -> None:
    weights: SkillWeights | ScaleWeights = ScaleWeights({name: torch.rand(d_out) for name, (_, d_out) in some(tiny_t5).items()})
    if kind == "poly":
        weights = random_skills(some(tiny_t5), alpha=1.0, rank=2, heads=2, skills=SKILLS, tasks=TASKS)
    write_peft(tmp_path, weights, base="base", revision=None)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        spoiled = tensor.clone()
        spoiled.view(-1)[-1] = math.inf
        save_file({**tensors, name: spoiled}, tmp_path / "adapter_model.safetensors")
        refused(tmp_path, linear_shapes(tiny_t5), rf"adapter_model\.safetensors: {re.escape(name)} holds NaN or infinity; ")


def test_numbers_in_half_precision_are_read_as_they_are(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    weights = random_skills(some(tiny_t5), alpha=2.0, rank=2)
    write_peft(tmp_path, weights, base="base", revision=None)
    tensors = {name: tensor.half() for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    read = read_peft(tmp_path, linear_shapes(tiny_t5))
    assert isinstance(read, SkillWeights)
    for name, layer in weights.layers.items():
        assert torch.equal(read.layers[name].lora_A, layer.lora_A.half().float())


def test_an_adapter_without_numbers_does_not_leave(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    weights = random_skills(some(tiny_t5), alpha=1e30, rank=2, heads=2, skills=SKILLS, tasks=TASKS)
    weights.layers[Q].lora_B.fill_(1e30)  # finite, and times alpha it is not
    with pytest.raises(ArtifactError, match=rf"which was to be written: base_model.model.{re.escape(Q)}.poly_lora_B holds NaN"):
        write_peft(tmp_path, weights, base="base", revision=None)
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_a_config_of_many_brackets_is_one_line(tiny_t5: T5ForConditionalGeneration, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("[" * 200_000)
    refused(tmp_path, linear_shapes(tiny_t5), r"adapter_config\.json: not JSON")
