"""One self-contained HTML file shows everything: tables, figures, training curves, differences, scores by task, and cards."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhrctl.artifacts.names import CARD
from mhrctl.config.methods import BACKBONE
from mhrctl.errors import printable
from mhrctl.evaluation.metrics import title_of
from mhrctl.evaluation.scores import CellMetrics
from mhrctl.report.differences import differences_table
from mhrctl.report.figures import FIGURES, draw_figure
from mhrctl.report.figures.style import Drawing
from mhrctl.report.figures.training import draw_training
from mhrctl.report.logs import Log, read_logs
from mhrctl.report.results import MISSING, NO_SCORES, Results, read_results
from mhrctl.report.table import Table
from mhrctl.report.tables import TABLES, build_table
from mhrctl.report.tables.beside import named
from mhrctl.report.tables.ours import results_table
from mhrctl.report.trials import Choice

STAGES = ("prepare", "backbone", "index", "pretrain", "average", "adapt", "evaluate")
TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class ShownCard:
    """This is a card as lines of `key: value`."""

    name: str
    lines: Sequence[str]


def html_report(data: Path, expected_cells: Sequence[str], trials: Choice = "by_task") -> str:
    """Write the report of a project.

    Args:
        data: the project's `data` folder; what is not there is named.
        expected_cells: the grid's cells.
        trials: how those of a search are chosen.

    Returns:
        HTML without scripts and without anything that is loaded from elsewhere.

    Raises:
        ArtifactError: if scores or logs are malformed or do not fit together.
    """
    metrics = data / "metrics"
    results, logs = read_results(metrics, trials), read_logs(metrics / "pretrain")
    cards = list(read_cards(data))
    without = [name for name in _expected_cards(results, logs) if name not in {card.name for card in cards}]
    return _render(
        results=results,
        headline=_headline(results, expected_cells),
        tables=[
            results_table(results, expected_cells),
            *(build_table(number, results, expected_cells) for number in TABLES),
        ],
        differences=differences_table(results),
        figures=[_embedded(draw_figure(number, results, metrics)) for number in FIGURES],
        training=_embedded(draw_training(logs)),
        cells={name: _scores_by_task(name, cell) for name, cell in results.cells.items()},
        cards=cards,
        without=named(without),
    )


def read_cards(data: Path) -> Iterator[ShownCard]:
    """Read the cards of all output folders, in the order of the stages; a card that is none says so."""
    for stage in STAGES:
        for file in [data / stage / CARD, *sorted((data / stage).glob(f"[!.]*/{CARD}"))]:
            if file.exists():
                yield ShownCard(file.parent.relative_to(data).as_posix(), _read_lines(file))


def _read_lines(file: Path) -> list[str]:
    try:
        return list(_flat(json.loads(file.read_bytes())))
    except ValueError:
        return [f"{file.name}: not a card; remove the folder and run its stage again"]


def _flat(value: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON is any tree
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        yield f"{key}: {', '.join(item if isinstance(item, str) else json.dumps(item) for item in value)}"
    else:
        yield f"{key}: {value if isinstance(value, str) else json.dumps(value)}"


def _expected_cards(results: Results, logs: Sequence[Log]) -> list[str]:
    """What scores and logs were made from."""
    adapted = [name for name, cell in results.cells.items() if cell.adapted is not None]
    return [
        "prepare",
        "backbone",
        *(f"pretrain/{log.cell}" for log in logs),
        *(f"adapt/{name}" for name in adapted),
        *(f"evaluate/{name}" for name in results.cells),
    ]


def _headline(results: Results, expected: Sequence[str]) -> list[str]:
    if not results.cells:
        return [NO_SCORES]
    seeds = sorted({cell.seed for cell in results.cells.values() if cell.seed is not None})
    tasks = max(cell.tasks for cell in results.cells.values())
    cells = [cell for cell in results.cells.values() if cell.method != BACKBONE]
    groups = [group for group in results.groups if group.method != BACKBONE]
    counts = f"{len(cells)} cells of {len(groups)} methods and variants, seeds {', '.join(map(str, seeds))}."
    lines = [f"Suite {results.suite}: {tasks} test tasks, {results.metric_name}. Backbone {results.backbone}.", counts]
    if missing := results.lacking(expected):
        lines.append(f"No scores yet: {named(missing)}.")
    return lines


def _scores_by_task(name: str, cell: CellMetrics) -> Table:
    rows = [
        [task, title_of(of.metric), *(MISSING if score is None else f"{score:.1f}" for score in scores)]
        for task, of in sorted(cell.by_task.items())
        if (scores := (of.zero_shot, of.adapted, of.validation))
    ]
    return Table(name, ("task", "metric", "zero-shot", "adapted", "validation"), rows)


def _embedded(drawing: Drawing) -> dict[str, Any]:
    """A figure as the template shows it: inside the file."""
    svg = base64.b64encode(drawing.rendered("svg")).decode()
    return {"title": drawing.title, "source": f"data:image/svg+xml;base64,{svg}", "missing": drawing.missing}


def _render(**content: Any) -> str:  # noqa: ANN401
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mhrctl.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,
    )
    return environment.get_template(TEMPLATE).render(**content)
