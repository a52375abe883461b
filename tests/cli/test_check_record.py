"""The parts of `mhrctl check --json`; the whole is in test_json_.py."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.names import Project
from mhrctl.cli.check_record import sizes_record
from mhrctl.tools.estimate import Estimate


def test_outputs_that_cells_share_count_once(tmp_path: Path) -> None:
    shared = {("pretrain", "mhr-h4-s0"): 100}
    cells = [Estimate({**shared, ("adapt", "mhr-h4-s0"): 10}, 7, 1), Estimate({**shared, ("adapt", "mhr_z-h4-s0"): 1}, 9, 1)]
    record = sizes_record(None, None, cells, Project(tmp_path))
    assert record["disk"]["needed"] == 111
    assert record["disk"]["checkpoints"] == 9
    assert record["tasks"] is record["backbone"] is None


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    disk = sizes_record(None, None, [], Project(tmp_path))["disk"]
    assert disk["needed"] is disk["checkpoints"] is None
    assert disk["free"] > 0
