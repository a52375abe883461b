"""Scores of tasks are in long form; those of a cell are as `data/metrics/evaluate/<cell>.json` holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from mhrctl.artifacts.reading import reading, verify_metrics
from mhrctl.config.cells import Cell
from mhrctl.config.fields import added
from mhrctl.config.grid import PLAIN
from mhrctl.config.methods import BACKBONE, METHODS
from mhrctl.errors import ArtifactError, unknown
from mhrctl.evaluation.metrics import MIXED, known_metric, recorded_metrics
from mhrctl.evaluation.rouge import known_tokenizer
from mhrctl.evaluation.text_scores import ENGLISH

Phase = Literal["zero_shot", "adapted"]
LeftOut = Literal["nothing", "adapter", "examples"]
"""What of a test task may not be used where a pool's adapters become one, or are mixed (`adapt.leave_out`)."""
ChosenBy = Literal["inputs", "loss", "name"]
"""How a pool's adapters are chosen that become one (`adapt.soup_by`)."""
PHASES: tuple[Phase, ...] = ("zero_shot", "adapted")
SCORE = "score"
"""Names, beside the metrics, the mean of tasks each by its own metric."""


@dataclass(frozen=True)
class Score:
    """A score is a task's in one phase by one of the metrics that are recorded of it.

    Attributes:
        task: name.
        phase: before or after adaptation.
        metric: name in the table.
        value: the mean over the task's test examples, in percent.
    """

    task: str
    phase: Phase
    metric: str
    value: float


def by_own_metric(scores: Iterable[Score], phase: Phase, metrics: Mapping[str, str]) -> dict[str, float]:
    """Return the score of each task by the task's own metric.

    Args:
        scores: of all tasks, phases and metrics.
        phase: which of them count.
        metrics: {task: its metric}.
    """
    return {score.task: score.value for score in scores if score.phase == phase and score.metric == metrics[score.task]}


def means_of(scores: Sequence[Score], phase: Phase, metrics: Mapping[str, str]) -> dict[str, float]:
    """Compute means over tasks: of each task by its own metric, and by each metric of the tasks that it is recorded of.

    Args:
        scores: of all tasks, phases and metrics.
        phase: which of them count.
        metrics: {task: its metric}.
    """
    means = {SCORE: fmean(by_own_metric(scores, phase, metrics).values())}
    for name in recorded_metrics(metrics.values()):
        means[name] = fmean(score.value for score in scores if (score.phase, score.metric) == (phase, name))
    return {name: round(mean, 4) for name, mean in means.items()}


def _means(means: dict[str, float]) -> dict[str, float]:
    if SCORE not in means:
        raise ValueError(f"{SCORE} is missing")
    for name in means.keys() - {SCORE}:
        known_metric(name)
    return means


