"""Scores by task are one table of tasks by methods: the best in bold, coloured by the difference to the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from mhrctl.config.methods import BACKBONE
from mhrctl.evaluation.metrics import title_of
from mhrctl.evaluation.scores import Phase
from mhrctl.report.aggregates import MEDIANS, aggregate_of
from mhrctl.report.differences import baseline_of
from mhrctl.report.results import MISSING, Group, Results

FAINTEST, DEEPEST = 0.06, 0.5
"""Opacity of the colour of the least and of the greatest difference."""
LEAST = 1.0
"""Points of a difference that has the deepest colour, at least: of differences that are all small none is to look great."""
OVERALL = ""
"""Stands for all tasks; no task has this name."""


@dataclass(frozen=True)
class Shade:
    """A shade is the background of a cell.

    Attributes:
        side: `above` or `below` the baseline.
        opacity: of its colour.
    """

    side: str
    opacity: str


@dataclass(frozen=True)
class Score:
    """A score is a cell of the table.

    Attributes:
        text: as it is shown.
        is_best: whether no method has more in its row.
        shade: by the difference to the baseline; None where there is none.
    """

    text: str
    is_best: bool = False
    shade: Shade | None = None


@dataclass(frozen=True)
class Row:
    """A row has the scores of a task, or the last one the means.

    Attributes:
        name: of the task.
        metric: that it is scored by.
        scores: one a column.
    """

    name: str
    metric: str
    scores: Sequence[Score]


@dataclass(frozen=True)
class ScoresByTask:
    """These are the scores of all tasks by all methods.

    Attributes:
        columns: headings of the scores.
        rows: one a task, then the mean.
        legend: what the colours are.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    legend: str

    @property
    def metrics(self) -> list[str]:
        """The metrics of the tasks; where there are several, each row names its own."""
        return list(dict.fromkeys(row.metric for row in self.rows[:-1]))


@dataclass(frozen=True)
class _Column:
    """A column is a method's.

    Attributes:
        label: of the method.
        head: of the column.
        scores: {task: score}, and their mean.
    """

    label: str
    head: str
    scores: Mapping[str, float]


def scores_by_task(results: Results) -> ScoresByTask | None:
    """Lay out the scores after adaptation beside those of the bare backbone, or zero-shot ones where nothing is adapted."""
    if not results.cells:
        return None
    phase: Phase = "adapted" if results.adapted else "zero_shot"
    compared = [_column(group, phase) for group in results.adapted or _trained(results)]
    bare = [_column(group, "zero_shot") for group in results.methods if group.method == BACKBONE]
    baseline = baseline_of(results)
    against = next((column for column in compared if baseline and column.label == baseline.label), None)
    if len(compared) == 1:
        against = None
    metrics = {task: title_of(of.metric) for cell in results.cells.values() for task, of in cell.by_task.items()}
    names = [*sorted(metrics), OVERALL]
    deepest = max([LEAST, *(abs(each) for column in compared for name in names if (each := _more(column, against, name)))])
    rows = [
        Row(
            name or "mean of tasks",
            metrics.get(name, results.metric_name),
            [*_scores(compared, against, name, deepest), *(_score(column, name) for column in bare)],
        )
        for name in names
    ]
    is_shaded = any(score.shade for row in rows for score in row.scores)
    legend = _legend(results, against if is_shaded else None, deepest)
    return ScoresByTask([column.head for column in (*compared, *bare)], rows, legend)


def _trained(results: Results) -> list[Group]:
    return [group for group in results.methods if group.method != BACKBONE]


def _column(group: Group, phase: Phase) -> _Column:
    """Each task's scores of seeds are folded as the suite's are."""
    fold = median if aggregate_of(group.first.suite) is MEDIANS else fmean
    scores = {task: fold(of_seeds.values()) for task, of_seeds in group.by_task(phase).items()}
    mean = {OVERALL: fmean(scores.values())} if scores else {}
    return _Column(group.label, group.label if phase == "adapted" else f"{group.label}\nzero-shot", scores | mean)


def _scores(columns: Sequence[_Column], against: _Column | None, name: str, deepest: float) -> Iterator[Score]:
    """A row of what is compared."""
    texts = {column.label: _score(column, name).text for column in columns}
    most = max((float(text) for text in texts.values() if text != MISSING), default=None)
    for column in columns:
        text = texts[column.label]
        more = _more(column, against, name)
        is_best = text != MISSING and float(text) == most and len(set(texts.values())) > 1
        yield Score(text, is_best, _shade(more, deepest))


def _score(column: _Column, name: str) -> Score:
    score = column.scores.get(name)
    return Score(MISSING if score is None else f"{score:.1f}")


def _more(column: _Column, against: _Column | None, name: str) -> float | None:
    """How much more than the baseline a method has, if it is another."""
    if against is None or column is against or name not in column.scores or name not in against.scores:
        return None
    return column.scores[name] - against.scores[name]


def _shade(more: float | None, deepest: float) -> Shade | None:
    if more is None or round(more, 1) == 0:
        return None
    opacity = FAINTEST + (DEEPEST - FAINTEST) * abs(more) / deepest
    return Shade("above" if more > 0 else "below", f"{opacity:.2f}")


def _legend(results: Results, against: _Column | None, deepest: float) -> str:
    seeds = "median" if aggregate_of(results.suite) is MEDIANS else "mean"
    text = f"Each score is the {seeds} over seeds, where there are several; the best of a row is bold."
    if against:
        text += f" Blue is above {against.label}, orange below; the deepest colour is a difference of {deepest:.1f}."
    return text
