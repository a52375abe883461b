"""The table of lm-evaluation-harness has what was said of the cells as they are now."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.config.cells import Cell
from mhrctl.evaluation.harness_scores import HarnessScore, inputs_of, record
from mhrctl.report.table import Value
from mhrctl.report.tables.harness import NOTHING_ASKED, harness_table


def said(project: Project, cell: Cell, task: str = "arc", **more: object) -> None:
    inputs = inputs_of(project, cell)
    score = {"adapter": "zero_shot", "metrics": {"acc": 0.5}, "stderr": {"acc": 0.125}, "harness": "0.4.13", **more}
    record(project.harness(cell.name), cell.name, [HarnessScore(task=task, made_from=inputs, **score)], inputs)


def test_cells_stand_together_by_task(copy: Path) -> None:
    project = Project(copy)
    for cell in (Cell(method="poly"), Cell(method="lora")):
        said(project, cell)
        said(project, cell, "boolq", metrics={"f1": 0.25}, stderr={}, limit=3, fewshot=1)
    table = harness_table(project)
    assert [list(row) for row in table.rows] == [
        ["arc", "lora-s0", "zero_shot", "acc", "0.500 ± 0.125"],
        ["arc", "poly-s0", "zero_shot", "acc", "0.500 ± 0.125"],
        ["boolq (first 3, 1 example)", "lora-s0", "zero_shot", "f1", "0.250"],
        ["boolq (first 3, 1 example)", "poly-s0", "zero_shot", "f1", "0.250"],
    ]
    score = table.rows[0][-1]
    assert isinstance(score, Value)
    assert score.parts == {"": 0.5, "stderr": 0.125}
    assert table.notes[0].startswith("By lm-evaluation-harness 0.4.13; ")
    assert len(table.notes) == 2


def test_what_was_said_of_other_adapters_is_left_out(copy: Path) -> None:
    project, cell = Project(copy), Cell(method="lora")
    said(project, cell)
    said(project, Cell(method="poly"))
    (project.output("adapt", cell.name) / ADAPTERS).unlink()
    table = harness_table(project)
    assert [row[1] for row in table.rows] == ["poly-s0"]
    assert table.notes[-1] == "Left out, since their adapters or examples have changed since: lora-s0."


def test_where_nobody_asked_it_is_said(copy: Path) -> None:
    assert harness_table(Project(copy)).notes == [NOTHING_ASKED]
