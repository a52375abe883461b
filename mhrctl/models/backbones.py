"""Backbones are loaded, checked and identified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
)

from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from
from mhrctl.artifacts.facts import AdaptFacts, BackboneFacts, PretrainFacts
from mhrctl.artifacts.names import TOKENIZER
from mhrctl.artifacts.reading import reading
from mhrctl.config.sections import QuantisationName
from mhrctl.config.tasks import FramingName
from mhrctl.data.loading import json_object, loading
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import ArtifactError, DataError
from mhrctl.hub import did_you_mean, fetching
from mhrctl.models.checkpoint import WAY_OUT, load_whole
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.generation import Answering, answering, apply, is_causal, require_readable
from mhrctl.models.quantised import loading_options, plain_tensors, require_unquantised, settle_layers

T5_SIZES: dict[str, dict[str, Any]] = {
    "t5-small": {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "t5-base": {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "t5-large": {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "t5-xl": {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "t5-xxl": {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
}
"""T5 v1.1 and its LM-adapted checkpoints."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


DEEPEST = 1000
"""Blocks that a config may ask for: no model has as many, and building them would take for ever."""
UNREAD = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""What a config.json says that changes nothing of what the model computes here."""


def load_pretrained(
    name: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    generation: Mapping[str, Any] | None = None,
    quantisation: QuantisationName | None = None,
    quantised: bool = False,
) -> tuple[PreTrainedModel, Answering]:
    """Load a language model through transformers: safetensors where there are any, no code of the repository.

    Of a checkpoint that reads images or sounds too, the part that reads texts is loaded. T5s whose output layer
    differs from the input embedding (v1.1 and LM-adapted) keep it so, although transformers 5 sets `tie_word_embeddings` for
    every T5.

    Args:
        name: hub id or folder.
        revision: on the hub.
        dtype: of the weights.
        generation: `backbone.generation` of params.yaml.
        quantisation: of the linear layers, while they are loaded.
        quantised: whether the backbone stage has quantised it.

    Returns:
        The model, and how it comes to answers, which its configs then say.

    Raises:
        DataError: if there is no such model, it is neither an encoder-decoder nor a causal model, its weights are not whole and
            finite, or a special token is not said.
    """
    where = f"backbone.name {name!r}"
    config = pretrained_config(name, revision=revision)
    require_sizes(config, where)
    require_readable(Path(name))
    says, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    if not quantised:
        require_unquantised(says, where)
    # The text model's config, of a checkpoint that holds more, is not the one that the checkpoint says.
    part = config if is_causal(config) and says.get("model_type") != config.model_type else None
    options = loading_options(quantisation) if quantised or quantisation else {}
    model = load_whole(auto_class(config), name, where=where, revision=revision, dtype=dtype, part=part, options=options)
    settle_layers(model)
    return model, settle(model, generation or {}, where=where)


def framing_of(config: PretrainedConfig) -> FramingName:
    """Return how prompts and targets must be framed for a model: the value of `prepare.framing`."""
    return "causal" if is_causal(config) else "encoder_decoder"


def auto_class(config: PretrainedConfig) -> Any:  # noqa: ANN401 - a class of transformers
    """Return the class of transformers that loads models of a config's kind."""
    return AutoModelForCausalLM if is_causal(config) else AutoModelForSeq2SeqLM


def settle(model: PreTrainedModel, generation: Mapping[str, Any], *, where: str) -> Answering:
    """Decide how a model comes to answers, and make it so.

    Args:
        model: with the generation config of its checkpoint.
        generation: `backbone.generation` of params.yaml.
        where: names the model in errors.

    Raises:
        DataError: if a special token is not said.
    """
    how = answering(model.config, model.generation_config, generation, where=where, vocabulary=vocabulary(model))
    apply(model, how)
    return how


