"""A project goes from a backbone that is quantised to scores; what would change its weights is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.errors import ArtifactError
from mhrctl.models.backbones import load_backbone
from mhrctl.models.layer import AdaptedQuantised
from mhrctl.models.quantised import is_quantised
from tests.conftest import PARAMS, Run, write_tasks
from tests.models.gguf_files import write_gguf

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it


def write_project(folder: Path, **backbone: str) -> Path:
    """A project on a small Llama in a folder of its own."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=80, num_hidden_layers=1, eos_token_id=1, bos_token_id=None, pad_token_id=0, **sizes)  # type: ignore[arg-type]
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder / "llama")
    write_tasks(folder / "tasks")
    lines = PARAMS.replace("  tokenizer: word\n", "  tokenizer: word\n  framing: causal\n").splitlines()
    settings = [f"  {name}: {value}" for name, value in {"source": "local", "name": "llama", **backbone}.items()]
    start = lines.index("backbone:") + 1
    (folder / "params.yaml").write_text("\n".join([*lines[:start], *settings, *lines[start + 2 :], "    full_ft:"]))
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "card.json").read_text())["facts"]
    return facts


@pytest.mark.parametrize(
    ("quantisation", "package"), [("nf4", "bitsandbytes"), ("int8", "torchao"), ("llm_int8", "bitsandbytes")]
)
def test_a_quantised_backbone_goes_through_the_stages(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], quantisation: str, package: str
) -> None:
    pytest.importorskip(package)
    project = write_project(tmp_path, quantisation=quantisation)
    frozen = project / "data/backbone"
    for stage in ("prepare", "backbone"):
        assert run(stage, "-C", project) == 0
    facts = facts_of(frozen)
    assert facts["quantisation"] == quantisation
    assert facts["packing"] is True
    assert facts["parameters"] == LlamaForCausalLM.from_pretrained(project / "llama").num_parameters()
    assert "config" not in facts
    assert not [path for path in frozen.iterdir() if path.is_dir()]
    model, fingerprint = load_backbone(frozen)
    assert is_quantised(model)
    assert fingerprint == facts["fingerprint"]
    (project / "llama/model.safetensors").unlink()  # what is computed with is in the output
    for stage in ("pretrain", "adapt", "evaluate"):
        assert run(stage, "-m", "lora", "-C", project) == 0, stage
    assert (project / "data/metrics/evaluate/lora-s0.json").exists()
    with safe_open(str(project / "data/pretrain/lora-s0" / ADAPTERS), framework="pt") as tensors:
        assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.float32}  # noqa: SIM118 - no mapping
    capfd.readouterr()
    assert run("pretrain", "-m", "full_ft", "-C", project) == 2
    assert "error: --method full_ft: this changes the backbone's weights, which are quantised" in capfd.readouterr().err
    assert run("export", "-m", "lora", "--merge", "-C", project) == 2
    assert "error: --merge: this changes the backbone's weights, which are quantised" in capfd.readouterr().err


def test_an_export_names_the_model_and_how_it_was_quantised(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("bitsandbytes")
    project = write_project(tmp_path, quantisation="nf4")
    for step in (["prepare"], ["backbone"], ["pretrain", "-m", "lora"], ["export", "-m", "lora", "--stage", "pretrain"]):
        assert run(*step, "-C", project) == 0, step
    folder = project / "data/export/pretrain/lora-s0"
    base = facts_of(folder)["base"]
    assert base == {"source": "local", "name": str(project / "llama"), "revision": None, "quantisation": "nf4"}
    assert "its linear layers were quantised meanwhile (`nf4`)" in (folder / "README.md").read_text()
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(project / "llama"), folder)
    assert wrapped.peft_config["default"].base_model_name_or_path == str(project / "llama")


def test_weights_that_were_edited_are_noticed(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("bitsandbytes")
    project = write_project(tmp_path, quantisation="nf4")
    for stage in ("prepare", "backbone"):
        assert run(stage, "-C", project) == 0
    file = project / "data/backbone/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"the weights of .* are not those that the card names"):
        load_backbone(project / "data/backbone")


def test_a_gguf_file_can_be_quantised_again(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("bitsandbytes")
    project = write_project(tmp_path, gguf="tiny.gguf", quantisation="nf4")
    write_gguf(project / "llama/tiny.gguf")
    for step in (["prepare"], ["backbone"], ["pretrain", "-m", "lora"]):
        assert run(*step, "-C", project) == 0, step
    output = project / "data/backbone"
    assert {path.name for path in output.iterdir()} == {
        "card.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert read_card(output, stage="backbone", command="").facts.gguf == "tiny.gguf"
    model, _ = load_backbone(output)
    assert is_quantised(model)
    assert not any(isinstance(layer, AdaptedQuantised) for layer in model.modules())


def test_what_is_wrong_with_a_quantisation_is_a_line(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project(tmp_path, quantisation="nf4")
    assert run("prepare", "-C", project) == 0
    monkeypatch.setattr("mhrctl.models.quantised.find_spec", lambda _package: None)
    capfd.readouterr()
    assert run("backbone", "-C", project) == 2
    assert capfd.readouterr().err.startswith("error: backbone.quantisation nf4: needs the package bitsandbytes; run `pip")
    assert run("backbone", "--set", "backbone.quantisation=int3", "-C", project) == 2
    assert run("backbone", "--set", "backbone.source=scratch", "--set", "backbone.name=null", "-C", project) == 2
    assert "source scratch has no `quantisation`, since it is trained here; leave it out" in capfd.readouterr().err
