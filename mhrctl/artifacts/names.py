"""This module has every file name of a project."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

CARD = "card.json"


TASKS = "tasks.json"


TRAINING_EXAMPLES = "training_tasks.parquet"


TEST_EXAMPLES = "test_tasks.parquet"


BACKBONE_EXAMPLES = "backbone_tasks.parquet"


TOKENIZER = "tokenizer"


ADAPTERS = "adapters.safetensors"


PREDICTIONS = "predictions.parquet"


SCORES = "scores.csv"


VALIDATION = "validation.csv"


LOG = "log.jsonl"


INDEX = "index.safetensors"


SOUP = "soup.safetensors"


SOUP_TASKS = "soup.csv"


ROUTES = "routes.csv"


SAMPLES = "samples.parquet"
CLAIMS = "claims.md"


ROUTING = "routing.json"


HEATMAPS = "heatmaps"


SIMILARITY = "similarity"


MAX_NAME = 120
"""Bytes of a folder's name at most; file systems take 255, with an ending and whatever marks a partial one."""


@dataclass(frozen=True)
class Project:
    """A project knows where its files are, below the folder that holds params.yaml."""

    root: Path

    @property
    def params(self) -> Path:
        """The params file."""
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        """The folder of everything that stages write."""
        return self.root / "data"

    def output(self, stage: str, cell: str | None = None) -> Path:
        """Return the output folder of a stage, or of one cell of a stage."""
        return self.data / stage / cell if cell else self.data / stage

    def cell_file(self, cell: str) -> Path:
        """Return the path of the resolved parameters of a cell, which its DVC stages depend on."""
        return self.data / "cells" / f"{cell}.json"

    @property
    def cell_index(self) -> Path:
        """The lists of cells that dvc.yaml expands."""
        return self.data / "cells" / "index.yaml"

    @property
    def optional_sections(self) -> Path:
        """What params.yaml may leave out, written out, for the stages of dvc.yaml to depend on."""
        return self.data / "cells" / "sections.json"

    @property
    def stage_versions(self) -> Path:
        """The versions of the stages, of which each stage of dvc.yaml depends on its own."""
        return self.data / "cells" / "versions.json"

    @property
    def scratch(self) -> Path:
        """The folder for checkpoints of runs in progress."""
        return self.data / "scratch"

    @property
    def metrics(self) -> Path:
        """The folder of what git keeps of the results: scores and training logs."""
        return self.data / "metrics"

    def scores(self, cell: str) -> Path:
        """Return the path of the scores of one cell."""
        return self.metrics / "evaluate" / f"{cell}.json"

    def training_log(self, cell: str) -> Path:
        """Return the path of the pre-training log of one cell."""
        return self.metrics / "pretrain" / f"{cell}.csv"

    def alignment(self, name: str) -> Path:
        """Return the path of one cell's gradient alignment; the name ends in -start or -checkpoint if it is not of the end."""
        return self.metrics / "align" / f"{name}.json"

    def harness(self, cell: str) -> Path:
        """Return the path of what lm-evaluation-harness said of one cell."""
        return self.metrics / "harness" / f"{cell}.json"

    def run_log(self, stage: str, cell: str | None = None) -> Path:
        """Return the path of what the last run of a stage took: never an input of anything."""
        return self.data / "log" / (f"{stage}-{cell}.json" if cell else f"{stage}.json")

    @property
    def tracking(self) -> Path:
        """The folder of what trackers keep on this machine: beside the run logs, and like them never an input of anything."""
        return self.data / "log" / "tracking"


def folder_name(task: str) -> str:
    """Return a folder's name for a task: its own, with nothing in it that could lead elsewhere, cut if no disk takes it."""
    name = re.sub(r"[^\w.-]+", "_", task).lstrip(".") or "_"
    if len(name.encode()) <= MAX_NAME:
        return name
    mark = hashlib.sha256(task.encode()).hexdigest()[:16]
    return f"{name.encode()[: MAX_NAME - 17].decode(errors='ignore')}-{mark}"


def table_file(name: int | str) -> str:
    """Return the file that the report stage writes a table into: of the paper by its number, of ours by its name."""
    return f"table{name}.md" if isinstance(name, int) else f"{name}.md"
