"""Python looks for garbage in cycles after every few hundred new objects, which is much of the time where millions are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 100_000
"""New objects from one look to the next."""


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Look for garbage rarely meanwhile: for what makes many objects that stay, or whose end is the process's."""
    before = gc.get_threshold()
    gc.set_threshold(EVERY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
