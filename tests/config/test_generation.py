"""Settings of generation in params.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from mhrctl.config.generation import SETTINGS, TOKENS, checked_settings, is_neutral, require_value


@pytest.mark.parametrize(
    "settings",
    [
        {"min_length": 12, "no_repeat_ngram_size": 2},
        {"neutral": True, "decoder_start_token_id": 5},
        {"forced_eos_token_id": None},
        {"eos_token_id": [1, 2]},
        {"early_stopping": "never", "length_penalty": 2},
        {"sequence_bias": [[[1, 2], -1.5]], "exponential_decay_length_penalty": [3, 1.1]},
    ],
)
def test_settings_that_shape_answers_are_taken_as_they_are(settings: dict[str, Any]) -> None:
    assert checked_settings(settings) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True}, "do_sample is no setting of generation: answers are not sampled"),
        ({"temperature": 0.7}, "temperature is no setting of generation: answers are not sampled"),
        ({"num_beams": 4}, "num_beams is no setting of generation: set beams of `adapt` and `evaluate`"),
        ({"max_length": 4}, "set max_new_tokens of `adapt` and `evaluate`"),
        ({"minlength": 4}, "unknown setting of generation 'minlength'; did you mean 'min_length'"),
        ({"eos_token_id": None}, "eos_token_id: a model needs one"),
        ({"neutral": 1}, "neutral 1: must be true or false"),
        ({"min_length": -1}, "min_length -1: input should be greater than or equal to 0"),
        ({"min_length": True}, "min_length True: input should be a valid integer"),
        ({"min_length": 10**12}, "min_length 1000000000000: input should be less than or equal to 1000000"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty nan: input should be a finite number"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty inf: input should be a finite number"),
        ({"repetition_penalty": 0}, "repetition_penalty 0: input should be greater than 0"),
        ({"suppress_tokens": ["a"]}, r"suppress_tokens \['a'\]: input should be a valid integer"),
        ({"min_length": {1}}, "min_length: holds what JSON cannot"),
    ],
)
def test_what_is_none_is_rejected_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_settings(settings)


def test_every_setting_has_a_value_that_changes_nothing_but_for_the_tokens() -> None:
    for name, setting in SETTINGS.items():
        require_value(name, setting.neutral)
        assert is_neutral(name, setting.neutral)
        assert is_neutral(name, None)
    assert set(TOKENS) <= set(SETTINGS)
    assert not is_neutral("min_length", 1)
