"""The stage `adapt` adapts to each test task from few shots, all side by side in one batch, and keeps the best step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TypedDict

from torch import Tensor

from mhrctl.adapters.adapter import stack_runs, trainable
from mhrctl.adapters.files import save_adapter
from mhrctl.adapters.stack import load_lower
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import AdaptFacts, Parameters, PretrainFacts
from mhrctl.artifacts.lower import lower_of, require_lower
from mhrctl.artifacts.names import ADAPTERS, ROUTES, SOUP, SOUP_TASKS, VALIDATION
from mhrctl.artifacts.writing import write_csv, writing
from mhrctl.config.cells import Cell
from mhrctl.config.sections import AdaptParams
from mhrctl.data.shots import TaskShots, draw_shots
from mhrctl.errors import ParamsError, StoppedError, counted, in_section
from mhrctl.evaluation.adaptation import Adaptation, Bench, Saved
from mhrctl.evaluation.choosing import choose_soup, soup_table
from mhrctl.evaluation.routes import HEADER, Choice, choose_routes
from mhrctl.models.backbones import open_backbone
from mhrctl.models.precision import set_precision
from mhrctl.tracking.by_task import ByTask
from mhrctl.training.checkpoint import checkpoint_path, checkpoints_of
from mhrctl.training.execution import Execution
from mhrctl.training.optimizers import trained_parameters
from mhrctl.training.start import Start, start_of


def adapt(
    cell: Cell,
    params: AdaptParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path,
    out: Path,
    scratch: Path,
    execution: Execution,
    index: Path | None = None,
    under: Path | None = None,
    root: Path = Path(),
) -> Card[AdaptFacts]:
    """Write `adapters.safetensors`, one run a test task, and `validation.csv` (score by task and step) into `out`.

    AdapterSoup and merges also write what they start from, `soup.safetensors`, and whose adapters that is made of, `soup.csv`.
    Routers train nothing: their `adapters.safetensors` has what routing needs, and `routes.csv` says it.

    Args:
        cell: method, heads and seed.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: output of the pretrain or average stage, whichever the method starts from.
        out: the output folder.
        scratch: folder for the checkpoints of an adaptation in progress.
        execution: how to train; its recorder takes the validation scores.
        index: output of the index stage; routers need it, and AdapterSoup and merges by inputs.
        under: output of the pretrain or average stage whose adapter is frozen under what is adapted.
        root: what a relative folder of the index's encoder is relative to.

    Raises:
        ParamsError: if the cell is one of extra steps, which is not adapted.
        ArtifactError: if an input folder is missing or was made for another backbone.
        DivergedError: if the loss, a gradient, a validation or what is trained of any task is not finite.
        StoppedError: if it was asked to stop, and has left a checkpoint.
    """
    if cell.extra_steps:
        raise ParamsError(f"cell {cell.name}: extra steps are for zero-shot evaluation; run `mhrctl evaluate {cell.name}`")
    stage, origin = cell.start
    start_card = read_card(start, stage=stage, command=f"mhrctl {stage} {origin.name}", cell=origin)
    require_lower(start_card, start, under, swapped=params.under is not None)
    frozen, tokenizer = open_backbone(prepared, backbone, start_card, start)
    with in_section("adapt"):
        shots = draw_shots(
            prepared, shots=params.shots, validation=params.validation, seed=cell.seed, validate_on=params.validate_on
        )
    made = provenance.of_adapt(
        cell, params, prepared=prepared, backbone=backbone, start=start, index=index, root=root, under=under
    )
    places: _Places = {"prepared": prepared, "index": index, "root": root, "execution": execution}
    pool = start_card.facts.tasks
    if cell.row.routes_queries:
        choice = choose_routes(cell, params, start, pool, shots, frozen, **places)
        return _write_routes(choice, shots, start_card.facts, made, out, execution)
    soup = choose_soup(cell, params, start, pool, shots, frozen, **places) if cell.row.makes_soup else None
    lower, names = load_lower(under, start_card.facts.backbone), [task.name for task in shots]
    begin = start_of(cell, params, frozen, start / ADAPTERS, start_card, soup, names, lower)
    set_precision(frozen, params.precision)
    bench = Bench(
        f"adapt {cell.name}", frozen, tokenizer, params, cell.seed, execution, ByTask(execution.recorder, tasks=len(shots))
    )
    adapted = _adapted(bench, begin, shots, lambda first: checkpoint_path(scratch, cell.name, first, stage="adapt"), made)
    result = begin.of(shots, 0, len(shots))
    result.load_state_dict(stack_runs(adapted.parameters), strict=False)
    facts = AdaptFacts(
        suite=start_card.facts.suite,
        tasks=[task.name for task in shots],
        shots={task.name: (len(task.groups), len(task.validation)) for task in shots},
        validation={task.name: round(score, 4) for task, score in zip(shots, adapted.best, strict=True)},
        undecided=[task.name for task in shots if task.name in adapted.undecided],
        rouge_tokenizers={task.name: task.rouge_tokenizer for task in shots},
        evaluations=soup.evaluations if soup else {},
        under=lower_of(under),
        backbone=start_card.facts.backbone,
        parameters=Parameters(adaptation=trainable(trained_parameters(result).values()) // len(shots)),
    )
    with writing(out) as folder:
        save_adapter(result, folder / ADAPTERS)
        if soup:
            save_adapter(begin.base, folder / SOUP)
            write_csv(folder / SOUP_TASKS, *soup_table(soup, params))
        write_csv(folder / VALIDATION, ("task", "step", "score"), adapted.curves)
        card = made.card(facts, threads=execution.threads)
        write_card(folder, card)
    for path in checkpoints_of(scratch, cell.name, stage="adapt"):
        path.unlink()
    best_of = {f"best/{name}": score for name, score in facts.validation.items()}
    execution.recorder.summary(best_of | {"best_mean": fmean(adapted.best)})
    return card


class _Places(TypedDict):
    """What chooses from a pool reads, besides the pool and the shots."""

    prepared: Path
    index: Path | None
    root: Path
    execution: Execution


@dataclass(frozen=True)
class _Adapted:
    """What came of the adaptation of all test tasks.

    Attributes:
        parameters: what was trained, of each batch of tasks side by side.
        curves: (task, step, validation score).
        best: each task's validation score at the step that is kept.
        undecided: tasks of which every step had one score.
    """

    parameters: list[dict[str, Tensor]] = field(default_factory=list)
    curves: list[tuple[str, int, float]] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    undecided: set[str] = field(default_factory=set)


def _adapted(
    bench: Bench, begin: Start, shots: Sequence[TaskShots], checkpoint: Callable[[int], Path], made: provenance.Provenance
) -> _Adapted:
    """Adapt to as many tasks side by side as there is room for, and then to the next, from the checkpoints that there are.

    Args:
        bench: what all have in common.
        begin: what they start from.
        shots: of all test tasks.
        checkpoint: where that of the tasks from a place on is kept.
        made: what the stage is made of, by which a checkpoint is known.

    Raises:
        StoppedError: if it was asked to stop, and has left a checkpoint.
    """
    execution, params = bench.execution, bench.params
    together = execution.together(begin.base)
    adapted = _Adapted()
    key, total = made.key(threads=execution.threads), params.steps * -(-len(shots) // together)
    with execution.track(bench.name, total, about=_about(shots, params, total, execution)) as bar:
        for first in range(0, len(shots), together):
            part = shots[first : first + together]
            saved = Saved(checkpoint(first), f"{key}/{[task.name for task in part]}")
            adaptation = Adaptation(bench, begin.of(shots, first, len(part)), part)
            adaptation.go_to(saved)
            bar.resume(adaptation.taken)
            before = params.steps * (first // together)
            with execution.pausing() as pauses:
                for step in adaptation.run():
                    bar.advance(note=adaptation.note(step))
                    pause = pauses.after(step)
                    if pause.saves:
                        adaptation.save(saved)
                    if pause.stops:
                        raise StoppedError(f"stopped at step {before + step:,} of {total:,}")
            bar.resume(params.steps - adaptation.taken)  # which no task needed
            if len(shots) > together and not adaptation.was_over:
                adaptation.save(saved, over=True)
            adapted.parameters.append(adaptation.best.parameters)
            adapted.curves.extend(adaptation.curves)
            adapted.best.extend(adaptation.best.scores.tolist())
            adapted.undecided.update(adaptation.undecided())
    return adapted


def _write_routes(
    choice: Choice,
    shots: Sequence[TaskShots],
    pool: PretrainFacts,
    made: provenance.Provenance,
    out: Path,
    execution: Execution,
) -> Card[AdaptFacts]:
    """Write what a router needs."""
    facts = AdaptFacts(
        suite=pool.suite,
        tasks=[task.name for task in shots],
        shots={task.name: (len(task.groups), len(task.validation)) for task in shots},
        validation={},
        rouge_tokenizers={task.name: task.rouge_tokenizer for task in shots},
        evaluations=choice.evaluations,
        backbone=pool.backbone,
        parameters=Parameters(adaptation=0),
    )
    with writing(out) as folder:
        choice.routes.save(folder / ADAPTERS)
        write_csv(folder / ROUTES, HEADER, choice.notes)
        card = made.card(facts, threads=execution.threads)
        write_card(folder, card)
    return card


def _about(shots: Sequence[TaskShots], params: AdaptParams, total: int, execution: Execution) -> str:
    """What an adaptation works on, in a line."""
    examples = counted(params.batch_size * params.accumulation, "example")
    return f"{counted(len(shots), 'task')}, {counted(total, 'step')} of {examples} a task, {execution.accelerator.device}"
