"""`mhrctl prepare`: when it makes its output anew, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if line.startswith("│")]
    assert rows == [
        [rows[0][0], "3", "12", "6", "0", "0", "18", "0", "0"],
        ["test", "2", "0", "0", "8", "16", "0", "0", "0"],
    ]
    assert rows[0][0].startswith("train")
    assert said.endswith(f"wrote {project / 'data/prepare'}\n")
