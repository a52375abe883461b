"""Sizes of cells: against what the stages write, and T5 against transformers."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from transformers import BartConfig, BertConfig, LlamaConfig, LlamaForCausalLM, T5Config

from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.config.cells import Cell
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.config.sections import BackboneParams
from mhrctl.errors import DataError, ParamsError
from mhrctl.models.attach import linear_shapes
from mhrctl.models.backbones import T5_SIZES, shape_model
from mhrctl.stages.backbone import causal_config
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.estimate import (
    activations,
    backbone_shape,
    estimate,
    framing_needed,
    heads_divide,
    human_size,
    t5_shape,
)
from mhrctl.tools.operations import Lengths

TOY = TaskCounts(training=3, datasets=3, test=2)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_t5_has_the_layers_and_weights_of_transformers(gated: bool, tied: bool) -> None:
    sizes = {**T5_SIZES["t5-small"], "num_decoder_layers": 3, "vocab_size": 500}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu" if gated else "relu")
    model = shape_model(config, tied=tied)
    shape = t5_shape(config.to_dict() | {"tie_word_embeddings": tied})
    assert shape.weights == model.num_parameters()
    assert list(shape.linears.items()) == list(linear_shapes(model).items())


def test_estimates_are_what_the_stages_write(walked_all: Path) -> None:
    where = Project(walked_all)
    settings = load_params(where.params)
    shape = backbone_shape(settings.params.backbone, where.root, vocab_size(where))
    assert shape is not None
    facts = json.loads((where.output("backbone") / "card.json").read_text())["facts"]
    assert shape.weights == facts["parameters"]
    compared = 0
    for folder in sorted(where.output("adapt").iterdir()):
        card = json.loads((folder / "card.json").read_text())
        params = resolve_cell(settings, Cell.model_validate(card["params"]["cell"] | {"settings": ()}))
        for (stage, cell), size in estimate(params, shape, TOY).outputs.items():
            written = numbers(where.output(stage, cell) / ADAPTERS)
            assert 4 * written == size, (stage, cell)
            compared += 1
    assert compared > 25


def vocab_size(where: Project) -> int:
    return json.loads((where.output("prepare") / "card.json").read_text())["facts"]["vocab_size"]


def numbers(path: Path) -> int:
    """What a safetensors file holds, by its header."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    return sum(end - start for start, end in spans) // 4


def test_memory_grows_with_precision_tasks_and_optimizer(project: Path) -> None:
    settings = load_params(project / "params.yaml")
    shape = backbone_shape(settings.params.backbone, project, 100)
    assert shape is not None
    cell = Cell(method="lora")
    lora = sum(d_in + d_out for name, (d_in, d_out) in shape.linears.items() if name != "lm_head")
    base = estimate(resolve_cell(settings, cell), shape, TaskCounts(3, 3, 10))
    assert base.memory == 4 * shape.weights + 4 * 4 * lora * 10  # adapting ten tasks: value, gradient and AdamW's two
    assert base.checkpoint == 3 * 4 * 3 * lora  # the last two, and one while it is written
    best = load_params(project / "params.yaml", ["pretrain.keep=best", "pretrain.validate_every=2"])
    assert estimate(resolve_cell(best, cell), shape, TaskCounts(3, 3, 10)).checkpoint == 3 * 4 * 4 * lora  # the best step too
    half = load_params(
        project / "params.yaml", ["adapt.precision=bf16", "pretrain.precision=bf16", "adapt.optimizer=adafactor"]
    )
    assert estimate(resolve_cell(half, cell), shape, TaskCounts(3, 3, 10)).memory == 2 * shape.weights + 4 * 3 * lora * 10


def test_heads_that_do_not_divide_and_targets_that_are_none_are_rejected(project: Path) -> None:
    settings = load_params(project / "params.yaml")
    shape = backbone_shape(settings.params.backbone, project, 100)
    assert shape is not None
    with pytest.raises(ParamsError, match=r"cell mhr-h3-s0: 3 heads do not divide layer encoder.* of shape 16 x 16"):
        estimate(resolve_cell(settings, Cell(method="mhr", heads=3)), shape, TOY)
    wrong = load_params(project / "params.yaml", ["pretrain.targets=[query]"])
    with pytest.raises(ParamsError, match=r"pretrain.targets: no linear layer is named 'query'"):
        estimate(resolve_cell(wrong, Cell(method="lora")), shape, TOY)


