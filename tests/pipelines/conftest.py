"""What walks through a tiny study."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.robustness.workshop import Runner


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    opened = Runner()
    yield opened
    opened.close()
