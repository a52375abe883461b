"""Cards as the page shows them: what is no default, which version made what, and all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mhrctl.config.sections import AdaptParams, BackboneParams, ScratchParams
from mhrctl.report.page.cards import changed_settings, provenance_table, read_cards, shown_cards


def adapted(**settings: Any) -> dict[str, Any]:
    """A card of the adapt stage, its settings as the stage writes them."""
    required = {"steps": 50, "batch_size": 8, "shots": 32, "evaluate_every": 10}
    params = AdaptParams.model_validate(required | settings).model_dump()
    return {"stage": "adapt", "params": {"cell": {"method": "lora"}, "adapt": params}}


def test_settings_that_are_no_defaults_are_listed_with_what_they_are() -> None:
    settings = {
        each.name: each for each in changed_settings({"adapt/lora-s0": adapted(lr=0.5), "adapt/lora-s1": adapted(lr=0.5)})
    }
    assert list(settings) == ["adapt.steps", "adapt.batch_size", "adapt.lr", "adapt.shots", "adapt.evaluate_every"]
    assert settings["adapt.lr"].values == ["0.5"]
    assert settings["adapt.lr"].default == "0.001"
    assert settings["adapt.lr"].description == "peak learning rate of the adapters"
    assert settings["adapt.steps"].default == "-"


def test_a_value_of_some_cells_is_named_with_them_once_for_all_seeds() -> None:
    cards = {
        "adapt/lora-s0": adapted(),
        "adapt/poly-s0": adapted(),
        "adapt/mhr_z-h8-s0": adapted(lr=0.5),
        "adapt/mhr_z-h8-s1": adapted(lr=0.5),
    }
    cards["adapt/ia3-s0"] = adapted()
    (lr,) = [each for each in changed_settings(cards) if each.name == "adapt.lr"]
    assert lr.values == ["0.001", "0.5 (mhr_z-h8)"]


def test_a_section_within_a_section_has_defaults_too() -> None:
    params = BackboneParams(source="scratch", scratch=ScratchParams(steps=7)).model_dump()
    settings = changed_settings({"backbone": {"params": params}})
    assert [(each.name, each.default) for each in settings] == [("backbone.source", "-"), ("backbone.scratch.steps", "3000")]


def test_a_setting_that_this_version_does_not_know_is_shown() -> None:
    (setting,) = changed_settings({"prepare": {"params": {"bygone": 3}}})
    assert (setting.name, setting.values, setting.default, setting.description) == ("prepare.bygone", ["3"], "-", "")


def test_what_is_no_card_has_no_settings_and_says_so(tmp_path: Path) -> None:
    for name, text in {
        "prepare": "{",
        "backbone": "[]",
        "adapt/lora-s0": json.dumps(adapted()),
        "adapt/.partial": "{}",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "card.json").write_text(text)
    cards = read_cards(tmp_path)
    assert list(cards) == ["prepare", "backbone", "adapt/lora-s0"]
    assert all(each.name.startswith("adapt.") for each in changed_settings(cards))
    lines = {card.name: card.lines for card in shown_cards(cards)}
    assert lines["prepare"] == lines["backbone"] == ["card.json: not a card; remove the folder and run its stage again"]
    assert "params.adapt.patience: null" in lines["adapt/lora-s0"]


def test_provenance_says_versions_and_libraries_once() -> None:
    one, other = (
        {"libraries": {"torch": version}, "version": 3, "threads": None, "seal": "0123456789abcdef"} for version in "12"
    )
    table = provenance_table({"prepare": one, "adapt/a": one, "adapt/b": other, "backbone": {}})
    assert [list(row) for row in table.rows] == [[name, "3", "-", "0123456789ab"] for name in ("prepare", "adapt/a", "adapt/b")]
    assert list(table.notes) == ["2 outputs: torch 1.", "1 output: torch 2."]
