"""Every `mhrctl` command line that the documents show is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from mhrctl.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = "commands.md"
SHOWN = re.compile(r"^\$ (?:[A-Z_]+=\S+ )*(?:[\w./-]+/)?(mhrctl .*)$", flags=re.MULTILINE)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each `$ mhrctl ...` of a page, without comments, pipes and what is joined by `&&`."""
    for line in SHOWN.findall(text.replace("\\\n", " ")):
        words = shlex.split(line, comments=True)
        part: list[str] = []
        for word in [*words, "&&"]:
            if word not in ("&&", "|", ">", "<"):
                part.append(word)
                continue
            if part[:1] == ["mhrctl"]:
                yield part[1:]
            part = []


def parse(words: list[str]) -> None:
    """Parse a command line as the command does, and run nothing."""
    command: Any = get_command(app)
    context, rest = None, words
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
        command = command.get_command(context, rest[0])
        assert command is not None, f"no command {rest[0]}"
        rest = rest[1:]
    command.make_context(command.name, list(rest), parent=context)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != GENERATED], ids=lambda page: page.name)
def test_commands_that_are_shown_are_taken(page: Path) -> None:
    for words in command_lines(page.read_text(encoding="utf-8")):
        if "..." not in words:
            parse(words)


def test_command_lines_are_seen() -> None:
    lines = ["mhrctl grid sync && mhrctl run --jobs 2   # why", ".venv/bin/mhrctl check", "dvc repro", "A_B=6 mhrctl run"]
    text = "".join(f"$ {line}\n" for line in lines)
    assert list(command_lines(text)) == [["grid", "sync"], ["run", "--jobs", "2"], ["check"], ["run"]]


@pytest.mark.parametrize("words", [["chekc"], ["check", "--no-such-option"], ["pretrain", "--heads", "none"]])
def test_commands_that_are_not_there_are_seen(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"no command|No such option|valid integer"):
        parse(words)
