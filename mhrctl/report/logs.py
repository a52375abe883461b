"""Logs of pre-training, and gradient alignment, are read as figures and DVC's plots need them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, Field, ValidationError

from mhrctl.artifacts.names import VALIDATION
from mhrctl.artifacts.reading import reading, verify_metrics
from mhrctl.artifacts.sealing import opened
from mhrctl.errors import ArtifactError

ALIGNMENT = ("shared", "composed")


@dataclass(frozen=True)
class Alignment:
    """An alignment is the mean cosine between the gradients of training tasks.

    Attributes:
        step: of pre-training.
        shared: on the skills.
        composed: on the adapters that are attached for the tasks.
    """

    step: int
    shared: float
    composed: float


@dataclass(frozen=True)
class Log:
    """A log is the pre-training log of a cell.

    Attributes:
        cell: name.
        steps: of each line.
        losses: of each line.
        alignments: where alignment was measured.
    """

    cell: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    alignments: tuple[Alignment, ...]


class _Mean(BaseModel):
    overall: float = Field(ge=-1, le=1)


class _Measured(BaseModel):
    """A file that `mhrctl align` writes, as far as it is drawn."""

    step: int = Field(ge=0)
    shared: _Mean
    composed: _Mean


def label_of(cell: str) -> str:
    """Return the label of a cell's group from its name: `mhr-h8-light-s0` is of `mhr-h8-light`."""
    return re.sub(r"-s\d+$", "", cell)


def read_logs(folder: Path) -> list[Log]:
    """Read all pre-training logs, by name; there may be none.

    Args:
        folder: `data/metrics/pretrain`.

    Raises:
        ArtifactError: if one is malformed.
    """
    return [read_log(file) for file in sorted(folder.glob("*.csv"))]


def read_log(file: Path) -> Log:
    """Read one pre-training log.

    Raises:
        ArtifactError: if it is malformed, or not as its stage wrote it.
    """
    with reading(file, again="mhrctl pretrain"):
        verify_metrics(file)
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
    try:
        return Log(
            file.stem,
            tuple(int(row["step"]) for row in rows),
            tuple(float(row["loss"]) for row in rows),
            tuple(Alignment(int(row["step"]), *(float(row[name]) for name in ALIGNMENT)) for row in rows if row.get("shared")),
        )
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{file}: no step and loss in each row; run `mhrctl pretrain` for this cell again") from None


def read_validation(folder: Path, cells: Iterable[str]) -> dict[str, float]:
    """Read the mean validation loss of the training tasks at the end of each pre-training, as far as outputs are here.

    Args:
        folder: of the outputs, `data/pretrain`.
        cells: names.

    Returns:
        {cell: mean over tasks}, without cells that have none.

    Raises:
        ArtifactError: if one is malformed, or not as its stage wrote it.
    """
    means = {}
    for cell in cells:
        file = folder / cell / VALIDATION
        if not file.is_file():
            continue
        with reading(file, again="mhrctl pretrain"):
            rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
        try:
            losses = [float(row["loss"]) for row in rows]
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(f"{file}: no loss in each row; run `mhrctl pretrain` for this cell again") from None
        if losses:
            means[cell] = fmean(losses)
    return means


def read_measured(folder: Path) -> dict[str, list[Alignment]]:
    """Read what `mhrctl align` measured: at the start, at the end, and at checkpoints.

    Args:
        folder: of its files, `data/metrics/align`; there may be none.

    Returns:
        {label: measurements of each seed}.

    Raises:
        ArtifactError: if one is malformed.
    """
    by_label: dict[str, list[Alignment]] = {}
    for file in sorted(folder.glob("*.json")):
        try:
            with reading(file, again="mhrctl align"):
                record = opened(json.loads(file.read_bytes()), required=False)
            measured = _Measured.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ArtifactError(f"{file}: {where}: {first['msg']}; run `mhrctl align` for this cell again") from None
        alignment = Alignment(measured.step, measured.shared.overall, measured.composed.overall)
        by_label.setdefault(label_of(re.sub("-(start|checkpoint)$", "", file.stem)), []).append(alignment)
    return by_label
