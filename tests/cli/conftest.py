"""What tests of commands share: their one-line complaints, inputs that are edited while they run, outputs that are made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhrctl.artifacts.cards import Card
from mhrctl.artifacts.hashing import digest
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]
MADE = " is up to date; --force runs it again"
LOG, SCORES = "data/metrics/pretrain/lora-s0.csv", "data/metrics/evaluate/lora-s0.json"


def complaint(capfd: Capture) -> str:
    """The one line on stderr."""
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    return error


def rewrite(path: Path, old: str, new: str) -> Callable[[], object]:
    """An edit of a file, to be made later."""
    assert old in path.read_text()
    return lambda: path.write_text(path.read_text().replace(old, new))


def editing(monkeypatch: pytest.MonkeyPatch, edit: Callable[[], object]) -> None:
    """Have something edited while a stage runs, once it has read all it reads."""
    made = Card.of

    def of(*arguments: Any, **facts: Any) -> Any:
        edit()
        return made(*arguments, **facts)

    monkeypatch.setattr(Card, "of", of)


RefusesEdited = Callable[..., None]


@pytest.fixture
def refuses_edited(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> RefusesEdited:
    """Asserts that a stage whose input is edited while it runs keeps no result, and leaves the one that was there."""

    def refuses(stage: str, *cell: str, file: str, old: str, new: str) -> None:
        outputs = [copy / "data" / stage, copy / "data/metrics"]
        before = [digest(path) for path in outputs]
        editing(monkeypatch, rewrite(copy / file, old, new))
        assert run(stage, *cell, "--force", "-C", copy) == 2
        said = capfd.readouterr().err.splitlines()
        what = "its settings were" if file.startswith(("params", "data/cells")) else f"{copy / Path(file).parent} was"
        assert f"{what} edited during the run" in said[-1]
        assert "run it again" in said[-1]
        monkeypatch.undo()
        for path in (copy / "data").glob(f"{stage}/.*.partial"):  # what `writing` leaves of a run that failed
            shutil.rmtree(path)
        shutil.rmtree(copy / f"data/.{stage}.partial", ignore_errors=True)
        assert [digest(path) for path in outputs] == before

    return refuses


MadeAnew = Callable[..., bool]


@pytest.fixture
def is_made_anew(copy: Path, run: Run, capfd: Capture) -> MadeAnew:
    """Runs a stage on the copied project; whether it has computed its output, which is then up to date."""

    def made_anew(*command: object) -> bool:
        said = []
        for _ in range(2):
            capfd.readouterr()
            assert run(*command, "-C", copy) == 0
            said.append(capfd.readouterr().err.splitlines()[-1])
        assert said[1].endswith(MADE) or "--force" in command
        return not said[0].endswith(MADE)

    return made_anew


def assert_whole_again(is_made_anew: MadeAnew, path: Path, *command: object) -> None:
    """An output with a file missing, or of another length, is made anew with the same bytes."""
    before = path.read_bytes()
    path.unlink()
    assert is_made_anew(*command)
    assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    assert is_made_anew(*command)
    assert path.read_bytes() == before


def assert_of_the_same_run(is_made_anew: MadeAnew, path: Path, *command: object) -> None:
    """What stands beside an output is not of a run that ended before its folder was in place, nor of another commit."""
    before = path.read_bytes()
    path.write_bytes(before.replace(b"1", b"2"))
    assert is_made_anew(*command)
    assert path.read_bytes() == before
