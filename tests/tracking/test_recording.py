"""Several trackers are one recorder, and none of them can spoil what is recorded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mhrctl.errors import TrackingError
from mhrctl.progress import unrecorded
from mhrctl.tracking import recording as module
from mhrctl.tracking.backend import Subject
from mhrctl.tracking.recording import recording
from tests.tracking.recorders import Remembering, row


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject("project", "pretrain", tmp_path / "tracking", cell="lora-s0", key="k")


def install(monkeypatch: pytest.MonkeyPatch, **recorders: Remembering) -> None:
    monkeypatch.setattr(module, "TRACKERS", {name: row(recorder) for name, recorder in recorders.items()})


def test_all_get_everything_and_each_is_opened_and_closed_once(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, warnings = Remembering(), Remembering(), list[str]()
    install(monkeypatch, first=first, second=second)
    with recording(["first", "second", "first"], subject, warn=warnings.append) as recorder:
        recorder.log(1, {"loss": 2.0})
        recorder.summary({"best": 1.0})
        assert not first.closed
    for each in (first, second):
        assert each.logged == [(1, {"loss": 2.0})]
        assert each.summaries == [{"best": 1.0}]
        assert each.closed == 1
    assert not warnings


def test_without_names_nothing_is_recorded(subject: Subject) -> None:
    with recording([], subject, warn=pytest.fail) as recorder:
        assert recorder is unrecorded


def test_one_that_cannot_be_opened_stops_the_command_and_closes_the_others(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_one = Remembering()
    install(monkeypatch, good=open_one, bad=Remembering("open"))
    message = r"--track bad: it cannot be opened: ValueError: no key for pretrain-lora-s0$"
    with pytest.raises(TrackingError, match=message), recording(["good", "bad"], subject, warn=pytest.fail):
        pytest.fail("the stage must not begin")
    assert open_one.closed == 1


@pytest.mark.parametrize(("fails", "when"), [("log", "at step 1"), ("summary", "at the summary"), ("close", "at the end")])
def test_one_that_fails_is_left_out_with_one_warning(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, fails: str, when: str
) -> None:
    bad, good, warnings = Remembering(fails), Remembering(), list[str]()
    install(monkeypatch, bad=bad, good=good)
    with recording(["bad", "good"], subject, warn=warnings.append) as recorder:
        recorder.log(1, {"loss": 2.0})
        recorder.log(2, {"loss": 1.0})
        recorder.summary({"best": 1.0})
    assert warnings == [
        f"--track bad failed {when} and records no more, the command goes on: ConnectionError: {fails} was lost"
    ]
    assert [step for step, _ in good.logged] == [1, 2]
    assert good.summaries == [{"best": 1.0}]
    assert good.closed == 1


def test_what_was_recorded_is_kept_when_the_stage_is_interrupted(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Remembering()
    install(monkeypatch, one=recorder)
    with pytest.raises(KeyboardInterrupt), recording(["one"], subject, warn=pytest.fail):
        raise KeyboardInterrupt
    assert recorder.closed == 1


def test_the_environment_keeps_a_tracker_local_until_the_end_but_for_what_is_set(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", "a server")
    monkeypatch.delenv("MODE", raising=False)
    local = replace(row(Remembering()), local=lambda of: {"WHERE": str(of.folder), "MODE": "offline"})
    monkeypatch.setattr(module, "TRACKERS", {"one": local})
    with recording(["one"], subject, warn=pytest.fail):
        assert (os.environ["WHERE"], os.environ["MODE"]) == ("a server", "offline")
    assert "MODE" not in os.environ


def test_an_interrupted_stage_leaves_the_note_of_its_entry(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, one=Remembering())
    note = subject.folder / "entries/pretrain-lora-s0.json"
    with pytest.raises(KeyboardInterrupt), recording(["one"], subject, warn=pytest.fail):
        raise KeyboardInterrupt
    assert note.is_file()
    with recording(["one"], subject, warn=pytest.fail):
        pass
    assert not note.exists()