def test_backbones_are_known_from_a_folder_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = BackboneParams(source="local", name="bart")
    with pytest.raises(DataError, match=r"bart/config.json: no config of a backbone can be read"):
        backbone_shape(local, tmp_path, 0)
    config = BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=50)
    config.save_pretrained(tmp_path / "bart")
    shape = backbone_shape(local, tmp_path, 0)
    assert shape is not None
    assert shape.linears["model.encoder.layers.0.fc1"] == (16, 32)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: None)
    assert backbone_shape(BackboneParams(source="hub", name="a/b", revision="main"), tmp_path, 0) is None
    T5Config(**T5_SIZES["t5-small"]).save_pretrained(tmp_path / "cached")
    cached = str(tmp_path / "cached/config.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: cached)
    shape = backbone_shape(BackboneParams(source="hub", name="a/b", revision="main"), tmp_path, 0)
    assert shape is not None
    assert shape.linears["encoder.block.0.layer.0.SelfAttention.q"] == (512, 384)


def test_well_known_backbones_need_no_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: None)

    def weights(name: str) -> int | None:
        shape = backbone_shape(BackboneParams(source="hub", name=name, revision="main"), tmp_path, 0)
        return None if shape is None else shape.weights

    for name in ("google/t5-xl-lm-adapt", "google/t5-v1_1-xl", "google/flan-t5-xl", "bigscience/T0_3B"):
        assert weights(name) == 2_849_757_184
    assert weights("bigscience/T0pp") == weights("google/t5-v1_1-xxl") == 11_135_332_352
    assert weights("google/flan-t5-small") == 76_961_152
    assert weights("google-t5/t5-base") is None  # of the first version
    assert weights("somebody/t5-v1_1-xl") is None


def test_sizes_as_people_read_them() -> None:
    assert [human_size(size) for size in (0, 940, 1200, 45_600_000, 7.25e11, 3e12)] == [
        "0 B",
        "940 B",
        "1.2 kB",
        "46 MB",
        "725 GB",
        "3.0 TB",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("num_layers", 10**8), ("d_model", "x"), ("vocab_size", 0), ("num_decoder_layers", -1)]
)
def test_sizes_that_no_t5_has_are_rejected_at_once(tmp_path: Path, name: str, value: object) -> None:
    params = BackboneParams(source="local", name="t5")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5/config.json").write_text(json.dumps({"model_type": "t5", name: value}))
    with pytest.raises(DataError, match=rf"t5/config.json: {name} {value!r}: must be a whole number from 1 to"):
        backbone_shape(params, tmp_path, 100)
    (tmp_path / "t5/config.json").write_text(json.dumps({"model_type": "t5"}))
    shape = backbone_shape(params, tmp_path, 100)
    assert shape is not None
    assert shape.weights == shape_model(T5Config()).num_parameters()


def llama(folder: Path) -> LlamaConfig:
    """The config of a Llama with grouped queries, whose keys and values are narrow."""
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=100,
        pad_token_id=0,
    )
    config.save_pretrained(folder)
    return config


def test_a_decoder_only_backbone_is_known_from_its_config(tmp_path: Path) -> None:
    config = llama(tmp_path / "llama")
    shape = backbone_shape(BackboneParams(source="local", name="llama"), tmp_path, 0)
    assert shape is not None
    assert shape.linears["model.layers.1.self_attn.v_proj"] == (64, 16)
    assert shape.weights == LlamaForCausalLM(config).num_parameters()


def test_heads_must_divide_narrow_keys_and_values(tmp_path: Path, project: Path) -> None:
    llama(tmp_path / "llama")
    shape = backbone_shape(BackboneParams(source="local", name="llama"), tmp_path, 0)
    assert shape is not None
    settings = load_params(project / "params.yaml")
    assert estimate(resolve_cell(settings, Cell(method="mhr", heads=16)), shape, TOY).disk > 0
    said = (
        r"^cell mhr-h32-s0: 32 heads do not divide layer model\.layers\.0\.self_attn\.k_proj of shape 64 x 16;"
        r" all layers can have 1, 2, 4, 8, 16$"
    )
    with pytest.raises(ParamsError, match=said):  # though they divide all other widths
        estimate(resolve_cell(settings, Cell(method="mhr", heads=32)), shape, TOY)


