"""Settings that the documents name are settings of params.yaml."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from mhrctl.config.params import Params

DOCS = Path(__file__).parents[2] / "docs"
SETTING = re.compile(rf"`({'|'.join(Params.model_fields)})\.(?!json|yaml|safetensors)([a-z_0-9.]+)")
FREE = ("methods", "variants", "overrides")
"""Sections of the grid whose keys are the user's."""


def unknown_settings(text: str) -> list[str]:
    """Settings in backticks, such as `pretrain.keep`, that params.yaml does not have."""
    return [f"{section}.{key}" for section, key in SETTING.findall(text) if not is_known(section, key)]


def is_known(section: str, key: str) -> bool:
    """Whether a section has a setting, which may be within another: `prepare` has `t0.by`."""
    model: Any = Params.model_fields[section].annotation
    for part in key.strip(".").split("."):
        options = [option for option in (model, *get_args(model)) if isinstance(option, type) and issubclass(option, BaseModel)]
        model = options[0] if options else None  # of an optional section
        if model is None or part not in model.model_fields:
            return False
        if part in FREE:
            return True
        model = model.model_fields[part].annotation
    return True


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_named_settings_exist(page: Path) -> None:
    assert unknown_settings(page.read_text(encoding="utf-8")) == []


def test_the_page_of_fidelity_names_settings() -> None:
    assert len(SETTING.findall((DOCS / "fidelity.md").read_text(encoding="utf-8"))) > 30


def test_unknown_settings_are_seen() -> None:
    text = "`pretrain.lr`, `pretrain.rate: 1`, `prepare.t0.by`, `prepare.t0.bye`, `grid.methods.lora.adapt`, `grid.cells`, a.b"
    assert unknown_settings(text) == ["pretrain.rate", "prepare.t0.bye", "grid.cells"]
