"""A stage's inputs are watched for edits while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mhrctl.artifacts.hashing import digest, files_in
from mhrctl.errors import ArtifactError

SMALL = 2**16
"""Bytes of an input up to which its content says whether it was edited; of a larger one, size and time do."""


_edited: ContextVar[Callable[[], str | None]] = ContextVar("_edited", default=lambda: None)
"""Says which input of the running stage was edited since its start; set by `unedited`."""


@contextmanager
def unedited(settings: Callable[[], object], *inputs: Path) -> Iterator[None]:
    """Hold a stage's inputs to what they are now: nothing is put in place, and the block fails, if one is edited meanwhile.

    DVC hashes inputs when a command has ended, and would record an edit made while it ran as what the command had read. Nothing
    is hashed that is large, so that a stage starts at once.

    Args:
        settings: reads the stage's own settings; a change beside them does not matter.
        inputs: files and folders that the stage reads; those that are not there are passed over.

    Raises:
        ArtifactError: if an input is another at the end of the block, or when the block writes an output.
    """
    before = settings()
    states = {path: _state(path) for path in inputs}

    def edited() -> str | None:
        if settings() != before:
            return "its settings were"
        return next((f"{path} was" for path, state in states.items() if _state(path) != state), None)

    token = _edited.set(edited)
    try:
        yield
        require_unedited()
    finally:
        _edited.reset(token)


def require_unedited() -> None:
    """Check that no input of the running stage was edited since its start.

    Raises:
        ArtifactError: if one was.
    """
    if what := _edited.get()():
        raise ArtifactError(f"{what} edited during the run, so the result was discarded; run it again")


def _state(path: Path) -> dict[str, object]:
    """{file: what tells whether it was edited} of a file or of the files in a folder; empty if it is not there."""
    state: dict[str, object] = {}
    for file in files_in(path) if path.exists() else ():
        stat = file.stat()
        state[str(file)] = digest(file) if stat.st_size <= SMALL else (stat.st_size, stat.st_mtime_ns)
    return state
