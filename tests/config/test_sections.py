"""The sections of params.yaml: each setting is described, and read somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mhrctl.config.fields import Closed
from mhrctl.config.params import Params
from mhrctl.config.sections import AdaptParams, PretrainParams

ROOT = Path(__file__).parents[2]


def sections() -> list[tuple[str, str, Any]]:
    fields: list[tuple[str, str, Any]] = []

    def walk(name: str, model: type[BaseModel]) -> None:
        for key, field in model.model_fields.items():
            fields.append((name, key, field))
            if isinstance(field.annotation, type) and issubclass(field.annotation, Closed):
                walk(f"{name}.{key}", field.annotation)

    for name, section in Params.model_fields.items():
        if isinstance(section.annotation, type):
            walk(name, section.annotation)
    return fields


@pytest.mark.parametrize(("section", "key", "field"), sections(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_param_is_described_and_read(section: str, key: str, field: Any) -> None:
    assert field.description, f"{section}.{key} has no description"
    source = "\n".join(path.read_text() for path in (ROOT / "mhrctl").rglob("*.py"))
    assert f".{key}" in source, f"{section}.{key} is read nowhere"


def test_the_best_step_needs_steps_that_are_validated() -> None:
    def pretrain(**settings: Any) -> PretrainParams:
        return PretrainParams(steps=10, batch_size=1, **settings)

    assert pretrain(validate_every=5, keep="best").keep == "best"
    assert pretrain(validate_every=5).keep == "last"
    with pytest.raises(ValidationError, match="keep best chooses among validated steps: it needs validate_every, such as 5000"):
        pretrain(keep="best")
    for keep in ("best", "last"):
        with pytest.raises(ValidationError, match="validate_every 5 needs validate_examples of 1 or more, not 0"):
            pretrain(validate_every=5, keep=keep, validate_examples=0)
    with pytest.raises(ValidationError, match="'last' or 'best'"):
        pretrain(validate_every=5, keep="first")


def test_settings_that_came_later_leave_cards_as_they_were() -> None:
    pretrain = PretrainParams(steps=10, batch_size=1)
    adapt = AdaptParams(steps=10, batch_size=1, shots=1, evaluate_every=1)
    assert not {"keep", "validate_every"} & pretrain.model_dump().keys()
    assert "keep_last" not in adapt.model_dump()
    changed = pretrain.model_copy(update={"keep": "best", "validate_every": 5}).model_dump()
    assert (changed["keep"], changed["validate_every"]) == ("best", 5)
    assert adapt.model_copy(update={"keep_last": False}).model_dump()["keep_last"] is False