def load_backbone(folder: Path) -> tuple[PreTrainedModel, str]:
    """Load what the backbone stage left, in fp32, and check that it is still the same.

    Returns:
        The model, and the fingerprint of its weights.

    Raises:
        ArtifactError: if there is no backbone, or its weights or settings have changed since.
    """
    card = read_card(folder, stage="backbone", command="mhrctl backbone")
    name, recorded = location(folder, card), card.facts
    generation = card.params.get("generation", {})
    try:
        with reading(folder, but="*.safetensors"):  # the fingerprint proves the weights
            quantised = recorded.quantisation is not None
            model, how = load_pretrained(name, revision=recorded.revision, generation=generation, quantised=quantised)
    except DataError as error:
        if name == str(folder):  # which is no input of the user's
            raise ArtifactError(f"{error}; run `mhrctl backbone --force`") from error
        raise
    changed = "weights" if fingerprint(model, how.settings) != recorded.fingerprint else None
    if how.settings != recorded.generation:
        changed = "settings of generation"
    if recorded.config is not None and config_digest(Path(name)) != recorded.config:
        changed = "settings in config.json"
    if changed:
        raise ArtifactError(f"{folder}: the {changed} of {name} are not those that the card names; run `mhrctl backbone`")
    if recorded.packing is not None:
        setattr(model, PACKS, recorded.packing)
    return model, recorded.fingerprint


def location(folder: Path, card: Card[BackboneFacts]) -> str:
    """Return where the weights of a backbone are: a hub id or a folder.

    Args:
        folder: the output of the backbone stage.
        card: of that output.
    """
    if card.facts.gguf is not None or card.facts.quantisation is not None:  # of which the stage has made weights of its own
        return str(folder)
    if card.facts.source == "hub":
        return card.facts.name
    return str(folder / (card.facts.path or "")) if card.facts.source == "local" else str(folder)


def shape_model(config: PretrainedConfig, *, where: str = "", tied: bool = True) -> PreTrainedModel:
    """Build a backbone without storage, to count and to check names.

    Args:
        config: of an encoder-decoder or a causal model.
        where: names the backbone in errors.
        tied: whether transformers may tie output layer and embedding, as it does in every T5 made from a config.

    Raises:
        DataError: if no model can be made from the config.
    """
    what = f"{where}{': ' if where else ''}a {config.model_type} with this config"
    require_sizes(config, what)
    with loading(what), torch.device("meta"):
        model: PreTrainedModel = auto_class(config).from_config(config)
        if not tied:
            tokens, width = cast("Tensor", model.get_input_embeddings().weight).shape
            model.set_output_embeddings(nn.Linear(width, tokens, bias=False))
    return model


def sized_model(name: str) -> PreTrainedModel:
    """Build a T5 v1.1 of a known size, or what a hub id or a folder has the config of, without storage.

    Raises:
        DataError: if there is no such size or config.
    """
    if name not in T5_SIZES:
        what = f"--backbone (a size: {', '.join(T5_SIZES)}; or a config)"
        return shape_model(pretrained_config(name, what=what, way_out="name a folder that has its config.json"))
    config = T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **T5_SIZES[name])
    return shape_model(config, tied=False)  # v1.1 and LM-adapted checkpoints have an output layer of their own


def pretrained_config(
    place: str,
    *,
    revision: str | None = None,
    what: str = "backbone.name",
    name: str | None = None,
    gguf: str | None = None,
    way_out: str = WAY_OUT,
) -> PretrainedConfig:
    """Read the config of an encoder-decoder or a causal model; of one that reads images or sounds too, that of its text model.

    Args:
        place: hub id or folder.
        revision: on the hub.
        what: names the setting in errors.
        name: what the setting says, if that is not the place.
        gguf: a GGUF file there that says it, in place of a config.json.
        way_out: what to do where there is no network.

    Raises:
        DataError: if there is none, or it is of another kind.
    """
    where = f"{what} {name or place!r}"
    with (
        loading(where, hint=did_you_mean(place)),
        fetching(place, what=where, way_out=way_out, files=(gguf or "config.json",), revision=revision),
    ):
        options = {"gguf_file": gguf} if gguf else {}
        config: PretrainedConfig = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False, **options)
    if config.is_encoder_decoder:
        return config
    text: PretrainedConfig = config.get_text_config(decoder=True)
    if _is_generative(config, text):
        if text is not config:  # the whole says whether its output layer is the embedding, whatever the part does
            text.tie_word_embeddings = config.tie_word_embeddings
        return text
    raise DataError(
        f"{where}: a {config.model_type} model; an encoder-decoder (such as T5) or a causal language model (such as Llama)"
        " is needed"
    )


