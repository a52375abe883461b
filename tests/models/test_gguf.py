"""GGUF files: read by transformers, and written as ordinary weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mhrctl.errors import DataError
from mhrctl.models.backbones import fingerprint, load_pretrained, pretrained_config
from mhrctl.models.gguf import dequantise
from tests.models.gguf_files import WIDTH, WORDS, write_gguf


def test_a_file_becomes_ordinary_weights(tmp_path: Path) -> None:
    values = write_gguf(tmp_path / "tiny.gguf")
    assert pretrained_config(str(tmp_path), gguf="tiny.gguf").model_type == "llama"
    out = tmp_path / "out"
    assert dequantise(AutoModelForCausalLM, str(tmp_path), "tiny.gguf", out, revision=None, where="it") is None
    weights = load_file(out / "model.safetensors")
    for name, ours in (("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
        assert torch.equal(weights[f"model.layers.0.{ours}.weight"], torch.from_numpy(values[f"blk.0.{name}.weight"].copy()))
    assert {each.dtype for each in weights.values()} == {torch.float32}
    model, how = load_pretrained(str(out))
    assert (how.end, model.config.hidden_size, model.config.vocab_size) == ((1,), WIDTH, WORDS)
    assert fingerprint(model) == fingerprint(load_pretrained(str(out))[0])


def test_a_file_that_is_not_whole_is_rejected(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", lost="blk.0.ffn_up.weight")
    with pytest.raises(DataError, match=r"it: model.layers.0.mlp.up_proj.weight is missing"):
        dequantise(AutoModelForCausalLM, str(tmp_path), "tiny.gguf", tmp_path / "out", revision=None, where="it")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not one"])
def test_what_is_no_such_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiny.gguf").write_bytes(content)
    with pytest.raises(DataError, match=r"^it: cannot be loaded: "):
        dequantise(AutoModelForCausalLM, str(tmp_path), "tiny.gguf", tmp_path / "out", revision=None, where="it")
