"""Records are rows of tables."""

from __future__ import annotations

import pandas as pd

import mhrctl


def test_a_result_is_a_row_without_its_tasks() -> None:
    scores = {"score": 50.0, "rouge_l": 50.0}
    result = mhrctl.Result("lora-s0", "lora", 1, "plain", 0, 0, 0, "adapted", scores, {"swap": 50.0}, 8, 9)
    assert result.flat() == {
        "cell": "lora-s0",
        "method": "lora",
        "heads": 1,
        "variant": "plain",
        "extra_steps": 0,
        "seed": 0,
        "trial": 0,
        "phase": "adapted",
        "multi_task": 8,
        "adaptation": 9,
        "score": 50.0,
        "rouge_l": 50.0,
    }
    table = pd.DataFrame(each.flat() for each in [result, result])
    assert table["score"].tolist() == [50.0, 50.0]
    assert result.scores is scores