def _is_generative(config: PretrainedConfig, text: PretrainedConfig) -> bool:
    """Whether a model is a causal one: encoders that could be made to go on (BERT as a decoder) must say that they are."""
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    return type(text) not in MODEL_FOR_MASKED_LM_MAPPING or bool(getattr(config, "is_decoder", False))


def require_sizes(config: PretrainedConfig, where: str) -> None:
    """Check that a model of a config can be built at all.

    Raises:
        DataError: if it has more blocks than any model.
    """
    for part in (config, config.get_text_config(encoder=True), config.get_text_config(decoder=True)):
        for name in ("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "num_hidden_layers"):
            value = getattr(part, name, None)
            if isinstance(value, int) and not 0 < value <= DEEPEST:
                raise DataError(f"{where}: config.json: {name} {value}: must be 1 to {DEEPEST}")


def fingerprint(model: PreTrainedModel, generation: Mapping[str, Any] | None = None) -> str:
    """Return the sha256 of names, shapes and values of all weights, and of the settings of generation if there are any."""
    total = hashlib.sha256()
    # By bytes, since bf16 has no counterpart in NumPy; sorted, since the order of modules is transformers' affair.
    for name, tensor in sorted(plain_tensors(model.state_dict()).items()):
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    if generation:
        total.update(json.dumps(generation, sort_keys=True).encode())
    return total.hexdigest()


def config_digest(folder: Path) -> str:
    """Return the sha256 of what a folder's config.json says of the model.

    Raises:
        DataError: if it cannot be read.
    """
    says = {name: value for name, value in json_object(folder / "config.json").items() if name not in UNREAD}
    return hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()


def vocabulary(model: PreTrainedModel) -> int:
    """Return how many tokens a model knows, in texts that it reads and in those that it writes."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return min(len(cast("Tensor", part.weight)) for part in ends if part is not None)


def config_vocabulary(config: PretrainedConfig) -> int:
    """Return how many tokens a model of a config knows."""
    parts = (config.get_text_config(encoder=True), config.get_text_config(decoder=True), config)
    sizes = [part.vocab_size for part in parts if getattr(part, "vocab_size", None)]
    return int(min(sizes))


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether the output layer is the input embedding."""
    output = model.get_output_embeddings()
    return output is not None and output.weight is model.get_input_embeddings().weight


def require_prepared(prepared: Path, backbone: Path) -> None:
    """Check that a backbone was made for the tokenizer and the examples as they are now.

    Raises:
        ArtifactError: if an output is missing, or the backbone was made for others.
    """
    read_card(prepared, stage="prepare", command="mhrctl prepare")
    card = read_card(backbone, stage="backbone", command="mhrctl backbone")
    require_made_from(card, backbone, {"prepare": prepared})


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
        ArtifactError: if an input folder is missing, or `attached` or the backbone were made from others.
    """
    require_prepared(prepared, backbone)
    if attached is not None and folder is not None:
        require_made_from(attached, folder, {"prepare": prepared})
    model, fingerprint = load_backbone(backbone)
    if attached is not None and folder is not None:
        require_backbone(attached, folder, fingerprint, backbone)
    return model, saved_tokenizer(prepared / TOKENIZER)
