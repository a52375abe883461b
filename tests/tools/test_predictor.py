from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mhrctl.artifacts.names import Project
from mhrctl.errors import DivergedError
from mhrctl.tools.predict import of_cell
from mhrctl.training.execution import Execution
from tests.tools.answering import answers, cell_of, settings


def test_choices_are_chosen_by_their_scores_beside_generated_answers(walked: Path, execution: Execution) -> None:
    where = Project(walked)
    lines: list[dict[str, Any]] = [
        {"task": "swap", "input": "ant bee", "choices": ["ant", "bee", "cat dog"]},
        {"task": "twice", "input": "ant bee"},
        {"task": "swap", "input": "ant bee"},
        {"task": "twice", "input": "ant bee", "choices": ["elk", "elk", "fox"]},
        {"task": "copy", "input": "ant bee", "choices": ["ant"]},
    ]
    predictor = of_cell(cell_of("lora"), settings(walked), stage="adapt", project=where, execution=execution)
    said = answers(predictor, walked, lines)
    for line, answer in zip(lines, said, strict=True):
        if "choices" in line:
            assert len(answer.scores) == len(line["choices"])
            best = max(range(len(answer.scores)), key=answer.scores.__getitem__)
            assert (answer.place, answer.text) == (best, line["choices"][best])
            assert all(score < 0 for score in answer.scores)
        else:
            assert (answer.place, answer.scores) == (None, ())
        assert answers(predictor, walked, [line])[0].text == answer.text
    assert said[3].scores[0] == said[3].scores[1]


def test_adapters_that_have_diverged_name_the_task(copy: Path, execution: Execution) -> None:
    predictor = of_cell(cell_of("lora"), settings(copy), stage="adapt", project=Project(copy), execution=execution)
    adapter = predictor._adapters[0].adapter
    assert adapter is not None
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter[1] = float("nan")
    with pytest.raises(DivergedError, match=r"^lora-s0: what the model computes for twice is not finite: its adapters"):
        answers(predictor, copy, [{"task": task, "input": "a"} for task in ("swap", "twice")])
