"""`mhrctl index` and `mhrctl index query`: what they print, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Capture, MadeAnew, RefusesEdited, complaint
from tests.conftest import Run


@pytest.fixture
def indexed(copy: Path, run: Run, capfd: Capture) -> Path:
    assert run("index", "-C", copy) == 0
    capfd.readouterr()
    return copy


def test_tasks_and_encoder_are_printed(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("index", "-C", copy) == 0
    line = f"wrote {copy / 'data/index'}: 3 tasks by tfidf (no model: hashed words and pairs of words)\n"
    assert capfd.readouterr().err == line


@pytest.mark.usefixtures("indexed")
def test_a_result_of_edited_settings_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("index", file="params.yaml", old="examples: 9", new="examples: 8")


def test_other_settings_make_it_anew(indexed: Path, is_made_anew: MadeAnew) -> None:
    assert not is_made_anew("index")
    assert is_made_anew("index", "--set", "index.examples=2")
    (indexed / "data/index/index.safetensors").unlink()
    assert is_made_anew("index")


def test_an_encoder_that_is_nowhere_is_one_line_and_writes_nothing(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("index", "--set", "index.encoder=nobody/no-such-model", "-C", copy) == 2
    assert "index.encoder 'nobody/no-such-model': cannot be loaded" in complaint(capfd)
    assert not (copy / "data/index").exists()


def test_the_query_shows_training_tasks_for_training_and_test_tasks(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("index", "query", "--task", "swap", "-C", copy) == 2
    assert "no finished index output; run `mhrctl index`" in capfd.readouterr().err
    assert run("index", "-C", copy) == 0
    assert run("index", "query", "--task", "swap", "--top", 2, "-C", copy) == 0
    shown = capfd.readouterr().out
    assert sum(name in shown for name in ("copy", "first", "last")) == 2
    assert run("index", "query", "--task", "copy", "-C", copy) == 0
    assert "first" in capfd.readouterr().out
    assert run("index", "query", "--task", "swop", "-C", copy) == 2
    assert "--task: unknown task 'swop'; did you mean 'swap'? (known: copy," in capfd.readouterr().err


def test_a_query_prints_to_stdout_alone(indexed: Path, run: Run, capfd: Capture) -> None:
    assert run("index", "query", "--task", "swap", "--top", 1, "-C", indexed) == 0
    shown = capfd.readouterr()
    assert "most similar to swap" in shown.out
    assert shown.err == ""
    assert run("index", "query", "-C", indexed) == 2
    assert run("index", "query", "--task", "swap", "--top", 0, "-C", indexed) == 2
