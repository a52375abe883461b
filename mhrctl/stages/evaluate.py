"""evaluate: the test splits of all test tasks, zero-shot and after adaptation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.weights import Weights
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, require_parent, require_tasks, write_card
from mhrctl.artifacts.names import ADAPTERS, PREDICTIONS, SCORES, SOUP, TEST_EXAMPLES
from mhrctl.artifacts.writing import write_csv, write_json, writing
from mhrctl.config.cells import Cell
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import PLAIN, EvaluateParams
from mhrctl.data.examples import Examples
from mhrctl.data.shots import scored_choices
from mhrctl.data.table import task_metrics
from mhrctl.errors import ArtifactError
from mhrctl.evaluation.metrics import exact_match, rouge_l
from mhrctl.evaluation.prediction import answer
from mhrctl.evaluation.scores import CellMetrics, Parameters, Scores, TaskScores
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, layout_name
from mhrctl.models.backbones import PRECISIONS, open_backbone
from mhrctl.models.folding import foldable, folded
from mhrctl.models.speed import Speed
from mhrctl.progress import Recorder, Track, silent, unrecorded
from mhrctl.suites.task import Metric

Phase = Literal["zero_shot", "adapted"]


@dataclass(frozen=True)
class TaskPredictions:
    """Answers to a task's test split in one phase, with their scores in percent."""

    task: str
    phase: Phase
    ids: list[str]
    predictions: list[str]
    references: list[list[str]]
    rouge_l: list[float]
    exact_match: list[float]


def evaluate(
    cell: Cell | None,
    params: EvaluateParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None,
    adapted: Path | None,
    out: Path,
    scores: Path,
    accelerator: Accelerator,
    speed: Speed = Speed(),
    track: Track = silent,
    recorder: Recorder = unrecorded,
) -> CellMetrics:
    """Write `predictions.parquet` and `scores.csv` (by task and phase) into `out`, and the cell's scores.

    Zero-shot is the adapter that adaptation starts from, with the average of its skills where it has several: a new task has no
    routing yet. It is scored by the best of all references, as the reference code does; adapted answers by the one drawn.

    Args:
        cell: method, heads and seed; None is the bare backbone.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: output of the pretrain or average stage that adaptation started from; None for the bare backbone.
        adapted: output of the adapt stage; None evaluates zero-shot only.
        out: the output folder.
        scores: the JSON of the cell's scores.
        accelerator: where to run.
        speed: how to compute; `together` are the tasks evaluated in one batch.
        track: shows progress.
        recorder: takes the scores.

    Raises:
        ArtifactError: if an input folder is missing or was made for another backbone or other tasks.
    """
    cards = _read_cards(cell, start, adapted)
    attached = cards.get("adapted", cards.get("zero_shot"))
    model, tokenizer = open_backbone(prepared, backbone, attached, adapted or start)
    examples = Examples.read(prepared / TEST_EXAMPLES).of(split="test")
    if adapted:
        require_tasks(cards["adapted"], adapted, examples.tasks)
    if cell and start and adapted and cell.row.start == "new_lora":  # its LoRA belongs on these weights and no others
        command = f"mhrctl adapt {cell.options}"
        require_parent(cards["adapted"], adapted, "start", start / ADAPTERS, command)
    adapters = _load_phases(cell, start, adapted, model)
    model.to(device=accelerator.device, dtype=PRECISIONS[params.precision])  # type: ignore[call-arg]
    metrics_of = task_metrics(prepared)
    results: list[TaskPredictions] = []
    for phase, adapter in adapters.items():
        results += _predict_phase(phase, model, tokenizer, adapter, examples, metrics_of, params, accelerator, speed, track)
    best: dict[str, float] = cards["adapted"].facts["validation"] if adapted else {}
    by_task = _by_task(results, metrics_of, best)
    routed = cards["zero_shot"].params.get("pretrain", {}) if cell and cell.row.routing in ("learned", "random") else {}
    metrics = CellMetrics(
        method=cell.method if cell else BACKBONE,
        heads=cell.heads if cell else None,
        variant=cell.variant if cell else PLAIN,
        layout=next((layout_name(adapter.shapes) for adapter in adapters.values() if adapter and adapter.shapes), None),
        extra_steps=cell.extra_steps if cell else 0,
        seed=cell.seed if cell else None,
        trial=cell.trial if cell else 0,
        settings=dict(cell.settings) if cell else {},
        granularity=routed.get("granularity"),
        skills=routed.get("skills"),
        suite=read_card(prepared, stage="prepare", command="mhrctl prepare").facts["suite"],
        backbone=read_card(backbone, stage="backbone", command="mhrctl backbone").facts["name"],
        metric=_common([task.metric for task in by_task.values()]),
        zero_shot=_mean_scores(results, "zero_shot", metrics_of),
        adapted=_mean_scores(results, "adapted", metrics_of) if adapted else None,
        validation=round(fmean(best.values()), 4) if best else None,
        by_task=by_task,
        parameters=Parameters(
            multi_task=sum(cards["zero_shot"].facts["parameters"].values()) if cell else 0,
            adaptation=cards["adapted"].facts["parameters"] if adapted else 0,
        ),
        examples=len(examples),
        tasks=len(examples.tasks),
    )
    made = provenance.of_evaluate(cell, params, prepared=prepared, backbone=backbone, start=start, adapted=adapted)
    with writing(out) as folder:
        _write_predictions(folder, results)
        card = made.card(tasks=examples.tasks)
        write_json(scores, metrics.model_dump())
        write_card(folder, card, beside=[scores])
    recorder.summary(_recorded(metrics))
    return metrics


