"""The help of commands can be read: panels, words for values, defaults, examples, at 80 columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.markup import render
from typer import Context
from typer._click.formatting import HelpFormatter
from typer.main import get_command

from mhrctl.cli.app import app
from mhrctl.cli.help import RUNNING, SETTINGS, SPEED, WHICH_CELL, examples, readable, write_commands
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


def every_command(command: Any = None, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    command = command or get_command(app)
    below = [every_command(each, (*words, name)) for name, each in getattr(command, "commands", {}).items()]
    return [*([words] if words else []), *(each for of in below for each in of)]


def command_of(words: tuple[str, ...]) -> Any:
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    return command


@pytest.fixture
def shown(run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Shows the help of a command at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")

    def show(*words: str, option: str = "--help") -> str:
        assert run(*words, option) == 0
        return capfd.readouterr().out

    return show


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_help_fits_80_columns_has_no_types_and_names_every_option(words: tuple[str, ...], shown: Any) -> None:
    text = shown(*words)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"<(bool|int|str|path|float)|range>|<=x", text)
    assert "…" not in text
    for param in command_of(words).params:
        assert param.hidden or any(name in text for name in (param.metavar, *param.opts, param.name.upper()) if name), (
            param.name
        )


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_option_says_what_it_is(words: tuple[str, ...]) -> None:
    for param in command_of(words).params:
        said = param.help or ""
        assert said, param.name
        assert said[0].isupper() or said[0] in "`(", (param.name, said)
        assert not re.match(r"(Of|Whose|For) ", said), (param.name, said)  # which only the option's name would explain


def test_short_and_long_options_show_the_same(shown: Any) -> None:
    assert shown("adapt", option="-h") == shown("adapt")
    assert shown("grid", "sync", option="-h") == shown("grid", "sync")


def test_defaults_in_brackets_are_shown_and_panels_are_in_order(shown: Any) -> None:
    lines = shown("pretrain")
    text = " ".join(re.sub(r"[│─]", " ", lines).split())
    assert "Seed of the cell. [default: the grid's first]" in text
    places = [lines.index(f"─ {panel} ─") for panel in (WHICH_CELL, SETTINGS, SPEED, RUNNING)]
    assert places == sorted(places)
    assert "[default: pretrain.align_tasks]" in " ".join(re.sub(r"[│─]", " ", shown("align")).split())


def test_an_option_of_a_number_keeps_its_bounds(run: Run, project: Path) -> None:
    option = next(param for param in command_of(("pretrain",)).params if param.name == "heads")
    as_shown = readable(option)
    assert (as_shown.metavar, as_shown.min, as_shown.max) == ("N", None, None)
    assert option.min == 1
    assert run("pretrain", "-m", "mhr", "--heads", 0, "-C", project) == 2


def test_words_of_a_choice_are_named() -> None:
    option = next(param for param in command_of(("count",)).params if param.name == "form")
    assert readable(option).help.endswith("One of: terminal, markdown, csv, latex.")


def test_examples_are_no_markup() -> None:
    assert examples([]) is None
    assert str(render(str(examples(["mhrctl run [bold]"])))).endswith("mhrctl run [bold]")


def test_commands_without_a_line_share_one() -> None:
    formatter = HelpFormatter(width=78)
    write_commands(formatter, "Stages", {"one": "", "two": "", "three": "does it."})
    lines = formatter.getvalue().splitlines()
    assert lines[1:] == ["  three       does it.", "  one  two"]


def test_parsing_does_not_see_what_help_shows() -> None:
    command = command_of(("adapt",))
    with Context(command) as context:
        assert [param.metavar for param in command.get_params(context) if param.name == "heads"] == [None]
