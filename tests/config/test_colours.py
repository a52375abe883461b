"""The colours of pictures."""

from __future__ import annotations

from mhrctl.config import colours
from mhrctl.config.methods import METHODS


def test_ink_and_paper_are_colours_that_nothing_else_has() -> None:
    named = [value for name, value in vars(colours).items() if name.isupper() and isinstance(value, str)]
    assert len(set(named)) == len(named)
    assert all(value.startswith("#") and len(value) == 7 for value in named)
    assert {method.look[0] for method in METHODS.values()} <= set(named)
