"""An entry is gone on with where its command was killed, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mhrctl.tracking.backend import Subject
from mhrctl.tracking.entry import entered

TRACKERS = ("one", "two")


def killed(subject: Subject) -> Subject:
    """The subject of a command that is killed."""
    with pytest.raises(KeyboardInterrupt), entered(subject, TRACKERS) as entry:
        got = entry
        raise KeyboardInterrupt
    return got


def finished(subject: Subject) -> Subject:
    """The subject of a command that ends whole."""
    with entered(subject, TRACKERS) as entry:
        return entry


def test_a_killed_command_is_gone_on_with_once(tmp_path: Path) -> None:
    subject = Subject("study", "pretrain", tmp_path, cell="lora-s0", key="k", lock="before")
    first = killed(subject)
    assert first.entry
    assert not first.is_continued
    again = killed(replace(subject, lock="after"))
    assert (again.entry, again.is_continued, again.lock) == (first.entry, True, "before")
    with entered(subject, TRACKERS) as whole:
        assert whole.entry == first.entry
    assert not finished(subject).is_continued


def test_another_output_begins_an_entry_of_its_own(tmp_path: Path) -> None:
    subject = Subject("study", "pretrain", tmp_path, cell="lora-s0", key="k")
    first = killed(subject)
    for other in (replace(subject, key="other"), replace(subject, cell="lora-s1"), replace(subject, stage="adapt")):
        assert killed(other).entry != first.entry


def test_a_damaged_note_begins_a_new_entry(tmp_path: Path) -> None:
    subject = Subject("study", "backbone", tmp_path, key="k")
    killed(subject)
    for text in ("", "[]", "{", '{"key": "k"}'):
        (tmp_path / "entries/backbone.json").write_text(text)
        assert not killed(subject).is_continued


def test_a_tracker_that_the_killed_command_had_not_gets_no_entry_of_others(tmp_path: Path) -> None:
    subject = Subject("study", "pretrain", tmp_path, cell="lora-s0", key="k")
    first = killed(subject)
    with entered(subject, ["two"]) as fewer:
        assert fewer.entry == first.entry
    killed(subject)
    with entered(subject, ["two", "three"]) as more:
        assert not more.is_continued
