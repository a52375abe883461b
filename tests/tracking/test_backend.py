"""A row knows whether its package is there."""

from __future__ import annotations

import pytest

from mhrctl.errors import TrackingError
from mhrctl.tracking.backend import Backend


def test_a_package_is_looked_for_without_being_imported() -> None:
    def opens(_: object) -> None:
        pytest.fail("a row must not be opened to look for its package")

    Backend("any", "this", opens).require()  # type: ignore[arg-type]  # importing `this` would print
    with pytest.raises(TrackingError, match=r"^the package a-tracker is not installed; run `pip install a-tracker`$"):
        Backend("a-tracker", "no_such_module", opens).require()  # type: ignore[arg-type]
