"""A project whose adapted cells say this and that, and were evaluated so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.artifacts.names import ADAPTERS
from tests.conftest import mhrctl, reseal

LIVELY = {"lora-s0": 6, "mhr-h4-s0": 2}
"""{cell: a seed of numbers by which some of its answers are right}."""


@pytest.fixture(scope="session")
def lively(walked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the walked project, in which adapters have numbers of some size, so that they say something."""
    folder = Path(shutil.copytree(walked, tmp_path_factory.mktemp("lively") / "project"))
    for cell, seed in LIVELY.items():
        adapted = folder / "data/adapt" / cell
        adapter = load_adapter(adapted / ADAPTERS)
        numbers = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=numbers))
        save_adapter(adapter, adapted / ADAPTERS)
        reseal(adapted)
        assert mhrctl("evaluate", cell, "-C", folder) == 0
    return folder


def rows_of_tests(project: Path) -> list[dict[str, Any]]:
    """The test splits as rows: tasks in turns, each with the reference that was drawn."""
    rows = []
    for row in pq.read_table(project / "data/prepare/test_tasks.parquet").to_pylist():
        if row["split"] == "test":
            lines = (project / f"tasks/test/{row['task']}.jsonl").read_text().splitlines()
            text = json.loads(lines[int(row["id"].rpartition("-")[2])])["input"]
            rows.append({"task": row["task"], "id": row["id"], "input": text, "target": row["targets"][row["reference"]]})
    return sorted(rows, key=lambda row: str(row["id"]).rpartition("-")[2])
