"""From pydantic's errors to a setting and a line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mhrctl.config.complaints import complaint, name
from mhrctl.config.grid import GridParams
from mhrctl.config.sections import PretrainParams
from mhrctl.config.tasks import PrepareParams

GRID: dict[str, Any] = {"seeds": [0], "methods": {"lora": None}}


@pytest.mark.parametrize(
    ("model", "values", "place", "message"),
    [
        (PretrainParams, {"steps": 1}, "batch_size", "is missing"),
        (PretrainParams, {"stpes": 1, "batch_size": 1}, "stpes", "unknown key 'stpes'; did you mean 'steps'?"),
        (PretrainParams, {"steps": "x", "lt": 1}, "steps", "Input should be a valid integer (got 'x')"),
        (PretrainParams, {"steps": 1, "batch_size": 1, "skils": 2}, "skils", "unknown key 'skils'; did you mean 'skills'?"),
        (PretrainParams, {"steps": 1, "batch_size": 1, "targets": [1]}, "targets", "Input should be a valid string (got [1])"),
        (
            PretrainParams,
            {"steps": 1, "batch_size": 1, "uniform_steps": 2},
            "uniform_steps",
            "uniform_steps 2 is more than steps 1",
        ),
        (
            PretrainParams,
            {"steps": 10**23, "batch_size": 1},
            "steps",
            "Input should be less than or equal to 1000000000 (got 100000000000000000000000)",
        ),
        (
            PrepareParams,
            {"source": "superni", "path": "a", "tokenizer": "word", "t0": {"sed": 1}},
            "t0.sed",
            "unknown key 'sed'",
        ),
        (PrepareParams, {"source": "jsonl", "tokenizer": "word"}, "", "source jsonl needs `path`"),
        (
            GridParams,
            GRID | {"variants": {"v": {"pretrain": {"lr": 0}}}},
            "variants.v.pretrain.lr",
            "Input should be greater than 0",
        ),
        (
            GridParams,
            GRID | {"variants": {"v": {"pretrain": {"lt": 0}}}},
            "variants.v.pretrain.lt",
            "unknown key 'lt' (known: steps, batch_size",
        ),
        (
            GridParams,
            GRID | {"overrides": {"a": {"adept": {}}}},
            "overrides.a.adept",
            "unknown key 'adept'; did you mean 'adapt'?",
        ),
        (
            GridParams,
            GRID | {"methods": {"lora": {"search": {"lr": [1.0, 1.0]}}}},
            "methods.lora.search.lr.1",
            "1.0 occurs twice",
        ),
        (
            GridParams,
            GRID | {"methods": {"lora": {"adapt": {"epoch_steps": {"a": 0}}}}},
            "methods.lora.adapt.epoch_steps.a",
            "Input",
        ),
    ],
)
def test_the_setting_is_named_and_what_is_allowed(
    model: type[BaseModel], values: dict[str, Any], place: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    loc, said = complaint(caught.value, model)
    assert name(loc) == place
    assert said.startswith(message)


def test_names_are_shown_harmlessly() -> None:
    assert name(("grid", "methods", "a\nb", 3)) == r"grid.methods.a\nb.3"
    assert complaint(_error(), PretrainParams, at=("pretrain",))[0] == ("pretrain", "batch_size")


def _error() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        PretrainParams.model_validate({"steps": 1})
    return caught.value
