"""What trackio keeps of a training, in its data base."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.offline import LOSSES, NAME, tracked

pytest.importorskip("trackio", reason="trackio is not installed")


def rows(project: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(project / "data/log/tracking/trackio/project.db")) as base:
        return base.execute(query).fetchall()


def test_a_killed_training_goes_on_in_its_run_and_another_begins_its_own(copy: Path) -> None:
    tracked(copy, "trackio", killed=True)
    said = tracked(copy, "trackio")
    assert "Trackio" not in said
    (only,) = {row[0] for row in rows(copy, "select run_id from metrics")}
    of_loss = [
        step for step, values in rows(copy, "select step, metrics from metrics order by id") if "loss" in json.loads(values)
    ]
    assert of_loss == LOSSES
    ((name, text),) = rows(copy, "select run_name, config from configs")
    config = json.loads(text)
    assert name == NAME
    assert config["_Group"] == config["group"] == "lora"
    assert config["pretrain.lr"] == 0.001
    assert len(config["key"]) == 64

    tracked(copy, "trackio")
    assert len({row[0] for row in rows(copy, "select run_id from metrics")} - {only}) == 1
