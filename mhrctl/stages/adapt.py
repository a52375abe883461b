"""The stage `adapt` adapts to each test task from few shots, all side by side in one batch, and keeps the best step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter, stack_runs, trainable
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
from mhrctl.data.batches import GroupedOrder, RunBatches
from mhrctl.data.shots import TaskShots, draw_shots
from mhrctl.errors import DivergedError, ParamsError, StoppedError, counted, in_section, listed
from mhrctl.evaluation.choosing import choose_soup, soup_table
from mhrctl.evaluation.metrics import choices_to_score, references_of, score_all
from mhrctl.evaluation.prediction import Generation, answer, of_runs, own_rows, sample_losses
from mhrctl.evaluation.routes import HEADER, Choice, choose_routes
from mhrctl.models.backbones import open_backbone
from mhrctl.models.precision import set_precision
from mhrctl.tracking.by_task import ByTask
from mhrctl.training.checkpoint import (
    Checkpoint,
    checkpoint_path,
    checkpoints_of,
    previous,
    resume_from,
    save_checkpoint,
)
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.loop import Schedule, fit
from mhrctl.training.objective import objective_of
from mhrctl.training.optimizers import clip_runs, optimizer_of, rate_settings, select_runs, trained_parameters
from mhrctl.training.selection import BestSteps
from mhrctl.training.start import start_of


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
    together = execution.together(begin.base)
    trained: list[dict[str, Tensor]] = []
    curves: list[tuple[str, int, float]] = []
    best: list[float] = []
    undecided: set[str] = set()
    report = ByTask(execution.recorder, tasks=len(shots))
    bench = _Bench(f"adapt {cell.name}", frozen, tokenizer, params, cell.seed, execution, report)
    key, total = made.key(threads=execution.threads), params.steps * -(-len(shots) // together)
    with execution.track(f"adapt {cell.name}", total, about=_about(shots, params, total, execution)) as bar:
        for first in range(0, len(shots), together):
            part = shots[first : first + together]
            key_of_part = f"{key}/{[task.name for task in part]}"
            saved = _Saved(checkpoint_path(scratch, cell.name, first, stage="adapt"), key_of_part)
            adaptation = _Adaptation(bench, begin.of(shots, first, len(part)), part)
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
            trained.append(adaptation.best.parameters)
            curves += adaptation.curves
            best += adaptation.best.scores.tolist()
            undecided |= adaptation.undecided()
    result = begin.of(shots, 0, len(shots))
    result.load_state_dict(stack_runs(trained), strict=False)
    facts = AdaptFacts(
        suite=start_card.facts.suite,
        tasks=[task.name for task in shots],
        shots={task.name: (len(task.groups), len(task.validation)) for task in shots},
        validation={task.name: round(score, 4) for task, score in zip(shots, best, strict=True)},
        undecided=[task.name for task in shots if task.name in undecided],
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
        write_csv(folder / VALIDATION, ("task", "step", "score"), curves)
        card = made.card(facts, threads=execution.threads)
        write_card(folder, card)
    for path in checkpoints_of(scratch, cell.name, stage="adapt"):
        path.unlink()
    best_of = {f"best/{name}": score for name, score in facts.validation.items()}
    execution.recorder.summary(best_of | {"best_mean": fmean(best)})
    return card


class _Places(TypedDict):
    """What chooses from a pool reads, besides the pool and the shots."""

    prepared: Path
    index: Path | None
    root: Path
    execution: Execution


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


@dataclass(frozen=True)
class _Saved:
    """Where the checkpoints of an adaptation are.

    Attributes:
        path: of the last.
        key: identifies the adaptation.
    """

    path: Path
    key: str


@dataclass(frozen=True)
class _Bench:
    """What the batches of an adaptation have in common.

    Attributes:
        name: the stage and the cell.
        backbone: frozen, with the slots of the adapters.
        tokenizer: of the backbone.
        params: the cell's resolved section.
        seed: of the cell.
        execution: how to train.
        report: takes the validation scores.
    """

    name: str
    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    params: AdaptParams
    seed: int
    execution: Execution
    report: ByTask


class _Adaptation:
    """Several tasks adapted in one batch, each with its own parameters, clipping and best step; one that is over leaves it.

    Attributes:
        best: the best step of each task so far.
        taken: steps taken.
        validated: the steps after which tasks were validated.
        curves: (task, step, validation score).
        was_over: whether an earlier command has finished it.
    """

    _tasks: list[int]
    _adapter: Adapter
    _parameters: dict[str, nn.Parameter]
    _optimizer: Optimizer

    def __init__(self, bench: _Bench, adapter: Adapter, shots: Sequence[TaskShots]) -> None:
        params = bench.params
        self._bench, self._execution, self._params, self._shots = bench, bench.execution, params, shots
        self._objective = objective_of(params)
        self._cadence = [_cadence(task, params) for task in shots]
        self._form(list(range(len(shots))), adapter)
        self.best = BestSteps(self._parameters, runs=len(shots), patience=params.patience)
        self.taken = 0
        self.validated: set[int] = set()
        self.curves: list[tuple[str, int, float]] = []
        self.was_over = False
        self._candidates: dict[str, list[float]] = {}

    def undecided(self) -> set[str]:
        """Return the tasks with several steps to choose from whose scores never differed: the first was kept."""
        return {task for task, scores in self._candidates.items() if len(scores) > 1 and len(set(scores)) == 1}

    def note(self, step: int) -> str:
        """Say what the tasks have come to, after a step at which some were validated; nothing after another."""
        if step not in self.validated:
            return ""
        mean = self.best.scores.mean().item()
        return f"validation loss {-mean:.3g}" if self._params.select == "loss" else f"validation {mean:.1f}"

    def run(self) -> Iterator[int]:
        """Train, validating each task at step 0 and at its cadence; yields the steps taken.

        A task that is over leaves the batch. The others go on with their own parameters, optimizer state and data, and the
        schedule of all steps, as each would alone; only random numbers (dropout, sampled routing) are the batch's.
        """
        if not self.curves:
            self._validate(0, self._tasks)
        while self.taken < self._params.steps and (left := [task for task in self._tasks if not self.best.over(task)]):
            if left != self._tasks:
                self._keep_only(left)
            yield from self._until_one_is_over()

    def save(self, saved: _Saved, *, over: bool = False) -> None:
        """Write a checkpoint; of an adaptation that is over, what it has come to alone."""
        state = {"tasks": [] if over else self._tasks, "curves": self.curves, "candidates": self._candidates}
        save_checkpoint(
            saved.path,
            step=self.taken,
            key=saved.key,
            parameters={} if over else self._parameters,
            optimizer=self._optimizer,
            log=[state],
            best=self.best,
        )
        if over:
            previous(saved.path).unlink(missing_ok=True)

    def go_to(self, saved: _Saved) -> None:
        """Go to the last checkpoint, if there is one."""
        begin, every = self._adapter, self._tasks

        def fill(kept: Checkpoint) -> None:
            tasks = kept.log[0]["tasks"]
            self._form(tasks or every, begin.select(tasks or every))
            parameters = self._parameters if tasks else {}
            kept.fill(parameters, self.best)
            kept.fill_optimizer(parameters, self._optimizer)

        kept = resume_from(saved.path, key=saved.key, fill=fill, warn=self._execution.warn)
        if kept is None:
            if self._adapter is not begin:  # a damaged one had other tasks
                self._form(every, begin)
            return
        state = kept.log[0]
        self._tasks, self.taken, self._candidates = state["tasks"], kept.step, state["candidates"]
        self.was_over = not self._tasks
        self.curves = [(name, step, score) for name, step, score in state["curves"]]
        for _, step, score in self.curves:
            self._bench.report.remember(step, score)

    def _form(self, tasks: list[int], adapter: Adapter) -> None:
        """Form the batch of some tasks, each with its run of an adapter, and a new optimizer."""
        shots = [self._shots[task] for task in tasks]
        self._tasks, self._adapter = tasks, adapter
        self._model = self._execution.adapted(self._bench.backbone, adapter)
        self._parameters = trained_parameters(adapter)
        self._optimizer = optimizer_of(adapter, self._params, fused=self._execution.speed.fused)
        adapter.constrain(self._optimizer)
        self._batches = RunBatches(
            [task.train for task in shots],
            [GroupedOrder(task.groups, f"{self._bench.seed}/{task.name}") for task in shots],
            self._params.batch_size,
            with_choices=self._objective.reads_choices,
        )

    def _keep_only(self, left: list[int]) -> None:
        """Form the batch anew of some of its tasks, as they are."""
        rows, optimizer = self._rows(left), self._optimizer
        self._form(left, self._adapter.select(rows))
        select_runs(optimizer, self._optimizer, rows)

    def _rows(self, tasks: Sequence[int]) -> list[int]:
        """Where tasks are in the batch."""
        return [self._tasks.index(task) for task in tasks]

    def _until_one_is_over(self) -> Iterator[int]:
        params = self._params
        steps = fit(
            self._model,
            self._optimizer,
            batches=self._batches,
            objective=self._adapter.objective(self._objective),
            clip=lambda: clip_runs(list(self._parameters.values()), params.clip_norm),
            accelerator=self._execution.accelerator,
            schedule=Schedule(params.steps, params.warmup, self._bench.seed, params.accumulation, self.taken),
            training=Training(self._bench.name, "adapt", [self._shots[task].name for task in self._tasks]),
        )
        for step in steps:
            self.taken = step.number
            if due := self._due(step.number):
                step.require_finite()
                self._validate(step.number, due)
                self._model.train()
            yield step.number
            if any(self.best.over(task) for task in due):
                return

    def _due(self, step: int) -> list[int]:
        """The tasks that are validated at a step: those whose cadence meets it; at the end all, if the last step counts.

        In epochs, as in the paper, it does not. A task for which nothing else could be kept is validated then all the same.
        """
        due = [task for task in self._tasks if step % self._cadence[task] == 0]
        if step < self._params.steps:
            return due
        if self._params.evaluate_unit == "steps" and self._params.keep_last:
            return self._tasks
        return [task for task in self._tasks if task in due or self.best.scores[task] == -torch.inf]

    def _validate(self, step: int, tasks: list[int]) -> None:
        try:
            scores = self._scores(tasks)
        except DivergedError as error:
            rates = " or ".join(f"adapt.{name}" for name in rate_settings(self._optimizer))
            todo = f"lower {rates}" if step else "look at the backbone and at what adaptation starts from"
            raise DivergedError(f"{self._bench.name}: {error} after step {step}; {todo}; nothing was written") from None
        by_task = {self._shots[task].name: round(score, 4) for task, score in zip(tasks, scores, strict=True)}
        self.curves += [(name, step, score) for name, score in by_task.items()]
        self._bench.report(step, by_task)
        self.validated.add(step)
        if step or self._params.keep_start or not self._params.steps:
            self.best.record(tasks, scores, self._parameters, self._rows(tasks), step=step)
            for task, score in zip(tasks, scores, strict=True):
                self._candidates.setdefault(self._shots[task].name, []).append(score)

    def _scores(self, tasks: list[int]) -> list[float]:
        """The validation scores of some tasks."""
        shots = [self._shots[task] for task in tasks]
        samples = [task.validation for task in shots]
        device = self._execution.accelerator.device
        model = of_runs(self._model, self._rows(tasks))
        if self._params.select == "loss":
            losses = sample_losses(model, samples, own_rows(len(samples)), objective=self._objective, device=device)
            if bad := [task.name for task, loss in zip(shots, losses, strict=True) if not math.isfinite(loss)]:
                raise DivergedError(f"the validation loss of {listed(bad)} is not finite")
            return [-loss for loss in losses]
        answers = answer(
            model,
            self._bench.tokenizer,
            samples,
            [choices_to_score(task.metric, task.choices) for task in shots],
            generation=Generation(self._params.beams, self._params.max_new_tokens, self._params.length_norm),
            device=device,
            names=[task.name for task in shots],
        )
        means = []
        for task, said in zip(shots, answers, strict=True):
            references = references_of([[text] for text in task.references], task.choices, task.rouge_tokenizer)
            scores = score_all(task.metric, said, references)
            means.append(sum(scores) / len(scores))
        return means


def _cadence(task: TaskShots, params: AdaptParams) -> int:
    """Steps between a task's validations."""
    if params.evaluate_unit == "steps":
        return params.evaluate_every
    whole = max(1, len(task.groups) // (params.batch_size * params.accumulation))
    return params.evaluate_every * params.epoch_steps.get(task.name, whole)
