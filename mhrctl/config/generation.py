"""Settings of generation: what a checkpoint brings in generation_config.json, and params.yaml may set otherwise.

Answers are by greedy or beam search, so that the same scores come again. What shapes them is in one table, with the values
that leave them alone; everything else that a checkpoint may say of generation is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mhrctl.errors import unknown

LONGEST = 1_000_000
"""Tokens that an answer has at most, whatever a setting says."""
Tokens = Annotated[int, Field(ge=0, le=LONGEST)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
TokenIds = TokenId | list[TokenId]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]

NEUTRAL = "neutral"
"""The key of params.yaml that leaves out whatever the checkpoint brings."""
START, PAD, END = "decoder_start_token_id", "pad_token_id", "eos_token_id"


@dataclass(frozen=True)
class Setting:
    """A setting shapes answers.

    Attributes:
        type: of its values.
        neutral: the value with which it changes nothing; None is always one, too.
    """

    type: Any
    neutral: Any = None


SETTINGS: Mapping[str, Setting] = {
    START: Setting(TokenId),
    PAD: Setting(TokenId),
    END: Setting(TokenIds),
    "min_length": Setting(Tokens, 0),
    "min_new_tokens": Setting(Tokens, 0),
    "no_repeat_ngram_size": Setting(Tokens, 0),
    "encoder_no_repeat_ngram_size": Setting(Tokens, 0),
    "repetition_penalty": Setting(Factor, 1.0),
    "encoder_repetition_penalty": Setting(Factor, 1.0),
    "length_penalty": Setting(Number, 1.0),
    "early_stopping": Setting(bool | Literal["never"], neutral=False),
    "forced_bos_token_id": Setting(TokenId),
    "forced_eos_token_id": Setting(TokenIds),
    "suppress_tokens": Setting(list[TokenId], []),
    "begin_suppress_tokens": Setting(list[TokenId], []),
    "bad_words_ids": Setting(list[list[TokenId]], []),
    "sequence_bias": Setting(list[tuple[list[TokenId], Number]], []),
    "exponential_decay_length_penalty": Setting(tuple[Tokens, Factor]),
    "renormalize_logits": Setting(bool, neutral=False),
    "remove_invalid_values": Setting(bool, neutral=False),
}
"""{name in generation_config.json: what it may be}, of all that shapes an answer."""
TOKENS = (START, PAD, END)
"""Those that an encoder-decoder cannot do without; the others may be neutral."""
CAUSAL_TOKENS = (PAD, END)
"""Those of a causal model, which goes on from its prompt; without padding of its own it pads with its end."""
TOKEN_SETTINGS = {"forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"}
"""Those that may be neutral and name tokens, each of which the model must have."""
_SAMPLING = "answers are not sampled, so that scores come again"
_LENGTH = "set max_new_tokens of `adapt` and `evaluate`"
ELSEWHERE: Mapping[str, str] = {
    "num_beams": "set beams of `adapt` and `evaluate`",
    "max_length": _LENGTH,
    "max_new_tokens": _LENGTH,
    "num_return_sequences": "an example has one answer",
    **dict.fromkeys(("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"), _SAMPLING),
}
"""{what is no setting of generation here: why not, or where it is set}."""


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of params.yaml.

    Args:
        settings: {name: value}; None puts a setting of the checkpoint out of force, `neutral: true` all of them.

    Raises:
        ValueError: if there is no such setting, or a value is none of its.
    """
    for name, value in settings.items():
        if name == NEUTRAL:
            if not isinstance(value, bool):
                raise ValueError(f"{NEUTRAL} {value!r}: must be true or false")
        elif name in ELSEWHERE:
            raise ValueError(f"{name} is no setting of generation: {ELSEWHERE[name]}")
        elif name not in SETTINGS:
            raise ValueError(unknown("setting of generation", name, [NEUTRAL, *SETTINGS]))
        elif value is None and name in TOKENS:
            raise ValueError(f"{name}: a model needs one; leave the setting out to take the checkpoint's")
        else:
            require_value(name, value)
    return dict(settings)


def require_value(name: str, value: Any) -> None:  # noqa: ANN401 - what YAML or JSON holds
    """Check a value of one of `SETTINGS`.

    Raises:
        ValueError: if it is none of the setting's values.
    """
    if value is None:
        return
    try:
        # As JSON, which knows lists and no tuples, so that strictness is about numbers and truth values alone.
        TypeAdapter(SETTINGS[name].type).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(f"{name} {value!r}: {error.errors()[0]['msg'].lower()}") from None
    except TypeError:
        raise ValueError(f"{name}: holds what JSON cannot") from None


def flat_ids(value: Any) -> list[int]:  # noqa: ANN401
    """Return the ids in a value of a setting of `TOKEN_SETTINGS`: one, a list, or lists of them."""
    return [token for each in value for token in flat_ids(each)] if isinstance(value, list) else [value]


def is_neutral(name: str, value: Any) -> bool:  # noqa: ANN401
    """Return whether a value of a setting changes no answer."""
    return value is None or bool(value == SETTINGS[name].neutral)
