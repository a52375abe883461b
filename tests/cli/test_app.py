"""The command line as a user meets it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command

import mhrctl
from mhrctl.cli.app import SECTIONS, app
from mhrctl.stages import prepare
from tests.cli.conftest import Capture, complaint
from tests.conftest import Run


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["pretrain", "-m", "mrh"], "unknown method 'mrh'; did you mean 'mhr'?"),
        (["pretrain"], "name the cell, such as mhr-h8-s0, or its --method"),
        (["pretrain", "-m", "lora", "--heads", 2], "--heads 2: lora has one head"),
        (["adapt", "--cell", "mhr-h2-s9"], "no such cell; add it to `grid` in params.yaml and run `mhrctl grid sync`"),
        (["adapt", "--cell", "lora-s0", "--seed", 1], "--cell takes all settings from the cell's file"),
        (["pretrain", "-m", "lora", "--device", "tpu"], "--device tpu: choose `auto` or `cpu`"),
        (["report", "--table", 9], "unknown table '9' (known: 1, 2, 3, 4, 5, 6, pool)"),
        (["prepare", "--set", "prepare.path=nowhere"], "nowhere: no such file or folder; set prepare.path"),
        (["prepare", "--set", "prepare.source=superni"], "no folder `tasks`; prepare.path must be a clone"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    walked: Path, run: Run, capfd: Capture, command: list[str], message: str
) -> None:
    capfd.readouterr()
    assert run(*command, "-C", walked) == 2
    assert message in complaint(capfd)


def test_a_malformed_line_is_named_and_nothing_is_lost(copy: Path, run: Run, capfd: Capture) -> None:
    before = (copy / "data/prepare/tasks.json").read_bytes()
    path = copy / "tasks/training/first.jsonl"
    path.write_text(path.read_text() + '{"input": "a" "target": "b"}\n')
    assert run("prepare", "-C", copy) == 2
    assert "first.jsonl:13: not valid JSON: Expecting ',' delimiter" in complaint(capfd)
    assert (copy / "data/prepare/tasks.json").read_bytes() == before


def test_an_empty_project_says_what_to_run(project: Path, run: Run, capfd: Capture) -> None:
    for command, message in (
        (("pretrain", "-m", "lora"), "no finished backbone output; run `mhrctl prepare`, `mhrctl backbone`"),
        (("backbone",), "no finished prepare output; `mhrctl run backbone` does it with all that comes before (prepare)"),
        (("report",), "nothing to report yet: no scores in "),
    ):
        assert run(*command, "-C", project) == 2
        assert message in complaint(capfd)


def test_an_unexpected_error_keeps_its_traceback(project: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(prepare, "prepare", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run("prepare", "-C", project)


def test_check_shows_the_cells_and_wants_a_synced_grid(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("check", "-C", copy) == 0
    assert "mhr_mu-h4" in capfd.readouterr().out
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    assert run("check", "-C", copy) == 2
    assert "run `mhrctl grid sync`" in capfd.readouterr().err
    assert run("grid", "sync", "--check", "-C", copy) == 2
    assert run("grid", "sync", "-C", copy) == 0
    assert run("grid", "sync", "--check", "-C", copy) == 0


@pytest.mark.parametrize(("form", "begin"), [("markdown", "**Table 2"), ("csv", "method,n,"), ("latex", "\\begin{table}")])
def test_a_table_is_printed_in_each_form(walked: Path, run: Run, capfd: Capture, form: str, begin: str) -> None:
    assert run("report", "--table", 2, "--format", form, "-C", walked) == 0
    assert capfd.readouterr().out.startswith(begin)


def test_the_report_folder(walked: Path) -> None:
    names = {path.name for path in (walked / "data/report").iterdir()}
    assert names == {"table1.md", "table2.md", "results.md", "differences.md", "scores.csv", "curves.csv", "summary.json"}
    summary = json.loads((walked / "data/report/summary.json").read_text())
    assert list(summary) == ["backbone", "lora", "poly", "mhr-h4", "mhr_z-h4", "mhr_mu-h4"]


def test_logs_of_runs_stand_beside_the_outputs(walked: Path) -> None:
    log = json.loads((walked / "data/log/pretrain-lora-s0.json").read_text())
    assert log["device"] == "cpu"
    assert log["seconds"] > 0


def test_the_version_is_printed(run: Run, capfd: Capture) -> None:
    assert run("--version") == 0
    assert capfd.readouterr().out == f"mhrctl {mhrctl.__version__}\n"


def test_the_help_names_every_command(run: Run, capfd: Capture) -> None:
    assert run("--help") == 0
    shown = capfd.readouterr().out
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"^  (.*  )?{name}\b", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80
    headings = [line for line in shown.splitlines() if re.fullmatch(r"[A-Z].*:", line)]
    assert [line.rstrip(":") for line in headings] == list(SECTIONS)
    stages = next(line for line in shown.splitlines() if "prepare" in line)
    assert stages.split() == ["prepare", "backbone", "pretrain", "average", "index", "adapt", "evaluate"]


@pytest.mark.parametrize("line", [line for of in SECTIONS.values() for entry in of.values() for line in entry.examples])
def test_examples_are_command_lines_that_can_be_parsed(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "mhrctl"
    command = get_command(app)
    context = Context(command, info_name="mhrctl", resilient_parsing=True)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
        context = Context(command, parent=context, resilient_parsing=True)
    command.parse_args(context, words)
    assert not context.args or hasattr(command, "commands")
    assert not context._protected_args if hasattr(context, "_protected_args") else True


def test_every_command_has_examples() -> None:
    assert all(entry.examples for of in SECTIONS.values() for entry in of.values())


@pytest.mark.parametrize("command", [["trian"], ["pretrain", "--sead", "1"], ["run", "--jobs", "0"]])
def test_what_is_no_command_or_option_is_exit_code_2_without_a_traceback(run: Run, capfd: Capture, command: list[str]) -> None:
    assert run(*command) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
