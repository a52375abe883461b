"""What the harness said is kept by task, adapter, limit and examples in the prompt, and goes when its inputs change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import ArtifactError
from mhrctl.evaluation.harness_scores import HarnessScore, read_harness, record


def score(task: str = "arc", adapter: str = "zero_shot", **more: Any) -> HarnessScore:
    made_from = more.pop("made_from", {"start": "1"})
    return HarnessScore(task=task, adapter=adapter, metrics={"acc": 0.5}, harness="0.4", made_from=made_from, **more)


def test_scores_are_added_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "harness/lora-s0.json"
    assert record(file, "lora-s0", [score(), score("boolq")], {"start": "1"}) == 0
    assert record(file, "lora-s0", [score(limit=3), score(adapter="swap"), score(fewshot=2)], {"start": "1"}) == 0
    better = score().model_copy(update={"metrics": {"acc": 0.75}})
    assert record(file, "lora-s0", [better], {"start": "1"}) == 0
    kept = read_harness(file)
    assert kept.cell == "lora-s0"
    assert [each.place for each in kept.scores] == [
        ("arc", "zero_shot", None, 0),
        ("boolq", "zero_shot", None, 0),
        ("arc", "zero_shot", 3, 0),
        ("arc", "swap", None, 0),
        ("arc", "zero_shot", None, 2),
    ]
    assert kept.scores[0].metrics == {"acc": 0.75}


def test_scores_of_other_inputs_go(tmp_path: Path) -> None:
    file = tmp_path / "lora-s0.json"
    old = score("boolq", made_from={"start": "1", "adapted": "1"})
    record(file, "lora-s0", [score(made_from={"start": "1"}), old], {"start": "1", "adapted": "1"})
    new = score("piqa", made_from={"start": "1", "adapted": "2"})
    assert record(file, "lora-s0", [new], {"start": "1", "adapted": "2"}) == 1
    assert [each.task for each in read_harness(file).scores] == ["arc", "piqa"]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "lora-s0.json"
    file.write_text('{"cell": "lora-s0", "scores": [{"task": "arc"}]}')
    with pytest.raises(ArtifactError, match=r"lora-s0.json: scores.0.adapter: Field required; remove it and run"):
        read_harness(file)
