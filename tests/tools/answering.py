"""Answers of a predictor to lines of a file, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.config.resolve import load_params
from mhrctl.config.sections import EvaluateParams
from mhrctl.evaluation.metrics import Answer
from mhrctl.progress import silent
from mhrctl.tools.asking import Asker
from mhrctl.tools.predictor import Predictor

FILE = Path("in.jsonl")


def cell_of(method: str, **more: Any) -> Cell:
    return Cell(method=method, heads=4 if METHODS[method].multi_head else 1, **more)


def settings(project: Path, **more: Any) -> EvaluateParams:
    return load_params(project / "params.yaml").params.evaluate.model_copy(update=more)


def answers(predictor: Predictor, project: Path, lines: Sequence[dict[str, Any]]) -> list[Answer]:
    asker = Asker(Project(project))
    questions = [asker.question(json.dumps(line), FILE, number) for number, line in enumerate(lines, 1)]
    predictor.require(questions)
    with silent("", 0) as bar:
        return predictor.answers(questions, asker.samples(questions), bar, prompts=asker.prompts(questions))
