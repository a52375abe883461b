"""Answers that evaluations have left: which are shown, and how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.artifacts.names import PREDICTIONS, Project
from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.tools.answers import show_answers
from tests.conftest import reseal


@pytest.fixture
def answered(copy: Path) -> Project:
    """A project in which lora has answered `swap` rightly but for its second example, and poly but for its third."""
    for cell, wrong in (("lora-s0", "swap-1"), ("poly-s0", "swap-2")):
        folder = copy / "data/evaluate" / cell
        rows = pq.read_table(folder / PREDICTIONS).to_pylist()
        for row in rows:
            is_right = row["phase"] == "adapted" and row["id"] != wrong
            row["prediction"] = row["references"][0] if is_right else "no"
            row["rouge_l"] = row["exact_match"] = 100.0 if is_right else 0.0
        pq.write_table(pa.Table.from_pylist(rows), folder / PREDICTIONS)
        reseal(folder)
    return Project(copy)


def ids(*arguments: Any, **options: Any) -> list[str]:
    return [example.id for example in show_answers(*arguments, **options).examples]


def test_answers_are_shown_with_prompt_references_and_scores_of_both_phases(answered: Project) -> None:
    gallery = show_answers(answered, "lora-s0", tasks=["swap"], limit=2)
    rows = pq.read_table(answered.output("prepare") / "test_tasks.parquet").to_pylist()
    row = next(row for row in rows if row["id"] == "swap-0")
    first, second = gallery.examples
    assert (first.task, first.id, first.number, first.of, first.prompt) == ("swap", "swap-0", 1, 4, row["prompt"])
    assert first.expected == tuple(row["targets"])
    assert [(said.label, said.text, said.score, said.is_wrong) for said in first.answers] == [
        ("zero-shot", "no", 0.0, True),
        ("adapted", row["targets"][0], 100.0, False),
    ]
    assert second.answers[1].is_wrong
    assert first.metric == "ROUGE-L"
    assert (gallery.tasks, gallery.all_tasks, gallery.matching, gallery.answers) == (1, 2, 4, 4)


def test_only_wrong_ones_of_one_task_or_all(answered: Project) -> None:
    gallery = show_answers(answered, "lora-s0", wrong=True, limit=9)
    assert [example.id for example in gallery.examples] == ["swap-1"]
    assert (gallery.matching, gallery.answers) == (1, 8)
    assert ids(answered, "lora-s0", tasks=["twice"], wrong=True) == []


def test_two_cells_are_compared_where_they_differ(answered: Project) -> None:
    gallery = show_answers(answered, "lora-s0", against="poly-s0", limit=9)
    assert [example.id for example in gallery.examples] == ["swap-1", "swap-2"]
    assert [[(said.label, said.is_wrong) for said in example.answers] for example in gallery.examples] == [
        [("lora-s0", True), ("poly-s0", False)],
        [("lora-s0", False), ("poly-s0", True)],
    ]
    assert ids(answered, "lora-s0", against="poly-s0", wrong=True, limit=9) == ["swap-1"]
    # The bare backbone has one phase: what both have is compared.
    assert {
        said.label for example in show_answers(answered, "lora-s0", against="backbone").examples for said in example.answers
    } == {
        "lora-s0",
        "backbone",
    }


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["lora-s1"], {}, r"unknown evaluated cell 'lora-s1'; did you mean 'lora-s0'\?"),
        (["lora-s0"], {"against": "mhr"}, r"unknown evaluated cell 'mhr'"),
        (["lora-s0"], {"against": "lora-s0"}, r"--against lora-s0: is the same cell; name another"),
        (["lora-s0"], {"tasks": ["copy"]}, r"--task: unknown test task 'copy'.*\(known: swap, twice\)"),
        (["../x"], {}, r"unknown evaluated cell '../x'"),
    ],
)
def test_what_there_is_not_is_one_line(answered: Project, arguments: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        show_answers(answered, *arguments, **options)


def test_before_any_evaluation_it_says_what_to_run(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no cell was evaluated yet; run `mhrctl evaluate --cell NAME`, or `mhrctl run`"):
        show_answers(Project(project), "lora-s0")


def test_answers_to_other_examples_are_not_shown(answered: Project) -> None:
    file = answered.output("prepare") / "test_tasks.parquet"
    rows = pq.read_table(file)
    pq.write_table(rows.slice(1), file)
    reseal(file.parent)
    with pytest.raises(ArtifactError, match=r"test_tasks.parquet has changed since; run `mhrctl evaluate lora-s0`$"):
        show_answers(answered, "lora-s0")
