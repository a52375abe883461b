"""What the command line shows: one line for what is wrong, nothing that text could turn into markup, bars on terminals only."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from mhrctl.cli import display
from mhrctl.errors import ParamsError
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


def test_lines_take_the_place_of_a_bar_where_there_is_no_terminal(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mhrctl.cli.display.time.monotonic", lambda: now[0])
    monkeypatch.delenv("MHRCTL_PROGRESS_SECONDS")
    with display.track("pretrain mhr-h8-s0", 600, about="80 tasks, 600 steps of 32 examples, cpu") as bar:
        bar.resume(40)
        for _ in range(140):  # a step a second
            now[0] += 1
            bar.advance(note="loss 0.4" if now[0] % 50 == 0 else "")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "pretrain mhr-h8-s0: 80 tasks, 600 steps of 32 examples, cpu",
        "pretrain mhr-h8-s0: goes on from step 40 of 600",
        "pretrain mhr-h8-s0: step 50 of 600, 1.0 steps/s, 9 min 10 s left",
        "pretrain mhr-h8-s0: step 110 of 600, loss 0.4, 1.0 steps/s, 8 min 10 s left",
        "pretrain mhr-h8-s0: step 170 of 600, loss 0.4, 1.0 steps/s, 7 min 10 s left",
    ]
    monkeypatch.setenv("RANK", "1")
    with display.track("pretrain mhr-h8-s0", 600, about="of the second process") as bar:
        bar.advance()
    assert capfd.readouterr().err == ""


def test_seconds_of_the_environment_are_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS_OF_IT", "2.5")
    assert display.seconds_of("SECONDS_OF_IT", 60) == 2.5
    monkeypatch.delenv("SECONDS_OF_IT")
    assert display.seconds_of("SECONDS_OF_IT", 60) == 60
    for wrong in ("-1", "soon", "nan", "inf"):
        monkeypatch.setenv("SECONDS_OF_IT", wrong)
        with pytest.raises(ParamsError, match=rf"SECONDS_OF_IT '{wrong}': must be a number of seconds, 0 or more"):
            display.seconds_of("SECONDS_OF_IT", 60)


def test_a_spinner_is_shown_until_the_first_progress(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    display.loading("torch, backbone")
    assert terminal.getvalue() == ""  # in CI
    monkeypatch.delenv("CI")
    display.loading("torch, backbone")
    with display.track("pretrain lora-s0", 1) as bar:
        bar.advance()
    assert "loading torch, backbone" in terminal.getvalue()
    assert terminal.getvalue().index("loading torch") < terminal.getvalue().index("pretrain lora-s0")
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back


def test_no_bar_is_shown_in_ci_nor_in_a_file(terminal: io.StringIO, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with display.track("in ci", 1) as bar:
        bar.advance(note="x")
    assert terminal.getvalue() == ""
    monkeypatch.undo()  # stderr is no terminal
    monkeypatch.delenv("CI", raising=False)
    with display.track("in a file", 1) as bar:
        bar.advance(note="x")
    assert capfd.readouterr().err.strip() == ""


def test_only_a_terminal_with_an_answer_is_asked(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.getvalue() == ""
    monkeypatch.setattr(display, "out", Console(file=io.StringIO(), force_terminal=True))
    monkeypatch.setattr("sys.stdin", io.StringIO("yes"))
    assert not display.can_ask()  # in CI
    monkeypatch.delenv("CI")
    assert not display.can_ask()  # stdin is a file
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert display.can_ask()
    monkeypatch.setattr(display, "out", Console(file=io.StringIO(), force_terminal=False))
    assert not display.can_ask()  # what was listed is in a file


@pytest.mark.parametrize("show", [display.show, display.echo, display.out.print])
def test_an_answer_takes_the_spinner_away(
    terminal: io.StringIO, capfd: Capture, monkeypatch: pytest.MonkeyPatch, show: Callable[[str], None]
) -> None:
    monkeypatch.delenv("CI")
    display.loading("torch")
    display.done("a line above it")
    assert display._spinners
    show("an answer")
    assert not display._spinners
    assert capfd.readouterr().out == "an answer\n"
    assert terminal.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, in an empty line


def test_texts_that_end_their_line_get_no_other(capfd: Capture) -> None:
    display.echo("a,b\n1,2\n")
    display.echo("")
    assert capfd.readouterr().out == "a,b\n1,2\n\n"


def test_the_pace_is_that_of_the_last_steps_and_says_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mhrctl.cli.display.time.monotonic", lambda: now[0])
    pace = display.Pace()
    assert (pace.speed, pace.left(10)) == ("", "")
    now[0] += 20  # a first validation, and a step
    pace.count(1)
    assert (pace.speed, pace.left(10)) == ("20.0 s/step", "3 min 20 s left")
    for _ in range(3):
        now[0] += 0.5
        pace.count(1)
    assert (pace.speed, pace.left(10)) == ("2.0 steps/s", "5.0 s left")
    for _ in range(display.RECENT):
        now[0] += 0.25
        pace.count(2)
    assert pace.speed == "8.0 steps/s"
    assert pace.left(0) == ""


def test_what_comes_after_a_training_has_a_spinner_and_what_comes_after_a_stop_has_none(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI")
    with display.track("generate", 1) as bar:
        bar.advance()
    with pytest.raises(KeyboardInterrupt), display.track("pretrain lora-s0", 2, about="80 tasks") as bar:
        raise KeyboardInterrupt
    assert not display._spinners
    with display.track("pretrain [lora]-s0", 1, about="80 tasks") as bar:
        bar.advance()
    assert len(display._spinners) == 1
    display.loaded()
    assert "finishing pretrain [lora]-s0" in terminal.getvalue()
