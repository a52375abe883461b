"""Backbones are loaded, checked and identified."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, T5Config

from mhrctl.artifacts.cards import Card, read_card, require_backbone
from mhrctl.artifacts.facts import AdaptFacts, BackboneFacts, PretrainFacts
from mhrctl.artifacts.names import TOKENIZER
from mhrctl.artifacts.reading import reading
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import ArtifactError, DataError

T5_SIZES: dict[str, dict[str, Any]] = {
    "t5-small": {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "t5-base": {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "t5-large": {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "t5-xl": {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "t5-xxl": {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
}
"""T5 v1.1 and its LM-adapted checkpoints."""

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
    pretrained_config(name, revision=revision)
    try:
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(
            name, revision=revision, trust_remote_code=False, dtype=dtype
        )
    except (OSError, ValueError) as error:
        raise DataError(f"backbone.name {name!r}: cannot be loaded: {str(error).splitlines()[0]}") from error
    model.eval()
    return model


def load_backbone(folder: Path) -> tuple[PreTrainedModel, str]:
    """Load what the backbone stage left, in fp32, and check that it is still the same.

    Returns:
        The model, and the fingerprint of its weights.

    Raises:
        ArtifactError: if there is no backbone, or its weights have changed since.
    """
    card = read_card(folder, stage="backbone", command="mhrctl backbone")
    name = location(folder, card)
    with reading(folder, but="*.safetensors"):  # the fingerprint proves the weights
        model = load_pretrained(name, revision=card.facts.revision, dtype=torch.float32)
    recorded = card.facts.fingerprint
    if fingerprint(model) != recorded:
        raise ArtifactError(f"{folder}: the weights of {name} are not those that the card names; run `mhrctl backbone`")
    return model, recorded


def location(folder: Path, card: Card[BackboneFacts]) -> str:
    """Return where the weights of a backbone are: a hub id or a folder.

    Args:
        folder: the output of the backbone stage.
        card: of that output.
    """
    if card.facts.source == "hub":
        return card.facts.name
    return str(folder / (card.facts.path or "")) if card.facts.source == "local" else str(folder)


def shape_model(config: PretrainedConfig, *, tied: bool = True) -> PreTrainedModel:
    """Build a backbone without storage, to count and to check names.

    Args:
        config: of an encoder-decoder.
        tied: whether transformers may tie output layer and embedding, as it does in every T5 made from a config.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config)
        if not tied:
            model.set_output_embeddings(torch.nn.Linear(config.d_model, config.vocab_size, bias=False))
    return model


def sized_model(name: str) -> PreTrainedModel:
    """Build a T5 v1.1 of a known size, or what a hub id or a folder has the config of, without storage.

    Raises:
        DataError: if there is no such size or config.
    """
    if name not in T5_SIZES:
        return shape_model(pretrained_config(name, what=f"--backbone (a size: {', '.join(T5_SIZES)}; or a config)"))
    config = T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **T5_SIZES[name])
    return shape_model(config, tied=False)  # v1.1 and LM-adapted checkpoints have an output layer of their own


def pretrained_config(name: str, *, revision: str | None = None, what: str = "backbone.name") -> PretrainedConfig:
    """Read the config of an encoder-decoder.

    Args:
        name: hub id or folder.
        revision: on the hub.
        what: names the setting in errors.

    Raises:
        DataError: if there is none, or it is no encoder-decoder's.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{what} {name!r}: cannot be loaded: {str(error).splitlines()[0]}") from error
    if not config.is_encoder_decoder:
        raise DataError(f"{what} {name!r}: a {config.model_type} model; an encoder-decoder (T5 and kin) is needed")
    return config


def fingerprint(model: PreTrainedModel) -> str:
    """Return the sha256 of names, shapes and values of all weights."""
    total = hashlib.sha256()
    # By bytes, since bf16 has no counterpart in NumPy; sorted, since the order of modules is transformers' affair.
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether the output layer is the input embedding."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight


def open_backbone(
    prepared: Path, backbone: Path, attached: Card[PretrainFacts | AdaptFacts] | None, folder: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load backbone and tokenizer in fp32, and check that they are those that an adapter was made for.

    Args:
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        attached: card of the adapter; None for the bare backbone.
        folder: of the adapter, for the error.

    Raises:
        ArtifactError: if an input folder is missing, or `attached` belongs to another backbone.
    """
    read_card(prepared, stage="prepare", command="mhrctl prepare")
    model, fingerprint = load_backbone(backbone)
    if attached is not None and folder is not None:
        require_backbone(attached, folder, fingerprint, backbone)
    return model, saved_tokenizer(prepared / TOKENIZER)
