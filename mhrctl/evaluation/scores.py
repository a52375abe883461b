"""The scores of a cell, as `data/metrics/evaluate/<cell>.json` holds them for git, DVC and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.config.params import PLAIN
from mhrctl.errors import ArtifactError, unknown
from mhrctl.suites.task import Metric

METRIC_NAMES = {"rouge_l": "ROUGE-L", "accuracy": "accuracy", "exact_match": "exact match", "mixed": "score"}
"""Metrics as people read them."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scores(_Closed):
    """Means over test tasks of each task's mean, in percent."""

    score: float = Field(ge=0, le=100, description="each task by its own metric")
    rouge_l: float = Field(ge=0, le=100)
    exact_match: float = Field(ge=0, le=100)


class TaskScores(_Closed):
    """A test task's means by its own metric, in percent."""

    metric: Metric
    zero_shot: float = Field(ge=0, le=100)
    adapted: float | None
    validation: float | None = Field(description="the best in adaptation")


class Parameters(_Closed):
    """How many numbers were trained."""

    multi_task: int = Field(description="in pre-training, on all tasks")
    adaptation: int = Field(description="for each new task")


class CellMetrics(_Closed):
    """What the evaluate stage found for a cell; `heads` and `seed` are None for the bare backbone."""

    method: str
    heads: int | None
    variant: str = Field(PLAIN, description="of the grid")
    layout: str | None = Field(None, description="of the adapted layers: full, light or other; none for whole weights")
    extra_steps: int = Field(0, description="of further multi-task training before the zero-shot evaluation")
    seed: int | None
    trial: int = Field(0, description="of a search over settings of adaptation; 0 is no search, or its first")
    settings: dict[str, Any] = Field({}, description="of the trial")
    granularity: str | None = Field(None, description="of the routing; none where nothing is routed")
    skills: int | None = Field(None, description="of the inventory; none where there is none")
    suite: str
    backbone: str
    metric: Metric | Literal["mixed"] = Field(description="of the test tasks")
    zero_shot: Scores
    adapted: Scores | None
    validation: float | None = Field(None, description="mean over tasks of the best validation score in adaptation")
    by_task: dict[str, TaskScores]
    parameters: Parameters
    tasks: int
    examples: int

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, name: str) -> str:
        if name != BACKBONE and name not in METHODS:
            raise ValueError(unknown("method", name, [BACKBONE, *METHODS]))
        return name


def read_metrics(folder: Path) -> dict[str, CellMetrics]:
    """Read the scores of all cells, by name.

    Raises:
        ArtifactError: if there are none, one is malformed, or two are of different suites or backbones.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ArtifactError(f"{folder}: no scores yet; run `dvc repro` or `mhrctl evaluate`")
    metrics: dict[str, CellMetrics] = {}
    for file in files:
        try:
            metrics[file.stem] = CellMetrics.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{file}: {'.'.join(map(str, first['loc']))}" if first["loc"] else str(file)
            raise ArtifactError(f"{where}: {first['msg']}; run `mhrctl evaluate` for this cell again") from None
    first_file, first_cell = files[0], metrics[files[0].stem]
    for file in files[1:]:
        cell = metrics[file.stem]
        if (cell.suite, cell.backbone) != (first_cell.suite, first_cell.backbone):
            raise ArtifactError(
                f"{file} is of suite {cell.suite} on {cell.backbone}, {first_file.name} of {first_cell.suite} on"
                f" {first_cell.backbone}: they share no table; remove or rerun one of them"
            )
    return metrics