def _read_cards(cell: Cell | None, start: Path | None, adapted: Path | None) -> dict[Phase, Card]:
    """The cards of what each phase wears; the bare backbone wears nothing.

    Raises:
        ArtifactError: if there is no such output.
    """
    if cell is None or start is None:
        return {}
    if cell.row.start == "soup" and adapted is None:
        raise ArtifactError(
            f"cell {cell.name}: zero-shot adapters come from the shots; run `mhrctl adapt {cell.options}`, then evaluate"
            " without --zero-shot"
        )
    stage, origin = cell.start
    cards: dict[Phase, Card] = {"zero_shot": read_card(start, stage=stage, command=f"mhrctl {stage} {origin.options}")}
    if adapted:
        cards["adapted"] = read_card(adapted, stage="adapt", command=f"mhrctl adapt {cell.options}")
    return cards


def _load_phases(
    cell: Cell | None, start: Path | None, adapted: Path | None, backbone: PreTrainedModel
) -> dict[Phase, Adapter | None]:
    """The adapter of each phase, whose slots the backbone then has; None is the backbone as it is."""
    if cell is None or start is None:
        return {"zero_shot": None}
    soup = adapted / SOUP if adapted and cell.row.start == "soup" else None
    before: Adapter | None = load_adapter(soup) if soup else load_adapter(start / ADAPTERS).average()
    after = load_adapter(adapted / ADAPTERS) if adapted else None
    if cell.row.start == "new_lora" and isinstance(before, Weights):
        before.put_into(backbone)
        before = None
    if worn := before or after:
        attach(backbone, worn)
    return {"zero_shot": before, "adapted": after} if after else {"zero_shot": before}


def _predict_phase(
    phase: Phase,
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | None,
    examples: Examples,
    metrics: Mapping[str, Metric],
    params: EvaluateParams,
    accelerator: Accelerator,
    speed: Speed,
    track: Track,
) -> list[TaskPredictions]:
    """Predict and score all tasks in one phase, some tasks to a batch."""
    results = []
    together = 1 if isinstance(adapter, Weights) else speed.together
    with _folded_if_shared(backbone, adapter, speed) as worn:
        by_task = worn is not None and worn.runs == len(examples.tasks)
        for first in range(0, len(examples.tasks), together):
            tasks = list(range(first, min(first + together, len(examples.tasks))))
            own = [examples.of(tasks=[examples.tasks[task]]) for task in tasks]
            chosen = worn.select(tasks) if worn and by_task else worn
            answers = answer(
                AdaptedModel(backbone, chosen, speed=speed).to(accelerator.device),
                tokenizer,
                [task.scored() for task in own],
                [scored_choices(part, metrics[examples.tasks[task]]) for task, part in zip(tasks, own, strict=True)],
                beams=params.beams,
                max_new_tokens=params.max_new_tokens,
                length_norm=params.length_norm,
                device=accelerator.device,
                track=track,
            )
            results += [_scored(phase, task, texts) for task, texts in zip(own, answers, strict=True)]
    return results


