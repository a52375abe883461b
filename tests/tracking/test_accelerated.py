"""A tracker of accelerate's as a recorder."""

from __future__ import annotations

import csv
import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mhrctl.tracking.accelerated import Accelerated
from tests.tracking.offline import LOSSES, NAME, tracked


class Tracker:
    """Remembers how it is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self) -> None:
        self.calls.append("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(values)

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


def test_a_summary_comes_at_the_last_step_under_a_name_of_its_own() -> None:
    tracker = Tracker()
    recorder = Accelerated(tracker)
    recorder.log(2, {"loss": 1.0})
    recorder.log(4, {"loss": 0.5})
    recorder.summary({"loss": 0.4})
    recorder.close()
    assert tracker.calls == ["start", (2, {"loss": 1.0}), (4, {"loss": 0.5}), (4, {"summary/loss": 0.4}), "finish"]


def test_settings_are_sent_once_where_a_tracker_has_not_got_them() -> None:
    tracker = Tracker()
    Accelerated(tracker, {"lr": 0.1})
    assert tracker.calls == ["start", {"lr": 0.1}]


@pytest.mark.skipif(find_spec("dvclive") is None, reason="dvclive is not installed")
@pytest.mark.slow
def test_dvclive_keeps_a_killed_training_in_one_curve_and_leaves_git_alone(copy: Path) -> None:
    someone = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "a"]):
        subprocess.run(["git", *someone, *command], cwd=copy, check=True)
    before = {path.name for path in copy.iterdir()}
    tracked(copy, "dvclive", killed=True)
    tracked(copy, "dvclive")
    folder = copy / "data/log/tracking/dvclive" / NAME
    with (folder / "plots/metrics/loss.tsv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream, delimiter="\t")] == LOSSES
    assert set(json.loads((folder / "metrics.json").read_text())) >= {"loss", "lr", "summary", "step"}
    settings = YAML(typ="safe").load((folder / "params.yaml").read_text())
    assert settings["group"] == "lora"
    assert settings["pretrain.lr"] == 0.001

    tracked(copy, "dvclive")
    with (folder / "plots/metrics/loss.tsv").open() as stream:  # those of another making take the place of these
        assert [int(row["step"]) for row in csv.DictReader(stream, delimiter="\t")] == LOSSES
    assert {path.name for path in copy.iterdir()} == before
    refs = subprocess.run(["git", "for-each-ref", "--format=%(refname)"], cwd=copy, check=True, capture_output=True, text=True)
    assert len(refs.stdout.split()) == 1
