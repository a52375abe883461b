"""Routings of pre-trainings, measured and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.report.page.routing import routings

LAYERS = {"encoder.block.0.layer.0.SelfAttention.q": (8, 8), "decoder.block.0.layer.0.SelfAttention.q": (8, 8)}
TASKS = ["copy", "<b>&", "last"]


def write_inventory(data: Path, cell: str, method: str, heads: int) -> dict[str, Any]:
    """Write a pre-training's adapters, and return its card."""
    torch.manual_seed(0)
    inventory = Inventory(LAYERS, InventoryConfig(skills=4, heads=heads), tasks=len(TASKS))
    assert inventory.routing is not None
    torch.nn.init.normal_(inventory.routing, std=2)
    folder = data / "pretrain" / cell
    folder.mkdir(parents=True)
    save_adapter(inventory, folder / "adapters.safetensors")
    return {"params": {"cell": {"method": method}}, "facts": {"tasks": TASKS}}


@pytest.fixture
def cards(tmp_path: Path) -> dict[str, Any]:
    """Two seeds of mhr and one of poly, by name, with what has no routing."""
    return {
        "backbone": {},
        "pretrain/lora-s0": {"params": {"cell": {"method": "lora"}}},
        "pretrain/mhr-h2-s0": write_inventory(tmp_path, "mhr-h2-s0", "mhr", 2),
        "pretrain/mhr-h2-s1": write_inventory(tmp_path, "mhr-h2-s1", "mhr", 2),
        "pretrain/poly-s1": write_inventory(tmp_path, "poly-s1", "poly", 1),
        "adapt/mhr-h2-s0": {},
    }


def test_one_seed_of_each_routed_method_is_measured_and_drawn(cards: dict[str, Any], tmp_path: Path) -> None:
    shown = routings(cards, tmp_path)
    assert shown is not None
    assert [[row[0], *row[5:]] for row in shown.measures.rows] == [["poly-s1", "4", "1"], ["mhr-h2-s0", "4", "2"]]
    for row in shown.measures.rows:
        on, bits, even, effective = map(float, row[1:5])
        assert 0 < on < 1
        assert 0 < bits < 1
        assert 0 < even <= 1
        assert 1 < effective < 4
    for drawn in shown.drawn:
        for picture in (drawn.similarity, drawn.weights):
            assert picture.startswith("<svg ")
            assert "<b>" not in picture
            assert "&lt;b&gt;&amp;" in picture
            assert f'id="{"similarity" if picture is drawn.similarity else "weights"}-{drawn.cell}-' in picture
    assert routings(cards, tmp_path) == shown


def test_a_damaged_adapter_is_named_and_the_others_are_shown(cards: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "pretrain/poly-s1/adapters.safetensors"
    file.write_bytes(b"none")
    shown = routings(cards, tmp_path)
    assert shown is not None
    assert [each.cell for each in shown.drawn] == ["mhr-h2-s0"]
    assert shown.measures.notes[0].startswith(f"Not shown: {file}")


def test_without_a_routing_there_is_nothing_to_show(cards: dict[str, Any], tmp_path: Path) -> None:
    assert routings({"pretrain/lora-s0": cards["pretrain/lora-s0"]}, tmp_path) is None
    assert routings({"pretrain/mhr-h4-s0": cards["pretrain/mhr-h2-s0"]}, tmp_path) is None  # whose file is not here
