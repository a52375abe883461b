"""The page of installing names every extra, Python, command with `--json` and state of what doctor looks at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from mhrctl.cli.app import app
from mhrctl.tools.installation import EXTRAS, State
from tests.packaging.test_constraints import PROJECT, pythons

PAGE = (Path(__file__).parents[2] / "docs/install.md").read_text(encoding="utf-8")
JSON = PAGE.partition("## For programs")[2].partition("\n## ")[0]


def test_every_extra_has_a_row() -> None:
    extras = set(PROJECT["optional-dependencies"]) - {"test", "dev"}
    assert extras <= set(re.findall(r"^\| `([a-z_]+)` \| .* \| .*MB \|$", PAGE, flags=re.MULTILINE))
    assert extras <= set(EXTRAS)


def test_pythons_are_those_of_the_metadata() -> None:
    assert f"Python {pythons()[0]} to {pythons()[-1]}." in PAGE


def test_every_state_has_a_row() -> None:
    rows = PAGE.partition("## `mhrctl doctor`")[2]
    assert [state for state in State if f"| `{state}` |" not in rows] == []


def json_commands(command: Any, name: str = "") -> Iterator[str]:
    """The commands that take `--json`."""
    if any("--json" in param.opts for param in command.params):
        yield name
    for word, each in getattr(command, "commands", {}).items():
        yield from json_commands(each, f"{name} {word}".strip())


def test_every_command_with_json_is_there() -> None:
    commands = set(json_commands(get_command(app)))
    assert {"check", "count", "doctor", "grid prune", "report", "run", "show"} <= commands
    assert [name for name in commands if f"`{name}" not in JSON and f"`mhrctl {name}" not in JSON] == []
