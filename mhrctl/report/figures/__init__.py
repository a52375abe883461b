"""The paper's figures are drawn from whatever results exist, as PNG and SVG: the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mhrctl.errors import ParamsError, unknown
from mhrctl.report.figures.figure2 import figure2
from mhrctl.report.figures.figure3 import figure3
from mhrctl.report.figures.figure4 import figure4
from mhrctl.report.figures.style import Drawing, styled
from mhrctl.report.logs import read_logs, read_measured
from mhrctl.report.results import Results, read_results
from mhrctl.report.trials import Choice

FIGURES = (2, 3, 4)


def draw_figure(number: int, metrics: Path, trials: Choice = "by_task") -> Drawing:
    """Draw one of the paper's figures.

    Args:
        number: of the figure in the paper.
        metrics: folder of the scores and logs, `data/metrics`; what is not there is named in the figure.
        trials: how those of a search are chosen.

    Raises:
        ParamsError: if there is no such figure.
        ArtifactError: if scores or logs are malformed or do not fit together.
    """
    if number not in FIGURES:
        raise ParamsError(unknown("figure", str(number), map(str, FIGURES)))
    results = read_results(metrics, trials)
    with styled():
        if number == 3:
            return figure3(results, read_logs(metrics / "pretrain"), read_measured(metrics / "align"))
        return _OF_SCORES[number](results)


_OF_SCORES: dict[int, Callable[[Results], Drawing]] = {2: figure2, 4: figure4}
