"""A GGUF file is read once, by transformers, and its weights are written as safetensors in fp32, which load in a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from mhrctl.adapters.finite import require_finite
from mhrctl.data.loading import loading, require_report
from mhrctl.errors import DataError
from mhrctl.hub import fetching
from mhrctl.models.backbones import pretrained_config
from mhrctl.models.checkpoint import WAY_OUT


def require_file(folder: Path, file: str) -> Path:
    """Return where a GGUF file is.

    Raises:
        DataError: if it is not there.
    """
    if not (folder / file).is_file():
        raise DataError(f"backbone.gguf {file!r}: there is no such file in {folder}")
    return folder / file


@cache
def gguf_config(folder: Path, file: str) -> PretrainedConfig:
    """Read the config out of a GGUF file in a folder; with a large vocabulary that takes half a minute, so it is done once.

    Raises:
        DataError: if there is none, or it is of no backbone.
    """
    require_file(folder, file)
    return pretrained_config(str(folder), what="backbone.gguf", name=file, gguf=file)


def dequantise(auto: Any, place: str, file: str, folder: Path, *, revision: str | None, where: str) -> str | None:  # noqa: ANN401
    """Write what a GGUF file holds into a folder: weights, config and settings of generation.

    Args:
        auto: a class of transformers that has `from_pretrained`.
        place: hub id or folder.
        file: its name there.
        folder: to write into.
        revision: on the hub.
        where: names the file in errors.

    Returns:
        The commit on the hub, if it came from there.

    Raises:
        DataError: if the file cannot be read, or holds no whole and finite weights of a model that transformers knows.
    """
    with loading(where), fetching(place, what=where, way_out=WAY_OUT, files=(file,), revision=revision):
        model, report = auto.from_pretrained(
            place,
            gguf_file=file,
            revision=revision,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    require_report(report, where)
    require_finite(model.state_dict(), where)
    _forget_quantisation(model)
    model.save_pretrained(str(folder))
    commit: str | None = getattr(model.config, "_commit_hash", None)
    return commit


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Make a model an ordinary one: its weights are dequantised, but transformers would not save what once was quantised."""
    for part, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(part, name):
            delattr(part, name)
