"""Checkpoints are whole, or nothing is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration, PreTrainedModel, T5ForConditionalGeneration

from mhrctl.errors import DataError
from mhrctl.models.checkpoint import load_whole

Q = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture
def folder(tmp_path: Path, tiny_t5: T5ForConditionalGeneration) -> Path:
    tiny_t5.save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def load(folder: Path) -> PreTrainedModel:
    return load_whole(AutoModelForSeq2SeqLM, str(folder), where="it", revision=None, dtype=torch.float32)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_whole_checkpoint_is_loaded_bit_for_bit(folder: Path, tiny_t5: T5ForConditionalGeneration) -> None:
    loaded = load(folder).state_dict()
    assert loaded.keys() == tiny_t5.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tiny_t5.state_dict().items())


def test_every_tensor_that_is_taken_away_is_missed(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    for name in whole:
        save_file({key: tensor for key, tensor in whole.items() if key != name}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(DataError, match=r"^it: .* missing of the weights that config.json asks for"):
            load(folder)


def test_layers_that_config_and_weights_do_not_share_are_named(folder: Path) -> None:
    configure(folder, num_layers=2)
    with pytest.raises(DataError, match=r"it: encoder.block.1\S+, \S+, \S+ and 6 more are missing of the weights"):
        load(folder)
    configure(folder, num_layers=1, num_decoder_layers=1)
    rewrite(folder, lambda tensors: tensors.update({Q.replace("block.0", "block.1"): torch.ones(16, 16)}))
    with pytest.raises(DataError, match=r"it: encoder.block.1\S+ is there, for which config.json has no place"):
        load(folder)


def test_shapes_that_differ_are_named(folder: Path) -> None:
    configure(folder, d_ff=64)
    with pytest.raises(DataError, match=r"wi_0.weight is \[32, 16\], config.json asks for \[64, 16\], and \d more"):
        load(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_stored_as_no_floats_are_rejected(folder: Path, kind: torch.dtype) -> None:
    rewrite(folder, lambda tensors: tensors.update({Q: tensors[Q].to(kind)}))
    with pytest.raises(DataError, match=rf"it: {Q} is stored as \w+; a backbone's weights must be BF16, F16, F32, F64"):
        load(folder)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_other_widths_are_read(folder: Path, kind: torch.dtype) -> None:
    rewrite(folder, lambda tensors: tensors.update({Q: tensors[Q].to(kind)}))
    assert load(folder).state_dict()[Q].dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_rejected(folder: Path, value: float) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[Q][1, 2] = value

    rewrite(folder, spoil)
    with pytest.raises(DataError, match=rf"^it: {Q} holds NaN or infinity$"):
        load(folder)


def test_an_output_layer_of_its_own_that_is_missing_is_not_made_of_the_embedding(folder: Path) -> None:
    configure(folder, tie_word_embeddings=False)
    with pytest.raises(DataError, match=r"it: lm_head.weight is missing of the weights, though config.json says"):
        load(folder)
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(64, 16)}))
    assert torch.equal(load(folder).state_dict()["lm_head.weight"], torch.ones(64, 16))


@pytest.mark.parametrize("size", [0, 7, 300, -1])
def test_a_file_that_was_cut_is_named(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"t5/model.safetensors: cannot be loaded: "):
        load(folder)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_weights_that_are_no_file_are_named_and_never_waited_for(folder: Path, make: Callable[[Path], None]) -> None:
    path = folder / "model.safetensors"
    path.unlink()
    make(path)
    with pytest.raises(DataError, match=r"model.safetensors: is no ordinary file; the weights of .*t5 should be in it"):
        load(folder)


def test_a_file_of_several_that_is_missing_is_named(folder: Path, tiny_t5: T5ForConditionalGeneration) -> None:
    (folder / "model.safetensors").unlink()
    tiny_t5.save_pretrained(folder, max_shard_size="10KB")
    load(folder)
    shard = min(folder.glob("model-00002-*.safetensors"))
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: is missing; the weights of .*t5 should be in it"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(DataError, match=r"index.json: cannot be read as JSON"):
        load(folder)


def test_pickles_of_tensors_are_read_and_no_others(folder: Path, tiny_t5: T5ForConditionalGeneration) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_t5.state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(load(folder).state_dict()[Q], tiny_t5.state_dict()[Q])
    torch.save({"shared.weight": Planted(folder / "planted")}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model.bin: cannot be loaded: its file is damaged, or builds Python objects"):
        load(folder)
    assert not (folder / "planted").exists()


class Planted:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_another_architecture_with_its_buffers_is_whole(tmp_path: Path, tiny_bart: BartForConditionalGeneration) -> None:
    tiny_bart.save_pretrained(tmp_path)
    assert isinstance(load(tmp_path).get_output_embeddings(), nn.Linear)
    rewrite(tmp_path, lambda tensors: tensors.__delitem__("model.decoder.layers.0.fc1.bias"))
    with pytest.raises(DataError, match=r"it: model.decoder.layers.0.fc1.bias is missing"):
        load(tmp_path)


def test_a_folder_of_an_adapter_is_no_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"it: holds an adapter of PEFT, not a whole model"):
        load(folder)
