"""Options that take one value are given once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["adapt", "--cell", "lora-s0", "--cell", "poly-s0"], "--cell is given 2 times, and takes one value; give it once"),
        (["pretrain", "-m", "lora", "--method", "poly"], "--method/-m is given 2 times"),
        (["evaluate", "--seed", "1", "--seed", "2", "--seed", "3"], "--seed is given 3 times"),
        (["index", "query", "--task", "a", "--task", "b"], "--task is given 2 times"),
        (["index", "--recipe", "t0", "--recipe", "superni"], "--recipe is given 2 times"),
        (["run", "--keep-going", "--fail-fast"], "--keep-going/--fail-fast is given 2 times"),
    ],
)
def test_a_second_value_is_refused(project: Path, run: Run, capfd: Capture, command: list[str], said: str) -> None:
    assert run(*command, "-C", project) == 2
    assert said in capfd.readouterr().err
    assert not (project / "data").exists()


def test_repeatable_options_and_flags_are_left_alone(project: Path, run: Run, capfd: Capture) -> None:
    assert run("check", "--set", "adapt.lr=0.5", "--set", "pretrain.lr=0.5", "-C", project) == 0
    assert run("grid", "sync", "-C", project) == 0
    assert run("grid", "sync", "--check", "--check", "-C", project) == 0
    assert "up to date" in capfd.readouterr().err
