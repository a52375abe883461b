"""The configs that adapters are made from."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from mhrctl.adapters.adapter import trainable
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.adapters.inventory import Inventory


def test_nothing_asked_for_is_one_plain_lora() -> None:
    assert AdapterConfig() == AdapterConfig(InventoryConfig(), tasks=1, runs=1, options={})
    lora = Inventory({"q": (4, 6)})
    assert lora.config == InventoryConfig()
    assert (lora.heads, lora.skills, lora.rank, lora.scaling, lora.routes_by) == (1, 1, 1, 1.0, "none")
    assert trainable(lora.parameters()) == 4 + 6


def test_a_config_is_what_a_file_keeps_and_does_not_change() -> None:
    settings = Inventory({"q": (4, 6)}, InventoryConfig(heads=2, skills=3)).settings()
    assert {field.name for field in fields(InventoryConfig)} == settings.keys() - {"shapes", "runs", "tasks"}
    with pytest.raises(FrozenInstanceError):
        InventoryConfig().rank = 2  # type: ignore[misc]
