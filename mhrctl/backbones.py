"""Backbones: loading, checking, identifying."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel

from mhrctl import artifacts
from mhrctl.errors import ArtifactError, DataError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_pretrained(name: str, *, revision: str | None = None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load an encoder-decoder through transformers: safetensors where there are any, no code of the repository.

    Checkpoints whose output layer differs from the input embedding (T5 v1.1 and LM-adapted) keep it so, although
    transformers 5 sets `tie_word_embeddings` for every T5.

    Args:
        name: hub id or folder.
        revision: on the hub.
        dtype: of the weights.

    Raises:
        DataError: if there is no such model, or it is no encoder-decoder.
    """
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        if not config.is_encoder_decoder:
            raise DataError(f"backbone.name {name!r}: a {config.model_type} model; an encoder-decoder (T5 and kin) is needed")
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(
            name, revision=revision, trust_remote_code=False, dtype=dtype
        )
    except (OSError, ValueError) as error:
        raise DataError(f"backbone.name {name!r}: cannot be loaded: {str(error).splitlines()[0]}") from error
    model.eval()
    return model


def load_backbone(folder: Path, *, precision: str = "fp32") -> tuple[PreTrainedModel, str]:
    """Load what the backbone stage left, and check that it is still the same.

    Args:
        folder: the output of the backbone stage.
        precision: `fp32` or `bf16`.

    Returns:
        The model, and the fingerprint of its fp32 weights.

    Raises:
        ArtifactError: if there is no backbone, or its weights have changed since.
    """
    card = artifacts.read_card(folder, stage="backbone", command="mhrctl backbone")
    name = card.facts["name"] if card.facts["source"] != "scratch" else str(folder)
    model = load_pretrained(name, revision=card.facts["revision"], dtype=torch.float32)
    recorded: str = card.facts["fingerprint"]
    if fingerprint(model) != recorded:
        raise ArtifactError(f"{folder}: the weights of {name} are not those that the card names; run `mhrctl backbone`")
    model.to(dtype=PRECISIONS[precision])  # type: ignore[call-arg]
    return model, recorded


def fingerprint(model: PreTrainedModel) -> str:
    """The sha256 of names, shapes and values of all weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output layer is the input embedding."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight
