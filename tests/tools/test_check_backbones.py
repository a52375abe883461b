"""What a backbone does not allow is a line of `mhrctl check`, before anything is trained."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, BertConfig, PretrainedConfig

from mhrctl.artifacts.names import Project
from mhrctl.config.resolve import load_params
from mhrctl.config.sections import BackboneParams
from mhrctl.data.tokenization import train_tokenizer
from mhrctl.errors import DataError, ParamsError
from mhrctl.tools.check import check_backbone
from mhrctl.tools.estimate import backbone_shape, framing_needed
from tests.conftest import PARAMS, Run, write_tasks
from tests.models.families import DECODERS, SIZES
from tests.models.gguf_files import WORDS, write_gguf


def project_on(folder: Path, config: PretrainedConfig | None, *, framing: str = "causal", **settings: str) -> Path:
    """A project that is prepared for a backbone of which there is a config alone, and a tokenizer."""
    tokenizer = train_tokenizer("word", ["a b c d e f", "g h i j"], vocab_size=80, ends_texts=False)
    tokenizer.save_pretrained(str(folder / "model"))
    if config is not None:
        config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        config.save_pretrained(folder / "model")
    write_tasks(folder / "tasks")
    lines = PARAMS.replace("  tokenizer: word\n", f"  tokenizer: model\n  framing: {framing}\n").splitlines()
    start = lines.index("backbone:") + 1
    said = [f"  {name}: {value}" for name, value in {"source": "local", "name": "model", **settings}.items()]
    (folder / "params.yaml").write_text("\n".join([*lines[:start], *said, *lines[start + 2 :], ""]))
    return folder


def causal(kind: str, **settings: Any) -> PretrainedConfig:
    return AutoConfig.for_model(kind, **SIZES | DECODERS.get(kind, {}) | settings)


def complaints(project: Path, run: Run, capfd: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """What `mhrctl check` says is wrong, but for the grid, which is not synced."""
    capfd.readouterr()
    code, lines = run("check", *options, "-C", project), capfd.readouterr().err.splitlines()
    assert code == 2 * bool(lines)
    return [line for line in lines if line.startswith("error: ") and "mhrctl grid sync" not in line]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_that_no_adapter_reaches_are_said(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    settings = {name: value for name, value in (SIZES | DECODERS[kind]).items() if value is not None}
    project = project_on(tmp_path, AutoConfig.for_model(kind, **settings))
    (line,) = complaints(project, run, capfd)
    assert "pretrain.targets: layout full: the " in line
    assert line.endswith(" experts of a layer are no linear layers, so they would be left out; set targets: attention")
    assert complaints(project, run, capfd, "--set", "pretrain.targets=attention") == []


def test_a_config_without_settings_of_generation_has_none_that_are_passed_over(tmp_path: Path) -> None:
    project = project_on(tmp_path, causal("qwen3_moe"))
    assert check_backbone(load_params(project / "params.yaml").params, Project(project)) == []


def test_heads_must_divide_the_keys_of_grouped_queries(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    project = project_on(tmp_path, causal("llama", num_key_value_heads=1, head_dim=6))
    (line,) = complaints(project, run, capfd)
    assert line.endswith(
        "cell mhr-h4-s0: 4 heads do not divide layer model.layers.0.self_attn.k_proj of shape 32 x 6; all layers can have 1, 2"
    )


def test_examples_must_be_framed_for_it(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    project = project_on(tmp_path, causal("llama"), framing="encoder_decoder")
    (line,) = complaints(project, run, capfd)
    assert line == "error: prepare.framing encoder_decoder: model is a causal language model; set prepare.framing: causal"


def test_an_encoder_is_none(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    config = BertConfig(vocab_size=97, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    (line,) = complaints(project_on(tmp_path, config), run, capfd)
    assert line.endswith(
        "'model': a bert model; an encoder-decoder (such as T5) or a causal language model (such as Llama) is needed"
    )


def test_weights_that_are_quantised_already_are_said(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    project = project_on(tmp_path, causal("llama"))
    path = project / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "awq", "bits": 4}}))
    (line,) = complaints(project, run, capfd)
    assert line.startswith("error: backbone.name 'model': its weights are quantised already (awq); name the model that they")


def test_what_would_change_quantised_weights_is_said(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_on(tmp_path, causal("llama"), quantisation="nf4")
    monkeypatch.setattr("mhrctl.tools.check.find_spec", lambda _package: None)
    assert complaints(project, run, capfd) == []
    run("check", "-C", project)
    assert "warning: backbone.quantisation nf4 needs the package bitsandbytes, which is not" in capfd.readouterr().out
    params = project / "params.yaml"
    params.write_text(params.read_text() + "    full_ft:\n    full_ft_then_lora:\n")
    (line,) = complaints(project, run, capfd)
    assert line == (
        "error: backbone.quantisation nf4: full_ft, full_ft_then_lora would change weights that are quantised; leave it out,"
        " or the method out of grid.methods"
    )


def test_quantised_weights_are_smaller(tmp_path: Path) -> None:
    project_on(tmp_path, causal("llama"))
    shapes = {
        name: backbone_shape(BackboneParams(source="local", name="model", quantisation=name), tmp_path, 0)
        for name in (None, "nf4", "int8")
    }
    whole = shapes[None]
    assert whole is not None
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert whole.size(4) == 4 * whole.weights
    assert {name: shape.size(4) for name, shape in shapes.items() if shape and name} == {
        "nf4": 4 * (whole.weights - linear) + int(4.13 / 8 * linear),
        "int8": 4 * (whole.weights - linear) + linear,
    }


def test_a_gguf_file_is_looked_at(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    project = project_on(tmp_path, None, gguf="tiny.gguf")
    params = BackboneParams(source="local", name="model", gguf="tiny.gguf")
    for look in (lambda: framing_needed(params, project), lambda: backbone_shape(params, project, 0)):
        with pytest.raises(DataError, match=r"^backbone.gguf 'tiny.gguf': there is no such file in .*model$"):
            look()
    write_gguf(project / "model/tiny.gguf")
    shape = backbone_shape(params, project, 0)
    assert shape is not None
    assert shape.weights == WORDS * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32
    assert framing_needed(params, project) == "causal"
    with pytest.raises(ParamsError, match=r"^prepare.framing encoder_decoder: model is a causal language model; set"):
        check_backbone(load_params(project / "params.yaml", ["prepare.framing=encoder_decoder"]).params, Project(project))
    with pytest.raises(DataError, match=r"^prepare.tokenizer 'model': texts end with </s> \(1\), but .* stops at 7;"):
        said = ["backbone.generation={eos_token_id: 7}"]
        check_backbone(load_params(project / "params.yaml", said).params, Project(project))
    params_file = project / "params.yaml"
    params_file.write_text(params_file.read_text().replace("mhr: {heads: [4]}", "mhr: {heads: [24]}"))
    (line,) = complaints(project, run, capfd)
    assert line.endswith(
        "24 heads do not divide layer model.layers.0.self_attn.q_proj of shape 32 x 32; all layers can have 1, 2, 4, 8, 16, 32"
    )


def test_a_gguf_file_that_nothing_reads_is_not_looked_at(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_on(tmp_path, None, gguf="tiny.gguf")
    (project / "model/tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("mhrctl.tools.estimate.find_spec", lambda name: None if name == "gguf" else find_spec(name))
    assert run("grid", "sync", "-C", project) == 0
    assert complaints(project, run, capfd) == []
    run("check", "-C", project)
    assert "the config is in tiny.gguf, which the package gguf, if it is installed, reads" in capfd.readouterr().out