Percent = Annotated[float, Field(ge=0, le=100)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Means = Annotated[dict[str, Percent], AfterValidator(_means)]
"""Means over test tasks: `score`, each task by its own metric, and one for each metric that is recorded of any."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TaskScores(_Closed):
    """These scores are a test task's means by its own metric, in percent."""

    metric: Annotated[str, AfterValidator(known_metric)]
    zero_shot: Percent
    adapted: Percent | None
    validation: Finite | None = Field(description="the best in adaptation")
    undecided: bool = Field(False, description="whether no validation score ever differed, so that nothing chose the step")
    rouge_tokenizer: Annotated[str, AfterValidator(known_tokenizer)] = Field(ENGLISH, description="of its ROUGE-L")


class FrozenBackbone(_Closed):
    """This says which weights a backbone has, beyond its name."""

    source: Literal["hub", "local", "scratch"]
    parameters: int = Field(description="numbers in its weights")
    fingerprint: str = Field(description="hash of them")


class Parameters(_Closed):
    """This says how many numbers were trained."""

    multi_task: int = Field(description="in pre-training, on all tasks")
    adaptation: int = Field(description="for each new task")


class CellMetrics(_Closed):
    """These are what the evaluate stage measured of a cell; `heads` and `seed` are None for the bare backbone."""

    method: str
    heads: int | None
    variant: str = Field(PLAIN, description="of the grid")
    layout: str | None = Field(
        None, description="of the adapted layers: full, light, attention or other; none for whole weights"
    )
    extra_steps: int = Field(0, description="of further multi-task training before the zero-shot evaluation")
    seed: int | None
    trial: int = Field(0, description="of a search over settings of adaptation; 0 is no search, or its first")
    settings: dict[str, Any] = Field({}, description="of the trial")
    leave_out: LeftOut = added("nothing", description="of a pool (adapt.leave_out)")
    chosen_by: ChosenBy = added("inputs", description="of a pool's adapters (adapt.soup_by)")
    granularity: str | None = Field(None, description="of the routing; none where nothing is routed")
    skills: int | None = Field(None, description="of the inventory; none where there is none")
    suite: str
    backbone: str
    frozen: FrozenBackbone | None = Field(None, description="the backbone's weights; none in scores of older versions")
    metric: str = Field(description="of the test tasks")
    zero_shot: Means
    adapted: Means | None
    validation: Finite | None = Field(None, description="mean over tasks of the best validation score in adaptation")
    by_task: Annotated[dict[str, TaskScores], Field(min_length=1)]
    parameters: Parameters
    tasks: Annotated[int, Field(gt=0)]
    examples: Annotated[int, Field(gt=0)]

    def means(self, phase: Phase) -> Mapping[str, float]:
        """Return the means over tasks, by metric and as `score`; none if the cell has not got to the phase."""
        return getattr(self, phase) or {}

    def own_scores(self, phase: Phase) -> dict[str, float]:
        """Return {task: its score by its own metric}; none if the cell has not got to the phase."""
        values = {task: getattr(scores, phase) for task, scores in self.by_task.items()}
        return {task: value for task, value in values.items() if value is not None}

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, name: str) -> str:
        return name if name == MIXED else known_metric(name)

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, name: str) -> str:
        if name != BACKBONE and name not in METHODS:
            raise ValueError(unknown("method", name, [BACKBONE, *METHODS]))
        return name


def read_metrics(folder: Path) -> dict[str, CellMetrics]:
    """Read the scores of all cells, by name.

    Raises:
        ArtifactError: if there are none, one is malformed, not as its stage wrote it or of another cell than its name says, or
            two are of different suites or backbones: of other names, or of one name and other weights.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ArtifactError(f"nothing to report yet: no scores in {folder}; run `mhrctl run` or `dvc repro`")
    metrics: dict[str, CellMetrics] = {}
    for file in files:
        metrics[file.stem] = read_metrics_of(file)
    first_file, first_cell = files[0], metrics[files[0].stem]
    for file in files[1:]:
        cell = metrics[file.stem]
        if (cell.suite, cell.backbone) != (first_cell.suite, first_cell.backbone):
            raise ArtifactError(
                f"{file} is of suite {cell.suite} on {cell.backbone}, {first_file.name} of {first_cell.suite} on"
                f" {first_cell.backbone}: they share no table; remove or rerun one of them"
            )
        if cell.frozen and first_cell.frozen and cell.frozen != first_cell.frozen:
            raise ArtifactError(
                f"{file} and {first_file.name} are of other weights of {cell.backbone}: they share no table; run"
                " `mhrctl evaluate` for those that were made before the backbone"
            )
    return metrics


def read_metrics_of(file: Path) -> CellMetrics:
    """Read the scores of a cell.

    Raises:
        ArtifactError: if they are malformed, not as the stage wrote them, or of another cell than the file's name says.
    """
    with reading(file, again="mhrctl evaluate"):
        verify_metrics(file)
        content = file.read_bytes()
    try:
        metrics = CellMetrics.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{file}: {'.'.join(map(str, first['loc']))}" if first["loc"] else str(file)
        said = first["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"{where}: {said}; run `mhrctl evaluate` for this cell again") from None
    require_name(file, metrics)
    return metrics


def require_name(file: Path, metrics: CellMetrics) -> None:
    """Check that scores are of the cell that their file is named after.

    Raises:
        ArtifactError: if they are of another.
    """
    cell = BACKBONE
    if metrics.method != BACKBONE:
        cell = Cell.model_construct(  # a name is asked for, whatever it may be: nothing is checked
            method=metrics.method,
            heads=metrics.heads or 1,
            seed=metrics.seed or 0,
            variant=metrics.variant,
            extra_steps=metrics.extra_steps,
            trial=metrics.trial,
        ).name
    if cell != file.stem:
        raise ArtifactError(f"{file}: holds the scores of {cell}; run `mhrctl evaluate` for {file.stem} again, or remove it")
