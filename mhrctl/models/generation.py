"""How a backbone generates is decided here: its special tokens, and what its checkpoint or params.yaml say of answers.

A checkpoint's generation_config.json changes scores as much as its weights do. So what shapes answers is taken from it by name
(`mhrctl.config.generation`), can be set otherwise, and is part of the backbone's fingerprint; the rest is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mhrctl.config.generation import (
    CAUSAL_TOKENS,
    ELSEWHERE,
    END,
    NEUTRAL,
    PAD,
    SETTINGS,
    START,
    TOKEN_SETTINGS,
    TOKENS,
    flat_ids,
    is_neutral,
    require_value,
)
from mhrctl.data.loading import json_object
from mhrctl.errors import DataError

if TYPE_CHECKING:  # `mhrctl check` looks at a T5 without transformers, which takes seconds to import
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FILE = "generation_config.json"
FORCED_START = "forced_bos_token_id"
_HOW = {
    START: "the id of the padding token for T5, of the end token for BART, of the target language for mBART and M2M100",
    PAD: "the id of its padding token",
    END: "the id of the token that ends a text",
}
"""{special token: what it usually is}."""
_KEPT = {*SETTINGS, "bos_token_id", "use_cache", "transformers_version"}
"""What a generation config may hold; anything else is taken out of it."""
_UNHEEDED = {START, PAD, END, "length_penalty", "early_stopping"}
"""Settings that without beams do not say which token is taken."""
_PLAIN = {"num_beams": 1, "num_beam_groups": 1, "max_length": 20, "top_k": 50, "num_return_sequences": 1}
"""Values of it that nobody misses, besides 0, 1.0 and none."""


@dataclass(frozen=True)
class Answering:
    """This says how a backbone comes to its answers.

    Attributes:
        start: the first token of the decoder's inputs; None of a causal model, which goes on from its prompt.
        pad: the padding token.
        end: tokens that end a text.
        settings: what shapes answers and is not neutral, and special tokens that are not those of config.json.
        unused: settings of the checkpoint that are not used.
    """

    start: int | None
    pad: int
    end: tuple[int, ...]
    settings: Mapping[str, Any]
    unused: tuple[str, ...] = ()


def answering(
    config: PretrainedConfig | SimpleNamespace,
    generation: GenerationConfig | SimpleNamespace,
    chosen: Mapping[str, Any],
    *,
    where: str,
    vocabulary: int,
) -> Answering:
    """Decide how a backbone comes to its answers.

    Args:
        config: of the model.
        generation: of the checkpoint.
        chosen: `backbone.generation` of params.yaml.
        where: names the backbone in errors.
        vocabulary: tokens that the model knows.

    Raises:
        DataError: if a special token is not said, or said in two ways, or a setting has a value that it cannot have.
    """
    brought = {name: getattr(generation, name, None) for name in SETTINGS}
    for name, value in brought.items():
        try:
            require_value(name, value)
        except ValueError as error:
            raise DataError(f"{where}: {FILE}: {error}; set backbone.generation.{name}") from None
    shaping = {} if chosen.get(NEUTRAL) else {name: value for name, value in brought.items() if name not in TOKENS}
    shaping |= {name: value for name, value in chosen.items() if name in SETTINGS and name not in TOKENS}
    causal = is_causal(config)
    tokens = {name: _token(name, config, brought[name], chosen, where) for name in (CAUSAL_TOKENS if causal else TOKENS)}
    # Padding is masked in a causal model, so that which token it is changes nothing; many have none of their own.
    derived = causal and tokens[PAD] is None
    if derived:
        tokens[PAD] = _ids(tokens[END])[0]
    for name, value in tokens.items():
        if not all(isinstance(token, int) and 0 <= token < vocabulary for token in _ids(value)):
            raise DataError(f"{where}: {name} {value} is none of its {vocabulary} tokens; set backbone.generation.{name}")
    settings = {name: value for name, value in shaping.items() if not is_neutral(name, value)}
    for name in TOKEN_SETTINGS & settings.keys():
        if strange := [token for token in flat_ids(settings[name]) if token >= vocabulary]:
            raise DataError(f"{where}: {name} {strange[0]} is none of its {vocabulary} tokens; set backbone.generation.{name}")
    if causal:
        _require_causal(settings, chosen, where)
    said = {name: value for name, value in tokens.items() if not (derived and name == PAD)}
    settings |= {name: value for name, value in said.items() if value != _of_config(config, name)}
    return Answering(
        start=tokens.get(START),
        pad=tokens[PAD],
        end=_ids(tokens[END]),
        settings=json.loads(json.dumps(settings)),
        unused=tuple(name for name in _unused(generation) if _is_missed(name, getattr(generation, name))),
    )


def is_causal(config: PretrainedConfig | SimpleNamespace) -> bool:
    """Return whether a model of a config reads an input and its answer in one sequence, and is no encoder-decoder."""
    return not getattr(config, "is_encoder_decoder", True)  # T5's config.json need not say it


def generation_of(folder: Path, config: PretrainedConfig) -> GenerationConfig:
    """Read the generation settings of a folder as transformers does: of generation_config.json, or an old config.json.

    Raises:
        DataError: if the file is damaged, which transformers would pass over.
    """
    from transformers import GenerationConfig

    require_readable(folder)
    name = FILE if (folder / FILE).exists() else "config.json"
    if not (folder / name).exists():
        return GenerationConfig.from_model_config(config)
    generation = GenerationConfig.from_pretrained(str(folder), config_file_name=name, local_files_only=True)
    if name != FILE:  # whose other settings are of the model
        for each in vars(generation).keys() - vars(GenerationConfig()).keys():
            delattr(generation, each)
    return generation


def t5_configs(folder: Path) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Read what a T5's config.json says, with its defaults, and its settings of generation, both without transformers.

    Raises:
        DataError: if a file is damaged.
    """
    says = json_object(folder / "config.json")
    generation = json_object(folder / FILE) if (folder / FILE).exists() else {name: says.get(name) for name in SETTINGS}
    defaults = {"vocab_size": 32128, PAD: 0, END: 1}
    return SimpleNamespace(**defaults | says), SimpleNamespace(**generation)


