"""An entry is what a tracker has of one making of an output; a killed command that is run again goes on in the same one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from mhrctl.artifacts.writing import write_json
from mhrctl.tracking.backend import Subject

LENGTH = 8
"""Bytes of an identifier."""


@contextmanager
def entered(subject: Subject) -> Iterator[Subject]:
    """Give a subject the identifier of its entry, for as long as its stage works.

    The identifier is noted in the folder of trackers until the stage has ended whole. So a command that finds a note of the
    same output, with the same key, goes on where another was killed; one that makes a finished output again begins a new entry.

    Args:
        subject: whose numbers are recorded.

    Yields:
        The subject with its entry.
    """
    note = subject.folder / "entries" / f"{subject.name}.json"
    noted: dict[str, str | None] = {}
    with suppress(OSError, ValueError, TypeError):
        noted = dict(json.loads(note.read_text(encoding="utf-8")))
    if subject.key and noted.get("key") == subject.key and noted.get("entry"):
        subject = replace(subject, entry=str(noted["entry"]), lock=noted.get("lock"), is_continued=True)
    else:
        subject = replace(subject, entry=secrets.token_hex(LENGTH))
    write_json(note, {"entry": subject.entry, "key": subject.key, "lock": subject.lock})
    yield subject
    with suppress(OSError):  # the output is in place, and the worst is that its next making goes on in this entry
        note.unlink()
