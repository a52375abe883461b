"""`mhrctl prepare`: when it makes its output anew, what it prints, and what it rejects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from mhrctl.artifacts.cards import Card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.cli.prepare import _task_table
from tests.cli.conftest import Capture, MadeAnew, RefusesEdited
from tests.conftest import Run


def test_a_result_of_edited_settings_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("prepare", file="params.yaml", old="examples: 4", new="examples: 5")


@pytest.mark.parametrize("options", [["--force"], ["--set", "prepare.examples=3"]], ids=" ".join)
def test_other_settings_and_force_make_it_anew(is_made_anew: MadeAnew, options: list[str]) -> None:
    assert is_made_anew("prepare", *options)


def test_the_tasks_are_counted_by_role(project: Path, run: Run, capfd: Capture) -> None:
    assert run("prepare", "-C", project) == 0
    said = capfd.readouterr().err
    rows = [re.split(r"\s{2,}", line.strip()) for line in said.splitlines()[1:5]]
    assert [rows[0], *rows[2:]] == [
        ["suite jsonl", "tasks", "examples", "to train", "to validate", "to score", "for shots"],
        ["training", "3", "18", "12", "6", "-", "-"],
        ["test", "2", "24", "-", "-", "8", "16"],
    ]
    assert "note: 18 examples are left over; prepare.examples takes 4 of a task for each split\n" in said
    assert said.endswith(f"wrote {project / 'data/prepare'}; `mhrctl show` has more examples\n")


def test_what_no_task_has_is_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"role": "training", "splits": {"train": 1_200, "validation": 0}}, {"role": "test", "splits": {"test": 9}}]
    Console(width=80).print(_task_table(rows, "[b]"))
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["suite [b]", "tasks", "examples", "to train", "to score"]
    assert lines[2:] == [["training", "1", "1,200", "1,200", "-"], ["test", "1", "9", "-", "9"]]


def test_what_was_cut_is_a_note_with_its_setting(project: Path, run: Run, capfd: Capture) -> None:
    assert run("prepare", "-C", project, "--set", "prepare.max_input_tokens=2", "--set", "prepare.max_target_tokens=1") == 2
    (project / "tasks/training/more.jsonl").write_text('{"input": "cat dog ant", "target": "ant dog cat"}\n' * 9)
    assert run("prepare", "-C", project, "--set", "prepare.max_input_tokens=3", "--set", "prepare.max_target_tokens=3") == 0
    said = capfd.readouterr().err
    assert re.search(r"note: \d+ inputs longer than 3 tokens were cut \(prepare.max_input_tokens\)\n", said)
    assert "note: 5 targets longer than 3 tokens were cut (prepare.max_target_tokens)\n" in said


def test_a_prompt_and_its_answer_are_shown_as_the_model_reads_them(project: Path, run: Run, capfd: Capture) -> None:
    task = project / "tasks/test/swap.jsonl"
    line = json.loads(task.read_text().splitlines()[0])
    task.unlink()
    lines = [line | {"input": f"ant bee {number}", "definition": "Swap them."} for number in range(12)]
    (project / "tasks/test/a_swap.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert run("prepare", "-C", project) == 0
    shown = "a prompt of `a_swap`, as the model reads it:\n  Swap them.\n  \n  ant bee 0\nanswer: " + line["target"] + "\n"
    assert shown in capfd.readouterr().err
    assert run("prepare", "-C", project, "--set", "prepare.max_input_tokens=3") == 0
    assert "tokens cut ...]" in capfd.readouterr().err


def test_what_became_of_the_tasks_is_shown(project: Path, run: Run, capfd: Capture) -> None:
    for number in range(6):
        (project / f"tasks/test/small{number}.jsonl").write_text('{"input": "a", "target": "b"}\n')
    assert run("prepare", "-C", project) == 0
    said = capfd.readouterr().err
    assert "suite jsonl" in said
    reason = "has too few examples (1) for train, validation and test"
    assert f"not used: small0, small1, small2, small3, small4 and 1 more: {reason}" in " ".join(said.split())
    assert said.splitlines()[-1].startswith(f"wrote {project / 'data/prepare'}; ")


def test_bad_tasks_are_one_line_and_leave_nothing(project: Path, run: Run, capfd: Capture) -> None:
    (project / "tasks/training/copy.jsonl").write_text('{"input": "a"}\n')
    assert run("prepare", "-C", project) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "copy.jsonl:1: give either `target` (a string) or `targets`" in said
    assert not (project / "data/prepare").exists()


def test_notes_are_shown_with_their_number(project: Path, run: Run, capfd: Capture) -> None:
    lines = [{"task": task, "input": f"q{number}", "target": "a"} for number in range(40) for task in ("one", "two")]
    (project / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = (
        (project / "params.yaml").read_text().replace("source: jsonl", "source: hub").replace("path: tasks", "path: data.jsonl")
    )
    text = text.replace("tokenizer: word", "tokenizer: word\n  columns: {task: task}\n  test_tasks: [two]")
    (project / "params.yaml").write_text(text)
    assert run("prepare", "-C", project) == 0
    assert "note: 32 rows of training tasks that were not drawn" in capfd.readouterr().err


def test_repeats_and_unknown_words_are_shown_with_their_tasks(project: Path, run: Run, capfd: Capture) -> None:
    lines = [{"input": f"ant {number % 10}", "target": "bee" if number % 2 else "uno"} for number in range(14)]
    (project / "tasks/test/swap.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (project / "tasks/test/._swap.jsonl").write_text("x")
    assert run("prepare", "-C", project) == 0
    said = capfd.readouterr().err.splitlines()
    notes = [line.removeprefix("note: ") for line in said if line.startswith("note: ")]
    assert notes == [
        "1 hidden or backup files and folders passed over: test/._swap.jsonl",
        "18 examples are left over; prepare.examples takes 4 of a task for each split",
        "4 examples equal to a test example are kept out of training: swap (4)",
        "22 inputs have words that the tokenizer does not know: swap (10), twice (12)",
        "5 targets have words that the tokenizer does not know: swap (5)",
        "5 examples have no target that the tokenizer can say: swap (5)",
    ]


def test_what_cannot_be_told_apart_is_one_line_and_leaves_nothing(project: Path, run: Run, capfd: Capture) -> None:
    line = {"target": "uno", "choices": ["uno", "due"]}
    lines = [json.dumps({"input": f"ant {number}"} | line) + "\n" for number in range(12)]
    (project / "tasks/test/swap.jsonl").write_text("".join(lines))
    assert run("prepare", "-C", project) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: test task swap, example swap-0: the choices 'uno', which is right, and 'due' are the same")
    assert said.count("\n") == 1
    assert not (project / "data/prepare").exists()


@pytest.mark.parametrize("edited", ["data.jsonl", "few.jsonl"])
def test_every_file_of_a_source_is_watched(
    project: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    for name in ("data.jsonl", "few.jsonl"):
        (project / name).write_text("".join(f'{{"input": "q{number}", "target": "a"}}\n' for number in range(40)))
    text = (
        (project / "params.yaml").read_text().replace("source: jsonl", "source: hub").replace("path: tasks", "path: data.jsonl")
    )
    (project / "params.yaml").write_text(text.replace("tokenizer: word", "tokenizer: word\n  test: {path: few.jsonl}"))
    made = Card.of

    def of(*arguments: object, **facts: object) -> Card[PrepareFacts]:
        with (project / edited).open("a") as file:
            file.write('{"input": "new", "target": "a"}\n')
        return made(*arguments, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(Card, "of", of)
    assert run("prepare", "-C", project) == 2
    assert f"{project / edited} was edited during the run" in capfd.readouterr().err
