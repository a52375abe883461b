"""What the command line shows: one line for what is wrong, nothing that text could turn into markup, bars on terminals only."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from mhrctl.cli import display
from tests.cli.conftest import Capture

LONG = "word " * 60


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns gets on stderr."""
    stream = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=stream, force_terminal=True, width=80, color_system=None))
    return stream


def test_a_complaint_is_one_line_whatever_is_in_it(capfd: Capture) -> None:
    display.complain(f"first\nsecond   [red]third[/] {LONG}")
    shown = capfd.readouterr()
    assert shown.err == f"error: first second [red]third[/] {LONG.strip()}\n"
    assert shown.out == ""


def test_a_path_is_shown_as_it_is(capfd: Capture) -> None:
    display.done(f"wrote a[b]/{'c' * 200}")
    assert capfd.readouterr().err == f"wrote a[b]/{'c' * 200}\n"


@pytest.mark.parametrize("say", [display.done, display.warn, display.complain])
def test_no_text_is_a_code_of_the_terminal_or_an_emoji(say: Callable[[str], None], capfd: Capture) -> None:
    say("a\x1b[2Jb :smile: [/x] \\[red]")
    assert r"a\x1b[2Jb :smile: [/x] \[red]" in capfd.readouterr().err


def test_what_was_asked_for_goes_to_stdout_as_it_is(capfd: Capture) -> None:
    display.show(f"[bold]{'c' * 200}")
    assert capfd.readouterr().out == f"[bold]{'c' * 200}\n"


def test_a_bar_takes_no_name_for_markup(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI")
    with display.track("adapt [/x]", 1) as bar:
        bar.advance(note="[red]a\x1b[2J[/b]")
    assert "adapt [/x]" in terminal.getvalue()
    assert r"[red]a\x1b[2J[/b]" in terminal.getvalue()


def test_a_bar_is_shown_on_a_terminal(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI")
    with display.track("pretrain lora-s0", 3) as bar:
        bar.advance()
        bar.advance(2, note="loss 1.25")
    shown = terminal.getvalue()
    assert "pretrain lora-s0" in shown
    assert "3/3" in shown
    assert "loss 1.25" in shown


def test_no_bar_is_shown_in_ci_nor_in_a_file(terminal: io.StringIO, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with display.track("in ci", 1) as bar:
        bar.advance(note="x")
    assert terminal.getvalue() == ""
    monkeypatch.undo()  # stderr is no terminal
    monkeypatch.delenv("CI", raising=False)
    with display.track("in a file", 1) as bar:
        bar.advance(note="x")
    assert capfd.readouterr().err.strip() == ""
