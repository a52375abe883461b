"""What a run shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from benchmarks.results import Measured  # which imports torch

_CONSOLE = Console(soft_wrap=True, markup=False, highlight=False)


def shown(text: str, measured: Measured | None = None) -> None:
    """Print a line, and the ratios of a measurement with the gates and aims that they have."""
    _CONSOLE.print(text)
    if measured is None:
        return
    for row in measured.rows:
        targets = "" if row.gate is None else f"gate {row.gate:.2f}, aim {row.aim:.2f}: {row.met}"
        _CONSOLE.print(f"  {row.value!s:22} {targets:28} {row.what}")
    for note in measured.notes:
        _CONSOLE.print(f"  {note}")
