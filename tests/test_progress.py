"""What the library reports to by default takes everything and does nothing."""

from __future__ import annotations

import pytest

from mhrctl.progress import silent, unrecorded


def test_nothing_is_shown_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    with silent("work", 3) as bar:
        bar.advance()
        bar.advance(2, note="loss 1.0")
    assert capsys.readouterr() == ("", "")


def test_nothing_is_recorded_by_default() -> None:
    unrecorded.log(1, {"loss": 1.0})
    unrecorded.summary({"loss": 1.0})
    assert not vars(unrecorded)
