"""What routers answer is scored in both phases, as they answer alike before and after."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mhrctl.config.methods import METHODS

ROUTERS = [name for name, row in METHODS.items() if row.routes_queries]


@pytest.mark.parametrize("method", ROUTERS)
def test_routed_answers_are_of_both_phases(walked_all: Path, method: str) -> None:
    rows = pq.read_table(walked_all / f"data/evaluate/{method}-s0/predictions.parquet").to_pylist()
    of_phase = {
        phase: {(row["task"], row["id"]): row["prediction"] for row in rows if row["phase"] == phase}
        for phase in ("zero_shot", "adapted")
    }
    assert of_phase["zero_shot"] == of_phase["adapted"]
    examples = pq.read_table(walked_all / "data/prepare/test_tasks.parquet", filters=[("split", "==", "test")]).to_pylist()
    assert of_phase["adapted"].keys() == {(row["task"], row["id"]) for row in examples}
