"""The estimate of the time left."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from mhrctl.running.pipeline import State
from mhrctl.running.progress import Entry, Progress, earlier_seconds


def test_time_left_goes_by_finished_jobs_of_a_stage() -> None:
    progress = Progress.of(["train@a", "train@b", "train@c", "train@d", "evaluate@a"], {})
    assert progress.seconds_left(2) is None
    progress.stages["train@a"] = Entry(State.DONE, seconds=10.0)
    assert progress.seconds_left(2) == (15.0, False)  # three trainings of 10 s by two; the evaluation is unknown
    progress.stages["evaluate@a"] = Entry(State.DONE, seconds=2.0)
    progress.stages["train@b"] = Entry(State.RUNNING, started=time.time() - 4)
    left = progress.seconds_left(2)
    assert left is not None
    assert left[0] == pytest.approx((6 + 10 + 10) / 2, abs=0.5)
    assert left[1]
    left = progress.seconds_left(100)
    assert left is not None
    assert left[0] == pytest.approx(10, abs=0.5)  # never less than one of them takes


def test_earlier_runs_are_a_beginning(tmp_path: Path) -> None:
    for name, seconds in (("pretrain-lora-s0", 4), ("pretrain-mhr-h8-s0", 8), ("report", 1)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"seconds": seconds}))
    for number, text in enumerate(
        (b"{", b"\xff", b"[" * 100_000, b'{"seconds": NaN}', b'{"seconds": 1e400}', b'{"seconds": -1}')
    ):
        (tmp_path / f"report-broken{number}.json").write_bytes(text)
    os.mkfifo(tmp_path / "report-pipe.json")
    (tmp_path / "report-folder.json").mkdir()
    earlier = earlier_seconds(tmp_path)
    assert earlier == {"pretrain": 6.0, "report": 1.0}
    progress = Progress.of(["pretrain-extra@lora-s0", "report"], earlier)
    assert progress.seconds_left(1) == (7.0, True)