@contextmanager
def _folded_if_shared(backbone: PreTrainedModel, adapter: Adapter | None, speed: Speed) -> Iterator[Adapter | None]:
    """Fold an adapter that serves all tasks into the weights, if they are fp32, and give what is left to wear."""
    if adapter is not None and speed.folding and foldable(backbone, adapter):
        with folded(backbone, adapter):
            yield None
    else:
        yield adapter


def _scored(phase: Phase, examples: Examples, answers: Sequence[str]) -> TaskPredictions:
    references: list[list[str]] = examples.column("targets")
    if phase == "adapted":
        drawn = examples.column("reference")
        references = [[targets[reference]] for targets, reference in zip(references, drawn, strict=True)]
    pairs = list(zip(answers, references, strict=True))
    return TaskPredictions(
        task=examples.column("task")[0],
        phase=phase,
        ids=examples.column("id"),
        predictions=list(answers),
        references=references,
        rouge_l=[rouge_l(answer, targets) for answer, targets in pairs],
        exact_match=[exact_match(answer, targets) for answer, targets in pairs],
    )


def _own_score(result: TaskPredictions, metric: str) -> float:
    """A task's mean by its own metric."""
    return fmean(result.rouge_l if metric == "rouge_l" else result.exact_match)


def _by_task(
    results: Sequence[TaskPredictions], metrics: Mapping[str, Metric], validation: Mapping[str, float]
) -> dict[str, TaskScores]:
    """{task: its scores in both phases and in validation}."""
    scores = {(result.task, result.phase): round(_own_score(result, metrics[result.task]), 4) for result in results}
    return {
        task: TaskScores(
            metric=metrics[task], zero_shot=score, adapted=scores.get((task, "adapted")), validation=validation.get(task)
        )
        for (task, phase), score in scores.items()
        if phase == "zero_shot"
    }


def _common(metrics: Sequence[Metric]) -> Metric | Literal["mixed"]:
    return metrics[0] if len(set(metrics)) == 1 else "mixed"


def _mean_scores(results: Sequence[TaskPredictions], phase: Phase, metrics: Mapping[str, Metric]) -> Scores:
    """The mean over tasks of each task's mean."""
    own = [result for result in results if result.phase == phase]
    return Scores(
        score=round(fmean(_own_score(result, metrics[result.task]) for result in own), 4),
        rouge_l=round(fmean(fmean(result.rouge_l) for result in own), 4),
        exact_match=round(fmean(fmean(result.exact_match) for result in own), 4),
    )


def _recorded(metrics: CellMetrics) -> dict[str, float]:
    """The scores by phase and metric, and by phase and task."""
    phases = {"zero_shot": metrics.zero_shot, "adapted": metrics.adapted}
    values = {f"{phase}/{name}": value for phase, means in phases.items() if means for name, value in means}
    for task, scores in metrics.by_task.items():
        by_phase = {"zero_shot": scores.zero_shot, "adapted": scores.adapted}
        values |= {f"{phase}/task/{task}": score for phase, score in by_phase.items() if score is not None}
    return values


def _write_predictions(folder: Path, results: Sequence[TaskPredictions]) -> None:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("task", "phase", "id", "prediction", "references", "rouge_l", "exact_match")
    }
    for result in results:
        columns["task"] += [result.task] * len(result.ids)
        columns["phase"] += [result.phase] * len(result.ids)
        columns["id"] += result.ids
        columns["prediction"] += result.predictions
        columns["references"] += result.references
        columns["rouge_l"] += result.rouge_l
        columns["exact_match"] += result.exact_match
    pq.write_table(pa.table(columns), folder / PREDICTIONS, compression="zstd")
    rows = [
        (result.task, result.phase, round(fmean(result.rouge_l), 2), round(fmean(result.exact_match), 2)) for result in results
    ]
    write_csv(folder / SCORES, ("task", "phase", "rouge_l", "exact_match"), rows)