def test_a_scratch_backbone_of_either_architecture_is_what_will_be_trained(project: Path) -> None:
    llama_, t5 = (
        load_params(project / "params.yaml", sets).params.backbone
        for sets in (["backbone.scratch.architecture=llama", "prepare.framing=causal"], [])
    )
    shape = backbone_shape(llama_, project, 100)
    assert shape is not None
    assert shape.linears["model.layers.0.mlp.up_proj"] == (16, 32)
    assert shape.weights == LlamaForCausalLM(causal_config(llama_.scratch, 100)).num_parameters()
    assert (framing_needed(llama_, project), framing_needed(t5, project)) == ("causal", "encoder_decoder")


def test_the_framing_that_a_backbone_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama(tmp_path / "llama")
    BartConfig().save_pretrained(tmp_path / "bart")
    T5Config().save_pretrained(tmp_path / "t5")
    BertConfig().save_pretrained(tmp_path / "bert")
    needed = {name: framing_needed(BackboneParams(source="local", name=name), tmp_path) for name in ("llama", "bart", "t5")}
    assert needed == {"llama": "causal", "bart": "encoder_decoder", "t5": "encoder_decoder"}
    with pytest.raises(DataError, match=r"backbone.name 'bert': a bert model; an encoder-decoder .* or a causal"):
        framing_needed(BackboneParams(source="local", name="bert"), tmp_path)
    hub = BackboneParams(source="hub", name="a/b", revision="main")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: None)
    assert framing_needed(hub, tmp_path) is None
    t0 = BackboneParams(source="hub", name="bigscience/T0_3B", revision="main")
    assert framing_needed(t0, tmp_path) == "encoder_decoder"  # by its name
    cached = str(tmp_path / "llama/config.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: cached)
    assert framing_needed(hub, tmp_path) == "causal"


def test_a_batch_leaves_what_goes_into_layers_and_comes_out(project: Path) -> None:
    settings = load_params(project / "params.yaml", ["pretrain.batch_size=50", "adapt.batch_size=1"])
    shape = backbone_shape(settings.params.backbone, project, 100)
    assert shape is not None
    longest = Lengths(10, 3)
    by_name = {name: d_in + d_out for name, (d_in, d_out) in shape.linears.items()}
    crossing = [name for name in by_name if name.endswith(("EncDecAttention.k", "EncDecAttention.v"))]
    inputs = sum(by_name[name] for name in by_name if name.startswith("encoder") or name in crossing)
    assert activations(shape, longest) == 10 * inputs + 3 * (sum(by_name.values()) - inputs)
    lora = sum(d_in + d_out for name, (d_in, d_out) in shape.linears.items() if name != "lm_head")
    for method, at_once in (("lora", 1), ("adapter_soup", 3)):  # of which the latter trains data sets side by side
        cell = resolve_cell(settings, Cell(method=method))
        memory = estimate(cell, shape, TOY, longest).memory
        batch = at_once * 50 * 4 * activations(shape, longest)
        assert memory == 4 * shape.weights + 4 * 4 * lora * at_once + batch
        alone = estimate(cell, shape, TOY, longest, together=1).memory
        assert alone - 4 * shape.weights == (memory - 4 * shape.weights) / at_once


@pytest.mark.parametrize(("heads", "divide"), [(1, True), (4, True), (16, True), (3, False), (32, False)])
def test_heads_divide_what_adapters_can_be_made_of(project: Path, heads: int, divide: bool) -> None:
    settings = load_params(project / "params.yaml")
    shape = backbone_shape(settings.params.backbone, project, 100)
    assert shape is not None
    params = resolve_cell(settings, Cell(method="mhr", heads=heads))
    for targets in ("full", ["q", "v"], r".*\.wo"):
        chosen = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"targets": targets})})
        with nullcontext() if divide else pytest.raises(ParamsError, match="do not divide layer"):
            estimate(chosen, shape, TOY)
        assert heads_divide(chosen, shape) == divide


def test_targets_that_are_none_are_rejected_with_heads_too(project: Path) -> None:
    settings = load_params(project / "params.yaml", ["pretrain.targets=[query]"])
    shape = backbone_shape(settings.params.backbone, project, 100)
    assert shape is not None
    with pytest.raises(ParamsError, match=r"pretrain.targets: no linear layer is named 'query'"):
        heads_divide(resolve_cell(settings, Cell(method="mhr", heads=4)), shape)
