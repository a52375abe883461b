"""Facts: one shape in memory, and what cards hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhrctl.artifacts.facts import FACTS, AdaptFacts, Parameters, PretrainFacts
from mhrctl.artifacts.versions import STAGE_VERSIONS


def test_a_card_has_parameters_of_adaptation_as_one_number_and_of_pretraining_as_two() -> None:
    common = {"suite": "made", "tasks": ["a"], "backbone": "none"}
    pretrained = PretrainFacts.model_validate(common | {"parameters": {"multi_task": 3, "routing": 2}})
    assert pretrained.parameters == Parameters(multi_task=3, routing=2)
    assert pretrained.model_dump()["parameters"] == {"multi_task": 3, "routing": 2}
    adapted = AdaptFacts.model_validate(common | {"shots": {"a": [3, 4]}, "validation": {"a": 1.0}, "parameters": 5})
    assert adapted.parameters == Parameters(adaptation=5)
    assert json.loads(adapted.model_dump_json()) == common | {
        "shots": {"a": [3, 4]},
        "validation": {"a": 1.0},
        "undecided": [],
        "rouge_tokenizers": {},
        "parameters": 5,
    }
    assert AdaptFacts.model_validate(adapted) == adapted


def test_facts_are_written_in_the_order_that_cards_have(walked_all: Path) -> None:
    cards = [card for stage in STAGE_VERSIONS for card in walked_all.glob(f"data/{stage}/**/card.json")]
    assert {card.relative_to(walked_all / "data").parts[0] for card in cards} == STAGE_VERSIONS.keys() - {"report"}
    for card in cards:
        record = json.loads(card.read_text())
        again = FACTS[record["stage"]].model_validate(record["facts"]).model_dump()
        assert json.dumps(again) == json.dumps(record["facts"])


def test_every_stage_with_a_card_has_facts() -> None:
    assert {*STAGE_VERSIONS} - {"report"} <= FACTS.keys()


def test_a_fact_of_a_later_mhrctl_is_passed_over() -> None:
    record = {"suite": "made", "tokenizer": "none", "vocab_size": 1}
    assert FACTS["prepare"].model_validate(record | {"new": 1}).model_dump() == record


@pytest.mark.parametrize("count", [-1, "many", None])
def test_a_count_is_a_number(count: object) -> None:
    with pytest.raises(ValueError, match="multi_task"):
        Parameters.model_validate({"multi_task": count})
