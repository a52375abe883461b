"""Our results are put as the paper's tables and figures show them: cells folded over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mhrctl.config.cells import label_of
from mhrctl.config.grid import PLAIN
from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.errors import printable
from mhrctl.evaluation.metrics import METRICS, title_of
from mhrctl.evaluation.scores import PHASES, SCORE, CellMetrics, FrozenBackbone, Phase, read_metrics
from mhrctl.report.aggregates import MEDIANS, Aggregate, aggregate_of, mean_of_medians, mean_std
from mhrctl.report.printed import MeanStd
from mhrctl.report.trials import Choice, choose_trial

ORDER = [BACKBONE, *METHODS]
MISSING = "-"
NO_SCORES = "No scores yet; run `dvc repro`, or `mhrctl evaluate` for each cell."


@dataclass(frozen=True)
class Group:
    """A group holds the cells of one method, head count, variant and number of extra steps: one a seed.

    Attributes:
        label: such as `mhr-h8-light`; extra steps are not in it.
        method: row of the methods table, or the bare backbone.
        heads: of the routing; None for the bare backbone.
        variant: of the grid; `plain` is the method as it is.
        extra_steps: of multi-task training before the zero-shot evaluation.
        cells: {name: scores}, by seed.
        note: which trial of a search these are, and why; empty where nothing was searched.
    """

    label: str
    method: str
    heads: int | None
    variant: str
    extra_steps: int
    cells: Mapping[str, CellMetrics]
    note: str = ""

    @property
    def first(self) -> CellMetrics:
        """One of the cells, for what is the same in all."""
        return next(iter(self.cells.values()))

    def values(self, phase: Phase, score: str = SCORE) -> list[float]:
        """Return the mean over tasks, by their own metrics or by one metric, of every seed that has it."""
        means = [cell.means(phase) for cell in self.cells.values()]
        return [of_cell[score] for of_cell in means if score in of_cell]

    def mean(self, phase: Phase, score: str = SCORE) -> MeanStd | None:
        """Compute mean and standard deviation over seeds of the mean over tasks."""
        return mean_std(self.values(phase, score))

    def by_task(self, phase: Phase) -> dict[str, dict[int | None, float]]:
        """Return {task: {seed: score by the task's own metric}}, where there is one."""
        by_task: dict[str, dict[int | None, float]] = {}
        for cell in self.cells.values():
            for task, value in cell.own_scores(phase).items():
                by_task.setdefault(task, {})[cell.seed] = value
        return by_task

    def median(self, phase: Phase) -> MeanStd | None:
        """Compute the mean over tasks of medians over seeds, and of deviations over seeds, by the tasks' own metrics."""
        return mean_of_medians({task: list(seeds.values()) for task, seeds in self.by_task(phase).items()})

    def folded(self, phase: Phase, aggregate: Aggregate) -> MeanStd | None:
        """Fold the scores of tasks by their own metrics and of seeds in one of the two ways."""
        return self.median(phase) if aggregate is MEDIANS else self.mean(phase)

    def score(self, phase: Phase) -> MeanStd | None:
        """Fold the scores as the suite's are reported: of T0 by medians over seeds, of any other by means."""
        return self.folded(phase, aggregate_of(self.first.suite))


@dataclass(frozen=True)
class Results:
    """Results are all scores at hand.

    Attributes:
        cells: by name, every trial of a search among them.
        groups: folded over seeds, in the order of the methods table.
    """

    cells: Mapping[str, CellMetrics]
    groups: Sequence[Group]

    @property
    def suite(self) -> str | None:
        """The suite of all cells; None if there are none."""
        return next((printable(cell.suite) for cell in self.cells.values()), None)

    @property
    def backbone(self) -> str | None:
        """The backbone of all cells; None if there are none."""
        return next((printable(cell.backbone) for cell in self.cells.values()), None)

    @property
    def frozen(self) -> FrozenBackbone | None:
        """The weights of the backbone of all cells; None if there are no cells, or one does not say."""
        every = [cell.frozen for cell in self.cells.values()]
        return every[0] if every and None not in every else None

    @property
    def tasks(self) -> set[str]:
        """The test tasks of any cell."""
        return {task for cell in self.cells.values() for task in cell.by_task}

    @property
    def metric(self) -> str | None:
        """The metric of the test tasks, or `mixed`; None if there are no cells."""
        return next((cell.metric for cell in self.cells.values()), None)

    @property
    def metric_name(self) -> str:
        """The metric as tables and axes name it."""
        return title_of(self.metric)

    @property
    def recorded(self) -> list[str]:
        """The metrics that are recorded of tasks, in the order of their table."""
        present = {name for cell in self.cells.values() for phase in PHASES for name in cell.means(phase)}
        return [name for name, metric in METRICS.items() if metric.always or name in present]

    @property
    def methods(self) -> list[Group]:
        """The groups without extra steps: what is adapted, and the bare backbone."""
        return [group for group in self.groups if not group.extra_steps]

    @property
    def adapted(self) -> list[Group]:
        """The groups with scores after adaptation."""
        return [group for group in self.methods if group.values("adapted")]

    def lacking(self, expected: Iterable[str]) -> list[str]:
        """Return which of these cells have no scores."""
        return [name for name in expected if name not in self.cells]


def read_results(metrics: Path, trials: Choice = "by_task") -> Results:
    """Read the scores of all cells, which may be none.

    Args:
        metrics: folder of the scores and logs, `data/metrics`.
        trials: how those of a search are chosen.

    Raises:
        ArtifactError: if one is malformed, or two are of different suites or backbones.
    """
    folder = metrics / "evaluate"
    cells = read_metrics(folder) if any(folder.glob("*.json")) else {}
    return Results(cells, fold_seeds(cells, trials))


def fold_seeds(cells: Mapping[str, CellMetrics], trials: Choice = "by_task") -> list[Group]:
    """Group cells by method, heads, variant and extra steps, in the order of the methods table.

    Cells that differ in nothing but their trial are of a search over settings of adaptation, of which some are chosen
    (docs/recipe.md, section 3.2).
    """
    by_key: dict[tuple[int, int, str, int], dict[str, CellMetrics]] = {}
    for name, cell in cells.items():
        variant = "" if cell.variant == PLAIN else cell.variant
        key = (ORDER.index(cell.method), cell.heads or 0, variant, cell.extra_steps)
        by_key.setdefault(key, {})[name] = cell
    return [_group(by_key[key], trials) for key in sorted(by_key)]


def _group(cells: Mapping[str, CellMetrics], trials: Choice) -> Group:
    cell = next(iter(cells.values()))
    has_heads = cell.method in METHODS and METHODS[cell.method].multi_head
    label = label_of(cell.method, cell.heads if has_heads else None, cell.variant)
    chosen, note = choose_trial(cells, trials)
    by_seed = dict(sorted(chosen.items(), key=lambda item: (item[1].seed or 0, item[0])))
    return Group(label, cell.method, cell.heads, cell.variant, cell.extra_steps, by_seed, f"{label}: {note}" if note else "")