def require_readable(folder: Path) -> None:
    """Check that a generation_config.json, if there is one, can be read.

    Raises:
        DataError: if it cannot.
    """
    if (folder / FILE).exists():
        json_object(folder / FILE)


def apply(model: PreTrainedModel, how: Answering) -> None:
    """Make a model generate so, whatever its checkpoint says besides, and its config name the special tokens."""
    from transformers import GenerationConfig

    generation: GenerationConfig = model.generation_config
    known = vars(GenerationConfig())
    for name in _unused(generation):
        if name in known:
            setattr(generation, name, None)
        else:
            delattr(generation, name)
    for name in SETTINGS:
        setattr(generation, name, how.settings.get(name))
    end: int | list[int] = how.end[0] if len(how.end) == 1 else list(how.end)
    generation.decoder_start_token_id, generation.pad_token_id, generation.eos_token_id = how.start, how.pad, end
    model.config.pad_token_id = how.pad
    if how.start is not None:
        model.config.decoder_start_token_id = how.start
    if _of_config(model.config, END) is None:
        model.config.eos_token_id = end


def stops(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Return the options of `generate` by which a model stops where a tokenizer's answers end; none where it does so anyway.

    What ends a turn of a chat template may be none of the ends of the checkpoint, such as a base model's.
    """
    from mhrctl.data.tokenization import end_token

    end, ends = end_token(tokenizer), _ends(model)
    return {} if end in ends else {END: [*ends, end]}


def ends_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return all tokens that end an answer: those of a model, and that of a tokenizer."""
    return stops(model, tokenizer).get(END) or _ends(model)


def takes_the_likeliest(model: PreTrainedModel) -> bool:
    """Return whether nothing else shapes a greedy answer of a model than which token is the most likely."""
    return all(is_neutral(name, getattr(model.generation_config, name, None)) for name in SETTINGS.keys() - _UNHEEDED)


def _ends(model: PreTrainedModel) -> list[int]:
    known = model.generation_config.eos_token_id
    return [] if known is None else [known] if isinstance(known, int) else list(known)


def require_tokenizer(
    tokenizer: PreTrainedTokenizerBase, how: Answering, *, vocabulary: int, where: str, place: str, chat: bool = False
) -> None:
    """Check that a tokenizer speaks of the same tokens as a backbone.

    Args:
        tokenizer: of the examples.
        how: the backbone comes to its answers.
        vocabulary: tokens that the backbone knows.
        where: names the backbone in errors.
        place: names the tokenizer there.
        chat: whether its end token is what ends a turn of its chat template, at which answers end whatever the backbone says.

    Raises:
        DataError: if it has more tokens, ends texts with another one than the backbone, or pads with another one; of a causal
            model, if what it pads answers with would be read as a part of them.
    """
    from mhrctl.data.tokenization import Ending, entries

    if entries(tokenizer) > vocabulary:
        raise DataError(
            f"{place}: a tokenizer of {entries(tokenizer)} entries does not fit {where}, which has {vocabulary};"
            " set prepare.tokenizer to the backbone's own"
        )
    end = Ending.of(tokenizer).end
    if end not in how.end and not chat:
        raise DataError(
            f"{place}: texts end with {_named(tokenizer, end)}, but {where} stops at {_listed(how.end)};"
            f" set prepare.tokenizer to the backbone's own, or backbone.generation.{END}"
        )
    if how.start is None:
        _require_silent(tokenizer, how.pad, where=where, place=place)
    elif (pad := int(tokenizer.pad_token_id)) != how.pad:
        raise DataError(
            f"{place}: padding is {_named(tokenizer, pad)}, but {where} pads with {how.pad};"
            f" set prepare.tokenizer to the backbone's own, or backbone.generation.{PAD}"
        )


def _require_silent(tokenizer: PreTrainedTokenizerBase, pad: int, *, where: str, place: str) -> None:
    """Check that the padding after a short answer is no text."""
    if str(tokenizer.decode([pad], skip_special_tokens=True)).strip():
        raise DataError(
            f"{place}: {where} pads with {_named(tokenizer, pad)}, which is an ordinary token and would be read as a part of"
            f" answers; set backbone.generation.{PAD} to a special token, such as the end"
        )


def described(settings: Mapping[str, Any]) -> str:
    """Write settings in a line: `min_length 12, no_repeat_ngram_size 2`."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in settings.items())


def unused_settings(how: Answering) -> str:
    """Say which settings of a checkpoint are not used, and where such are set."""
    where = {ELSEWHERE[name] for name in how.unused if name in ELSEWHERE and ELSEWHERE[name].startswith("set ")}
    return "; ".join([", ".join(how.unused), *sorted(where)])


def _token(name: str, config: PretrainedConfig | SimpleNamespace, brought: Any, chosen: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    """A special token: of params.yaml, else of the two files, which must agree but for ends, and padding that is masked."""
    if name in chosen:
        return chosen[name]
    of_config = _of_config(config, name)
    if name == PAD and is_causal(config):
        return of_config if brought is None else brought
    if of_config is None and brought is None:
        raise DataError(f"{where}: neither config.json nor {FILE} has a {name}; set backbone.generation.{name}: {_HOW[name]}")
    if name != END and None not in (of_config, brought) and of_config != brought:
        raise DataError(
            f"{where}: config.json says {name} {of_config}, {FILE} {brought}; set backbone.generation.{name} to the right one"
        )
    # Ends are those of generation, which may name several; the config's is that of training.
    return (brought if brought is not None else of_config) if name == END else (of_config if of_config is not None else brought)


def _require_causal(settings: dict[str, Any], chosen: Mapping[str, Any], where: str) -> None:
    """Check that no setting is of encoder-decoders alone, or counts the tokens of prompts, padding among them."""
    for name in (START, FORCED_START):
        if chosen.get(name) is not None:
            raise DataError(
                f"{where}: backbone.generation.{name}: is for encoder-decoders, and this is a causal model; leave it out"
            )
    settings.pop(FORCED_START, None)  # a checkpoint's: nothing would force it upon an answer, which follows a prompt
    if "min_length" in settings:
        raise DataError(
            f"{where}: min_length {settings['min_length']}: counts the prompt in a causal model; set"
            " backbone.generation.min_length to 0, and min_new_tokens"
        )


def _of_config(config: PretrainedConfig | SimpleNamespace, name: str) -> Any:  # noqa: ANN401
    """A token of a config, or of the part of a composite one that is the decoder's."""
    parts = [config] if isinstance(config, SimpleNamespace) else [config, config.get_text_config(decoder=True)]
    for part in parts:
        if (value := getattr(part, name, None)) is not None:
            return value
    return None


def _ids(value: Any) -> tuple[int, ...]:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else (value,)


def _unused(generation: GenerationConfig | SimpleNamespace) -> list[str]:
    return [
        name for name, value in vars(generation).items() if not name.startswith("_") and name not in _KEPT and value is not None
    ]


def _is_missed(name: str, value: Any) -> bool:  # noqa: ANN401
    """Whether a setting that is taken out would have made a difference to answers."""
    return (
        bool(value) and (value is True or value not in (1.0, _PLAIN.get(name))) and not name.startswith(("output_", "return_"))
    )


def _named(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return f"{tokenizer.convert_ids_to_tokens(token)} ({token})"


def _listed(tokens: tuple[int, ...]) -> str:
    return " or ".join(map(str, tokens))


def _shown(value: Any) -> str:  # noqa: ANN401
    words = json.dumps(value)
    return words if len(words) <= 60 else f"{words[:60]} ..."
