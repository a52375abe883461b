"""What was measured: rows with their gates, as JSON and as a Markdown table."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Ratio

PACKAGES = ("torch", "transformers", "peft", "accelerate", "mhrctl")


@dataclass(frozen=True)
class Row:
    """A ratio and what it should be.

    Attributes:
        what: is divided by what, and on which model.
        value: the ratio.
        gate: that it must reach; None where it is shown for information.
        aim: that it should reach.
        more_is_better: whether it must be at least, and not at most, the gate.
    """

    what: str
    value: Ratio
    gate: float | None = None
    aim: float | None = None
    more_is_better: bool = False

    @property
    def met(self) -> str:
        """What the ratio's median reaches: `aim`, `gate` or `missed`; nothing where there is no gate."""
        if self.gate is None or self.aim is None:
            return ""
        sign = -1 if self.more_is_better else 1
        if sign * self.value.median <= sign * self.aim:
            return "aim"
        return "gate" if sign * self.value.median <= sign * self.gate else "missed"


@dataclass(frozen=True)
class Measured:
    """What a measurement found.

    Attributes:
        rows: the ratios.
        figures: {what: number} that they come from; milliseconds of a step unless its name says otherwise.
        notes: what must be known to read them.
    """

    rows: list[Row]
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def environment(settings: Mapping[str, str]) -> dict[str, Any]:
    """What the figures depend on; neither paths nor names of machines.

    Args:
        settings: environment variables that were set for the run.
    """
    return {
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "settings": dict(settings),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def entry(measured: Measured, where: Mapping[str, Any], *, quick: bool, seconds: float) -> dict[str, Any]:
    """A measurement as the file of results holds it."""
    rows = [asdict(row) | {"met": row.met} for row in measured.rows]
    return {
        "quick": quick,
        "seconds": round(seconds),
        "environment": dict(where),
        "notes": measured.notes,
        "rows": rows,
        "figures": measured.figures,
    }


def write(file: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Put measurements into a file of results, in place of earlier ones of the same name, and write its table beside it.

    Returns:
        All measurements of the file.
    """
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    stored |= entries
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(stored), encoding="utf-8")
    return stored


def markdown(entries: Mapping[str, Any]) -> str:
    """The table of all measurements."""
    lines = ["| | ratio | quartiles | gate | aim | reached |", "|---|---|---|---|---|---|"]
    notes: list[str] = []
    for name, measurement in entries.items():
        quick = " (quick)" if measurement["quick"] else ""
        lines += [f"| **{name}**{quick} | | | | | |", *(_line(row) for row in measurement["rows"])]
        notes += [f"- {name}: {note}" for note in measurement["notes"]]
    settings = {json.dumps(measurement["environment"], sort_keys=True) for measurement in entries.values()}
    return "\n".join([*lines, "", *notes, *(_environment(json.loads(text)) for text in sorted(settings)), ""])


def _line(row: Mapping[str, Any]) -> str:
    value, sign = row["value"], "≥" if row["more_is_better"] else "≤"
    spread = "" if value["low"] == value["high"] else f"{value['low']:.2f} to {value['high']:.2f}"
    targets = ["" if row[key] is None else f"{sign} {row[key]:.2f}" for key in ("gate", "aim")]
    return f"| {row['what']} | {value['median']:.2f} | {spread} | {targets[0]} | {targets[1]} | {row['met']} |"


def _environment(where: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    settings = " ".join(f"{name}={value}" for name, value in where["settings"].items())
    device = f"{where['device']}, " if "device" in where else ""
    return f"- {device}{where['cpu']}, {where['threads']} thread(s), Python {where['python']}, {versions}; {settings}"


def _cpu() -> str:
    """The model of the CPU, where the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
