"""The stage `evaluate` scores the test splits of all test tasks, zero-shot and after adaptation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.stack import load_lower, over
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from, require_tasks, write_card
from mhrctl.artifacts.facts import AdaptFacts, BackboneFacts, EvaluateFacts, PretrainFacts
from mhrctl.artifacts.lower import lower_folder, require_lower
from mhrctl.artifacts.names import ADAPTERS, PREDICTIONS, SCORES, SOUP, TEST_EXAMPLES
from mhrctl.artifacts.writing import as_json, replacing, write_csv, writing
from mhrctl.config.cells import Cell, lower_named
from mhrctl.config.methods import BACKBONE
from mhrctl.config.sections import EvaluateParams
from mhrctl.data.examples import Examples
from mhrctl.data.table import rouge_tokenizers, task_metrics
from mhrctl.errors import ArtifactError, DivergedError, listed
from mhrctl.evaluation.answering import TaskAnswers, TestSplits
from mhrctl.evaluation.metrics import (
    MIXED,
    recorded_metrics,
)
from mhrctl.evaluation.prediction import Generation
from mhrctl.evaluation.router import Router
from mhrctl.evaluation.scores import (
    PHASES,
    CellMetrics,
    FrozenBackbone,
    Parameters,
    Phase,
    Score,
    TaskScores,
    by_own_metric,
    means_of,
)
from mhrctl.models.attach import attach, linear_shapes
from mhrctl.models.backbones import open_backbone
from mhrctl.models.layouts import layout_name
from mhrctl.models.precision import set_precision
from mhrctl.training.execution import Execution


def evaluate(
    cell: Cell | None,
    params: EvaluateParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None,
    adapted: Path | None,
    under: Path | None = None,
    out: Path,
    scores: Path,
    execution: Execution,
    root: Path = Path(),
) -> CellMetrics:
    """Write `predictions.parquet` and `scores.csv` (by task and phase) into `out`, and the cell's scores.

    Zero-shot is the adapter that adaptation starts from, with the average of its skills where it has several: a new task has no
    routing yet. The best of all references counts (docs/recipe.md, section 2.5); for adapted answers the one drawn.

    Args:
        cell: method, heads and seed; None is the bare backbone.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: output of the pretrain or average stage that adaptation started from; None for the bare backbone.
        adapted: output of the adapt stage; None evaluates zero-shot only.
        under: output of the pretrain or average stage whose adapter lies under those of the cell.
        out: the output folder.
        scores: the JSON of the cell's scores.
        execution: how to run; its recorder takes the scores.
        root: what a relative folder of a router's encoder is relative to.

    Raises:
        ArtifactError: if an input folder is missing or was made for another backbone or other tasks, or a task has nothing to
            be scored on.
        DivergedError: if what the model computes is not finite, and so no answer.
    """
    start_card, adapted_card = read_cards(cell, start, adapted)
    frozen = read_card(backbone, stage="backbone", command="mhrctl backbone").facts
    model, tokenizer = open_backbone(prepared, backbone, adapted_card or start_card, adapted or start)
    examples = _test_examples(prepared)
    if adapted and adapted_card:
        require_tasks(adapted_card, adapted, examples.tasks)
        require_made_from(adapted_card, adapted, {"prepare": prepared, "start": start})
    if start_card and start:
        require_backbone(start_card, start, frozen.fingerprint, backbone)
        require_made_from(start_card, start, {"prepare": prepared})
    if adapted_card and adapted:
        require_lower(adapted_card, adapted, under, swapped=params.under is not None)
    linears = linear_shapes(model)  # before any is adapted
    router = open_router(cell, start, adapted, model, root, str(execution.accelerator.device))
    adapters = {} if router else load_phases(cell, start, adapted, model, load_lower(under, frozen.fingerprint))
    set_precision(model, params.precision)
    execution.place(model)
    known, tokenizers = task_metrics(prepared), rouge_tokenizers(prepared)
    metric_of = {task: known[task] for task in examples.tasks}
    tokenizer_of = {task: tokenizers[task] for task in examples.tasks}
    generation = Generation(params.beams, params.max_new_tokens, params.length_norm)
    test = TestSplits(model, tokenizer, examples, metric_of, tokenizer_of, generation, execution)
    try:
        if router:
            results = test.routed(router)
        else:
            results = [result for phase, adapter in adapters.items() for result in test.answers(phase, adapter)]
    except DivergedError as error:
        raise DivergedError(
            f"evaluate {cell.name if cell else BACKBONE}: {error}: its adapters have diverged, or the backbone is unfit; train"
            " again with lower learning rates, or look at the backbone; nothing was written"
        ) from None
    means = [Score(of.task, of.phase, name, fmean(values)) for of in results for name, values in of.scores.items()]
    recorded = recorded_metrics(metric_of.values())
    best = adapted_card.facts.validation if adapted_card else {}
    metrics = CellMetrics(
        **_point(cell, start_card, adapted_card, [router.pool.first] if router else adapters.values(), linears),
        suite=read_card(prepared, stage="prepare", command="mhrctl prepare").facts.suite,
        backbone=frozen.name,
        frozen=_weights(frozen),
        metric=_common(metric_of.values()),
        zero_shot=means_of(means, "zero_shot", metric_of),
        adapted=means_of(means, "adapted", metric_of) if adapted else None,
        validation=round(fmean(best.values()), 4) if best else None,
        by_task=_by_task(means, metric_of, tokenizer_of, adapted_card),
        examples=len(examples),
        tasks=len(examples.tasks),
    )
    made = provenance.of_evaluate(cell, params, prepared=prepared, backbone=backbone, start=start, adapted=adapted, under=under)
    with replacing(scores) as table, writing(out) as folder:
        _write_predictions(folder, results, recorded)
        _write_scores(folder, means, recorded)
        card = made.card(EvaluateFacts(tasks=examples.tasks, rouge_tokenizers=tokenizer_of), threads=execution.threads)
        table.write_text(as_json(metrics.model_dump()), encoding="utf-8")
        write_card(folder, card, beside={scores.name: table})
    execution.recorder.summary(_recorded(metrics))
    return metrics


def _test_examples(prepared: Path) -> Examples:
    """The test splits of all test tasks.

    Raises:
        ArtifactError: if there is no task, or one has no test examples: its score would be a mean of nothing.
    """
    examples = Examples.read(prepared / TEST_EXAMPLES).of(split="test")
    scored = set(examples.column("task"))
    if empty := [task for task in examples.tasks if task not in scored] or ([] if scored else ["of any task"]):
        raise ArtifactError(f"{prepared / TEST_EXAMPLES}: no test examples: {listed(empty)}; run `mhrctl prepare`")
    return examples


def _weights(facts: BackboneFacts) -> FrozenBackbone:
    return FrozenBackbone(source=facts.source, parameters=facts.parameters, fingerprint=facts.fingerprint)


def read_cards(
    cell: Cell | None, start: Path | None, adapted: Path | None
) -> tuple[Card[PretrainFacts] | None, Card[AdaptFacts] | None]:
    """The cards of the adapters of each phase; the bare backbone has none.

    Raises:
        ArtifactError: if there is no such output.
    """
    if cell is None or start is None:
        return None, None
    if cell.row.router and adapted is None:
        raise ArtifactError(f"cell {cell.name}: adaptation makes what answers; run `mhrctl adapt {cell.name}`, then evaluate")
    if cell.row.needs_index and adapted is None:
        raise ArtifactError(
            f"cell {cell.name}: zero-shot adapters come from the shots; run `mhrctl adapt {cell.name}`, then evaluate"
            " without --zero-shot"
        )
    stage, origin = cell.start
    start_card = read_card(start, stage=stage, command=f"mhrctl {stage} {origin.name}", cell=origin)
    adapted_card = read_card(adapted, stage="adapt", command=f"mhrctl adapt {cell.name}", cell=cell) if adapted else None
    return start_card, adapted_card


def _point(
    cell: Cell | None,
    start: Card[PretrainFacts] | None,
    adapted: Card[AdaptFacts] | None,
    adapters: Iterable[Adapter | None],
    linears: Iterable[str],
) -> dict[str, Any]:
    """Which point of the grid the scores are of, and the sizes of its adapters."""
    if cell is None or start is None:
        return {"method": BACKBONE, "heads": None, "seed": None, "parameters": Parameters(multi_task=0, adaptation=0)}
    routed = start.params.get("pretrain", {}) if cell.row.mixes_skills else {}
    chosen = adapted.params.get("adapt", {}) if adapted and cell.row.is_private else {}
    return {
        "method": cell.method,
        "heads": cell.heads,
        "variant": cell.variant,
        "layout": next((layout_name(each.top.shapes, linears) for each in adapters if each and each.top.shapes), None),
        "extra_steps": cell.extra_steps,
        "seed": cell.seed,
        "trial": cell.trial,
        "settings": dict(cell.settings),
        "leave_out": chosen.get("leave_out", "nothing"),
        "chosen_by": chosen.get("soup_by", "inputs") if cell.row.makes_soup else "inputs",
        "granularity": routed.get("granularity"),
        "skills": routed.get("skills"),
        "parameters": Parameters(
            multi_task=start.facts.parameters.multi_task + start.facts.parameters.routing,
            adaptation=adapted.facts.parameters.adaptation if adapted else 0,
        ),
    }


def open_router(
    cell: Cell | None, start: Path | None, adapted: Path | None, backbone: PreTrainedModel, root: Path, device: str
) -> Router | None:
    """The router of a cell that has one, whose slots the backbone then has."""
    if cell is None or start is None or adapted is None or not cell.row.routes_queries:
        return None
    router = Router.open(adapted, start, root=root, device=device)
    attach(backbone, router.pool.first)
    return router


def lower_of_outputs(
    cell: Cell, params: EvaluateParams, card: Card[PretrainFacts] | Card[AdaptFacts], folder: Path
) -> Path | None:
    """Return the output under the adapters of another: what `evaluate.under` names, else what they were trained on.

    Args:
        cell: whose adapters.
        params: the cell's resolved section.
        card: of the upper output.
        folder: of the upper output, `data/<stage>/<cell>`.
    """
    if params.under is None:
        return lower_folder(card, folder)
    stage, lower = lower_named(params.under, f"evaluate.under {params.under}", cell)
    return folder.parents[1] / stage / lower.name


def load_phases(
    cell: Cell | None, start: Path | None, adapted: Path | None, backbone: PreTrainedModel, under: Adapter | None = None
) -> dict[Phase, Adapter | None]:
    """The adapter of each phase, whose slots the backbone then has; None is the backbone as it is."""
    phases = read_phases(cell, start, adapted, backbone, under)
    if attached := phases["zero_shot"] or phases.get("adapted"):
        attach(backbone, attached)
    return phases


def read_phases(
    cell: Cell | None, start: Path | None, adapted: Path | None, backbone: PreTrainedModel, under: Adapter | None = None
) -> dict[Phase, Adapter | None]:
    """The adapter of each phase, of which the backbone has no slots yet; weights that a LoRA is added to are put into it.

    What lies under the adapters of a cell lies under that of each phase.
    """
    if cell is None or start is None:
        return {"zero_shot": None}
    if adapted and cell.row.router:
        only = load_adapter(adapted / ADAPTERS)
        return {"zero_shot": only, "adapted": only}  # of all tasks, whatever their shots
    soup = adapted / SOUP if adapted and cell.row.makes_soup else None
    before: Adapter | None = load_adapter(soup) if soup else load_adapter(start / ADAPTERS).average()
    after = load_adapter(adapted / ADAPTERS) if adapted else None
    if cell.row.adds_lora and before is not None:
        before.put_into(backbone)
        before = None
    before = over(under, before) if before else None
    return {"zero_shot": before, "adapted": over(under, after)} if after else {"zero_shot": before}


def _by_task(
    scores: Sequence[Score], metrics: Mapping[str, str], tokenizers: Mapping[str, str], adapted: Card[AdaptFacts] | None
) -> dict[str, TaskScores]:
    """{task: its scores by its own metric, in both phases and in validation}."""
    validation = adapted.facts.validation if adapted else {}
    undecided = set(adapted.facts.undecided if adapted else ())
    before, after = (by_own_metric(scores, phase, metrics) for phase in PHASES)
    return {
        task: TaskScores(
            metric=metrics[task],
            zero_shot=round(score, 4),
            adapted=round(after[task], 4) if task in after else None,
            validation=validation.get(task),
            undecided=task in undecided,
            rouge_tokenizer=tokenizers[task],
        )
        for task, score in before.items()
    }


def _common(metrics: Iterable[str]) -> str:
    """The metric of all tasks, or that they have several."""
    kinds = set(metrics)
    return kinds.pop() if len(kinds) == 1 else MIXED


def _recorded(metrics: CellMetrics) -> dict[str, float]:
    """The scores by phase and metric, and by phase and task."""
    values = {f"{phase}/{name}": value for phase in PHASES for name, value in metrics.means(phase).items()}
    for phase in PHASES:
        values |= {f"{phase}/task/{task}": score for task, score in metrics.own_scores(phase).items()}
    return values


def _write_predictions(folder: Path, results: Sequence[TaskAnswers], recorded: Sequence[str]) -> None:
    """Write a row an answer; places are null where it was generated, and a metric where it is not recorded of the task."""
    places = ("place", "right_places")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("task", "phase", "id", "prediction", "references", *places, *recorded)
    }
    for result in results:
        count = len(result.ids)
        columns["task"] += [result.task] * count
        columns["phase"] += [result.phase] * count
        columns["id"] += result.ids
        columns["prediction"] += [said.text for said in result.answers]
        columns["references"] += [right.texts for right in result.references]
        columns["place"] += [said.place for said in result.answers]
        columns["right_places"] += [
            None if said.place is None else sorted(right.places)
            for said, right in zip(result.answers, result.references, strict=True)
        ]
        for name in recorded:
            columns[name] += result.scores.get(name, [None] * count)
    types = {"place": pa.int32(), "right_places": pa.list_(pa.int32())}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), folder / PREDICTIONS, compression="zstd")


def _write_scores(folder: Path, scores: Sequence[Score], recorded: Sequence[str]) -> None:
    """Write a row a task and phase; a metric that is not recorded of a task is empty in its rows."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for score in scores:
        rows.setdefault((score.task, score.phase), {})[score.metric] = round(score.value, 2)
    lines = [(*place, *(values.get(name, "") for name in recorded)) for place, values in rows.items()]
    write_csv(folder / SCORES, ("task", "phase", *recorded), lines)
