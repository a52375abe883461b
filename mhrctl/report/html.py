"""One self-contained HTML file shows everything: what can be said, scores by task, training, routing, the paper, provenance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mhrctl.errors import printable
from mhrctl.garbage import rarely_collected
from mhrctl.report.claims import judge
from mhrctl.report.differences import compare_all
from mhrctl.report.figures import FIGURES, plan_figure
from mhrctl.report.figures.training import plan_training
from mhrctl.report.logs import Log, read_logs, read_validation
from mhrctl.report.page.answers import wrong_answers
from mhrctl.report.page.by_task import scores_by_task
from mhrctl.report.page.cards import changed_settings, provenance_table, read_cards, shown_cards
from mhrctl.report.page.claims import claims_shown
from mhrctl.report.page.forest import forest
from mhrctl.report.page.headline import headline
from mhrctl.report.page.pictures import pictures
from mhrctl.report.page.routing import routings
from mhrctl.report.printed import SUITES
from mhrctl.report.results import Results, read_results
from mhrctl.report.tables import TABLES, build_table
from mhrctl.report.tables.beside import named
from mhrctl.report.tables.ours import results_table
from mhrctl.report.trials import Choice

TEMPLATE = "report.html.jinja"


@rarely_collected()
def html_report(data: Path, expected_cells: Sequence[str], trials: Choice = "by_task", *, margin: float = 1.0) -> str:
    """Write the report of a project.

    Args:
        data: the project's `data` folder; what is not there is named.
        expected_cells: the grid's cells.
        trials: how those of a search are chosen.
        margin: the difference of scores that claims take for none.

    Returns:
        HTML without scripts and without anything that is loaded from elsewhere.

    Raises:
        ArtifactError: if scores or logs are malformed or do not fit together.
    """
    metrics = data / "metrics"
    results, logs = read_results(metrics, trials), read_logs(metrics / "pretrain")
    validation = read_validation(data / "pretrain", [log.cell for log in logs])
    cards, compared = read_cards(data), compare_all(results)
    return _render(
        headline=headline(results, compared, cards, data.parent),
        ours=results_table(results, expected_cells),
        forest=forest(compared),
        claims=claims_shown(judge(results, logs, margin=margin), margin=margin, metric=results.metric_name),
        by_task=scores_by_task(results),
        wrong=wrong_answers(results, data),
        training=pictures(plan_training(logs, validation), "training") if logs else None,
        routings=routings(cards, data),
        is_papers=results.suite in SUITES.values(),
        tables=[table(results, expected_cells) for name, table in TABLES.items() if isinstance(name, int)],
        pool=build_table("pool", results, expected_cells),
        figures=[pictures(plan_figure(number, results, metrics), f"figure{number}") for number in FIGURES],
        settings=changed_settings(cards),
        provenance=provenance_table(cards),
        cards=shown_cards(cards),
        without=named([name for name in _expected_cards(results, logs) if name not in cards]),
    )


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


def prose(text: str) -> Markup:
    """Show a sentence with the code that stands between backticks in it."""
    parts = [escape(part) for part in printable(text).split("`")]
    if len(parts) % 2 == 0:  # a backtick that is none
        parts[-2:] = [Markup("`").join(parts[-2:])]
    return Markup("").join(Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts))


def breakable(name: str) -> Markup:
    """Show a name that may go to another line within, behind its dots and underscores."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])(?=\w)", printable(name)))


class _Once:
    """Passes on each sentence the first time that it is to be said."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, sentences: Iterable[str]) -> list[str]:
        fresh = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.said]
        self.said.update(fresh)
        return fresh


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
    environment.filters |= {"prose": prose, "breakable": breakable, "once": _Once()}
    return environment.get_template(TEMPLATE).render(**content)
