"""The sections of params.yaml: each setting is described, and read somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mhrctl.config.fields import Closed
from mhrctl.config.params import Params

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
