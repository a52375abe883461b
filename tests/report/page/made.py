"""Outputs made by hand, as the page reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import EvaluateFacts, PrepareFacts


def write_examples(data: Path, prompts: Mapping[str, Sequence[str]]) -> Path:
    """Write `data/prepare` with test examples: {task: prompts}, whose ids are the task's name and their place."""
    folder = data / "prepare"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"task": task, "id": f"{task}-{place}", "prompt": prompt}
        for task, of_task in prompts.items()
        for place, prompt in enumerate(of_task)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test_tasks.parquet")
    write_card(folder, Card.of("prepare", {}, {}, PrepareFacts(suite="made", tokenizer="none", vocab_size=9)))
    return folder / "test_tasks.parquet"


def write_answers(data: Path, cell: str, answers: Mapping[str, Sequence[tuple[str, float]]], **parents: Path) -> Path:
    """Write `data/evaluate/<cell>` with answers after adaptation: {task: (answer, ROUGE-L)}; zero-shot ones are all wrong."""
    folder = data / "evaluate" / cell
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [
        {
            "task": task,
            "phase": phase,
            "id": f"{task}-{place}",
            "prediction": answer if phase == "adapted" else "no idea",
            "references": [f"right {place}"],
            "rouge_l": score if phase == "adapted" else 0.0,
        }
        for phase in ("zero_shot", "adapted")
        for task, of_task in answers.items()
        for place, (answer, score) in enumerate(of_task)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "predictions.parquet")
    write_card(folder, Card.of("evaluate", {}, parents, EvaluateFacts(tasks=list(answers))))
    return folder / "predictions.parquet"
