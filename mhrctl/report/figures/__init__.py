"""The paper's figures are drawn from whatever results exist, as PNG and SVG: the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mhrctl.errors import ParamsError, unknown
from mhrctl.report.figures.figure2 import figure2
from mhrctl.report.figures.figure3 import figure3
from mhrctl.report.figures.figure4 import figure4
from mhrctl.report.figures.plan import Plan
from mhrctl.report.figures.style import Drawing
from mhrctl.report.logs import read_logs, read_measured
from mhrctl.report.results import Results

FIGURES = (2, 3, 4)


def draw_figure(number: int, results: Results, metrics: Path) -> Drawing:
    """Draw one of the paper's figures.

    Args:
        number: of the figure in the paper.
        results: ours.
        metrics: folder of the logs, `data/metrics`; what is not there is named in the figure.

    Raises:
        ParamsError: if there is no such figure.
        ArtifactError: if logs are malformed.
    """
    return plan_figure(number, results, metrics).drawing()


def plan_figure(number: int, results: Results, metrics: Path) -> Plan:
    """Plan one of the paper's figures, which can be drawn as one picture or as one for each panel.

    Args:
        number: of the figure in the paper.
        results: ours.
        metrics: folder of the logs, `data/metrics`.

    Raises:
        ParamsError: if there is no such figure.
        ArtifactError: if logs are malformed.
    """
    if number not in FIGURES:
        raise ParamsError(unknown("figure", str(number), map(str, FIGURES)))
    if number == 3:
        return figure3(results, read_logs(metrics / "pretrain"), read_measured(metrics / "align"))
    return _OF_SCORES[number](results)


_OF_SCORES: dict[int, Callable[[Results], Plan]] = {2: figure2, 4: figure4}
