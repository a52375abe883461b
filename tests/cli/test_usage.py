"""What is wrong with a command line is one line on stderr and exit code 2."""

from __future__ import annotations

import pytest
import typer
from typer.main import get_command

from mhrctl.cli.app import app
from mhrctl.cli.usage import complaint, unknown_word
from tests.cli.conftest import Capture
from tests.cli.test_help import every_command
from tests.conftest import Run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown command trian; did you mean pretrain? (mhrctl --help)"),
        (["MHR"], "unknown command MHR (mhrctl --help)"),
        (["grid", "snyc"], "unknown command snyc; did you mean sync? (mhrctl grid --help)"),
        (["index", "qury"], "unknown command qury; did you mean query? (mhrctl index --help)"),
        (["--verison"], "unknown option --verison; did you mean --version? (mhrctl --help)"),
        (["pretrain", "--sead", "1"], "unknown option --sead; did you mean --seed? (mhrctl pretrain --help)"),
        (["run", "-x"], "unknown option -x (mhrctl run --help)"),
        (["index", "query"], "--task: is missing (mhrctl index query --help)"),
        (["import"], "PATH: is missing (mhrctl import --help)"),
        (["run", "--jobs"], "--jobs: needs a value, N (mhrctl run --help)"),
        (["run", "-j"], "-j: needs a value, N (mhrctl run --help)"),
        (["adapt", "--set"], "--set: needs a value, SECTION.KEY=VALUE (mhrctl adapt --help)"),
        (["prepare", "--force=1"], "--force: takes no value (mhrctl prepare --help)"),
        (["run", "-j", "0"], "--jobs 0: must be a whole number from 1 to 1000 (mhrctl run --help)"),
        (["run", "--jobs", "a"], "--jobs a: must be a whole number from 1 to 1000 (mhrctl run --help)"),
        (
            ["index", "query", "--task", "a", "--top", "0"],
            "--top 0: must be a whole number, 1 or more (mhrctl index query --help)",
        ),
        (["export", "--to", "hf"], "--to hf: choose peft, serving or harness (mhrctl export --help)"),
        (["show", "--split", "dev"], "--split dev: choose train, validation, test or pool (mhrctl show --help)"),
        (["prepare", "backbone"], "unexpected argument backbone (mhrctl prepare --help)"),
        (["adapt", "mhr", "lora", "poly"], "unexpected arguments lora, poly (mhrctl adapt --help)"),
        (["prepare", "\x1b[31m"], r"unexpected argument \x1b[31m (mhrctl prepare --help)"),
    ],
)
def test_each_mistake_is_one_line(run: Run, capfd: Capture, words: list[str], said: str) -> None:
    assert run(*words) == 2
    shown = capfd.readouterr()
    assert shown.err == f"error: {said}\n"
    assert shown.out == ""


@pytest.mark.parametrize("words", [(), *every_command()], ids=" ".join)
def test_every_command_and_group_answers_so(run: Run, capfd: Capture, words: tuple[str, ...]) -> None:
    assert run(*words, "--qqq") == 2
    assert capfd.readouterr().err == f"error: unknown option --qqq ({' '.join(['mhrctl', *words])} --help)\n"


def test_a_variable_of_the_environment_is_named_with_its_value(
    run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHRCTL_TOGETHER", "many")
    monkeypatch.setenv("MHRCTL_CHECKPOINTING", "perhaps")
    assert run("evaluate", "lora-s0") == 2
    assert capfd.readouterr().err.startswith("error: MHRCTL_TOGETHER=many: must be a whole number, 1 or more (")
    monkeypatch.delenv("MHRCTL_TOGETHER")
    assert run("pretrain", "lora-s0") == 2
    assert capfd.readouterr().err.startswith("error: MHRCTL_CHECKPOINTING=perhaps: must be true or false (")


@pytest.mark.parametrize("words", [[], ["grid"]])
def test_without_a_command_there_is_the_help(run: Run, capfd: Capture, words: list[str]) -> None:
    assert run(*words) == 2
    shown = capfd.readouterr()
    assert "sync" in shown.out
    assert "Usage: mhrctl" in shown.out
    assert shown.err == ""


def test_an_error_of_another_kind_keeps_its_words() -> None:
    context = typer.Context(get_command(app), info_name="mhrctl")
    error = typer.BadParameter("It is\nno   good.", ctx=context)
    assert complaint(error) == "invalid value: It is no good (mhrctl --help)"
    assert complaint(typer.TyperException("It is.")) == "it is"


def test_a_word_is_near_whatever_its_case() -> None:
    assert unknown_word("option", "--Seed", ["--heads", "--seed"]) == "unknown option --Seed; did you mean --seed?"
    assert unknown_word("option", "--x", ["--heads", "--seed"]) == "unknown option --x"
