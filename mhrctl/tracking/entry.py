"""An entry is what a tracker has of one making of an output; a killed command that is run again goes on in the same one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from mhrctl.artifacts.writing import write_json
from mhrctl.tracking.backend import Subject

LENGTH = 8
"""Bytes of an identifier."""


@contextmanager
def entered(subject: Subject, trackers: Collection[str]) -> Iterator[Subject]:
    """Give a subject the identifier of its entry, for as long as its stage works.

    The identifier is noted in the folder of trackers until the stage has ended whole. So a command that finds a note of the
    same output, with the same key, goes on where another was killed; one that makes a finished output again begins a new entry,
    and so does one with a tracker that the killed command had not.

    Args:
        subject: whose numbers are recorded.
        trackers: by which.

    Yields:
        The subject with its entry.
    """
    note = subject.folder / "entries" / f"{subject.name}.json"
    noted: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError):
        noted = dict(json.loads(note.read_text(encoding="utf-8")))
    is_same = subject.key != "" and noted.get("key") == subject.key and {*trackers} <= {*(noted.get("trackers") or ())}
    if is_same and noted.get("entry"):
        subject = replace(subject, entry=str(noted["entry"]), lock=noted.get("lock"), is_continued=True)
    else:
        subject = replace(subject, entry=secrets.token_hex(LENGTH))
    write_json(note, {"entry": subject.entry, "key": subject.key, "lock": subject.lock, "trackers": list(trackers)})
    yield subject
    with suppress(OSError):  # the output is in place, and the worst is that its next making goes on in this entry
        note.unlink()
