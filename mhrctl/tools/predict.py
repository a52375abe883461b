"""A cell's adapters, or exported ones, answer new inputs: many tasks in a batch, each row by the adapter of its task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.stack import load_lower, over
from mhrctl.artifacts.cards import Card, facts_in, read_card, require_backbone, require_made_from, try_card
from mhrctl.artifacts.facts import AdaptFacts, ExportFacts, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, TASKS, Project
from mhrctl.artifacts.reading import read_json_of, reading
from mhrctl.config.cells import Cell
from mhrctl.config.sections import EvaluateParams
from mhrctl.data.examples import Sample
from mhrctl.errors import ArtifactError, DataError, DivergedError, ParamsError, listed
from mhrctl.evaluation.answering import folded_if_shared
from mhrctl.evaluation.metrics import Answer
from mhrctl.evaluation.prediction import Generation, answer
from mhrctl.evaluation.router import Router
from mhrctl.interchange.checkpoints import read_any
from mhrctl.interchange.convert import to_adapter
from mhrctl.models.attach import attach, inject, linear_shapes
from mhrctl.models.backbones import open_backbone
from mhrctl.models.precision import set_precision
from mhrctl.progress import Bar
from mhrctl.stages.evaluate import load_phases, lower_of_outputs, open_router, read_cards
from mhrctl.tools.asking import Question
from mhrctl.training.execution import Execution

PredictStage = Literal["pretrain", "average", "adapt"]
NAMED = 5
"""Tasks that a note names."""
UNEVEN = 2
"""Tasks go into one batch whose numbers of rows differ by this factor at most, since the shorter ones are filled up."""


@dataclass(frozen=True)
class Fitted:
    """An adapter, and the tasks that it is for.

    Attributes:
        adapter: of all of them; None is the bare backbone, or a router.
        places: {task: its run, or the row of the routing}; None where the adapter answers every task alike.
        is_routed: whether the places are rows of the routing of one run.
        note: what to say of the tasks that it answers.
        router: that composes an adapter for each question, in place of one.
    """

    adapter: Adapter | None
    places: Mapping[str, int] | None = None
    is_routed: bool = False
    note: str | None = None
    router: Router | None = None

    @property
    def is_shared(self) -> bool:
        """Whether all rows of a batch get the same."""
        return self.adapter is None or (self.adapter.runs == 1 and not self.is_routed)


@dataclass(frozen=True)
class Base:
    """A base is a backbone that is loaded once, and to which the adapters of several cells are attached.

    Attributes:
        model: the backbone.
        tokenizer: of the project.
        fingerprint: of the backbone.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def open_base(project: Project) -> Base:
    """Load the backbone of a project.

    Raises:
        ArtifactError: if it is missing, or has changed.
    """
    folder = project.output("backbone")
    model, tokenizer = open_backbone(project.output("prepare"), folder, None, None)
    return Base(model, tokenizer, read_card(folder, stage="backbone", command="mhrctl backbone").facts.fingerprint)


class Predictor:
    """It answers questions by the adapters of their tasks.

    Attributes:
        name: of the cell, or of what answers in its place.
        generation: how answers come about, unless a call says otherwise.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        adapters: Sequence[Fitted],
        *,
        name: str,
        params: EvaluateParams,
        execution: Execution,
    ) -> None:
        """Put the backbone, with the adapters attached, where it runs.

        Args:
            backbone: with slots for all of them.
            tokenizer: of the project.
            adapters: a task is answered by the first that is for it.
            name: of the cell, or of what answers in its place.
            params: precision, beams and lengths.
            execution: how to run.
        """
        self._adapters, self._tokenizer, self.name, self._execution = list(adapters), tokenizer, name, execution
        self.generation = Generation(params.beams, params.max_new_tokens, params.length_norm)
        self._backbone = backbone
        set_precision(backbone, params.precision)
        execution.place(backbone)
        self._answered_by: dict[int, dict[str, None]] = {}

    def require(self, questions: Sequence[Question]) -> None:
        """Check that there is an adapter for each question.

        Raises:
            DataError: naming the line of the first without.
        """
        for question in questions:
            self._fitted(question)

    @property
    def tasks(self) -> list[str]:
        """The tasks that have an adapter of their own, or a routing; none where the same answers all."""
        return list(dict.fromkeys(task for fitted in self._adapters for task in fitted.places or ()))

    @property
    def reads_prompts(self) -> bool:
        """Whether answers depend on the texts of prompts, and not on their tokens and tasks alone."""
        return any(fitted.router for fitted in self._adapters)

    def answers(
        self,
        questions: Sequence[Question],
        samples: Sequence[Sample],
        bar: Bar,
        *,
        generation: Generation | None = None,
        prompts: Sequence[str] = (),
    ) -> list[Answer]:
        """Answer questions, in their order.

        Args:
            questions: of any tasks.
            samples: their tokens.
            bar: advances with each that is answered.
            generation: how answers come about; None for what the predictor was made with.
            prompts: their texts, if the predictor reads them.

        Raises:
            DataError: if a task has no adapter.
            DivergedError: if what the model computes is not finite.
        """
        generation = generation or self.generation
        answers: dict[int, Answer] = {}
        by_adapter: dict[int, list[int]] = {}
        for place, question in enumerate(questions):
            by_adapter.setdefault(self._fitted(question), []).append(place)
        for number, places in by_adapter.items():
            fitted = self._adapters[number]
            self._answered_by.setdefault(number, {}).update(dict.fromkeys(questions[place].task for place in places))
            if fitted.router:
                answers |= self._routed(fitted.router, places, questions, samples, prompts, generation)
                bar.advance(len(places))
                continue
            with folded_if_shared(self._backbone, fitted.adapter, self._execution.speed) as attached:
                for batch in self._batches(fitted, questions, places):
                    answers |= self._answered(replace(fitted, adapter=attached), batch, questions, samples, generation)
                    bar.advance(sum(map(len, batch)))
        return [answers[place] for place in range(len(questions))]

    def _fitted(self, question: Question) -> int:
        for number, fitted in enumerate(self._adapters):
            if fitted.places is None or question.task in fitted.places:
                return number
        raise DataError(f"{question.where}: {self.name} has no adapter for task {question.task}; it has {listed(self.tasks)}")

    @property
    def notes(self) -> list[str]:
        """What whoever reads the answers should know, a line each."""
        named = [(fitted, list(self._answered_by.get(number, ()))) for number, fitted in enumerate(self._adapters)]
        return [f"{fitted.note}: {listed(tasks, NAMED)}" for fitted, tasks in named if fitted.note and tasks]

    def _batches(self, fitted: Fitted, questions: Sequence[Question], places: Sequence[int]) -> Iterator[list[list[int]]]:
        """Questions that are answered together: those of each of several runs."""
        runs: dict[tuple[str, bool], list[int]] = {}
        for place in places:
            question = questions[place]
            runs.setdefault(("" if fitted.is_shared else question.task, bool(question.choices)), []).append(place)
        together = self._execution.together(fitted.adapter)
        batch: list[list[int]] = []
        for run in sorted(runs.values(), key=len, reverse=True):
            if batch and (len(batch) == together or len(run) * UNEVEN < len(batch[0])):
                yield batch
                batch = []
            batch.append(run)
        if batch:
            yield batch

    def _routed(
        self,
        router: Router,
        places: Sequence[int],
        questions: Sequence[Question],
        samples: Sequence[Sample],
        prompts: Sequence[str],
        generation: Generation,
    ) -> dict[int, Answer]:
        answers = router.answers(
            [questions[place].task for place in places],
            [prompts[place] for place in places],
            [samples[place] for place in places],
            [questions[place].choices for place in places],
            backbone=self._backbone,
            tokenizer=self._tokenizer,
            generation=generation,
            execution=self._execution,
        )
        return dict(zip(places, answers, strict=True))

    def _answered(
        self,
        fitted: Fitted,
        batch: Sequence[Sequence[int]],
        questions: Sequence[Question],
        samples: Sequence[Sample],
        generation: Generation,
    ) -> dict[int, Answer]:
        adapter, routing = fitted.adapter, None
        names = [questions[run[0]].task for run in batch]
        if adapter is not None and fitted.places is not None:
            chosen = [fitted.places[name] for name in names]
            if fitted.is_routed:
                routing = [chosen]
            elif adapter.runs > 1:
                adapter = adapter.select(chosen)
        try:
            answers = answer(
                self._execution.adapted(self._backbone, adapter),
                self._tokenizer,
                [[samples[place] for place in run] for run in batch],
                [[questions[place].choices for place in run if questions[place].choices] for run in batch],
                generation=generation,
                device=self._execution.accelerator.device,
                names=names,
                routing=routing,
            )
        except DivergedError as error:
            raise DivergedError(f"{self.name}: {error}: its adapters have diverged, or the backbone is unfit") from None
        return {
            place: said for run, of_run in zip(batch, answers, strict=True) for place, said in zip(run, of_run, strict=True)
        }


def of_cell(
    cell: Cell | None,
    params: EvaluateParams,
    *,
    stage: PredictStage,
    project: Project,
    execution: Execution,
    base: Base | None = None,
) -> Predictor:
    """Load what answers by a cell.

    Args:
        cell: whose adapters; None is the bare backbone.
        params: precision, beams and lengths.
        stage: whose output: adapted ones, with the start of adaptation for tasks that the cell was not adapted to; pre-trained
            ones, by each training task's routing, with the average for other tasks; or averaged ones for all.
        project: with the outputs.
        execution: how to run.
        base: the backbone, of a cell whose method leaves its weights as they are; None loads it.

    Raises:
        ArtifactError: if an output is missing, or was made from others.
        ParamsError: if the cell has nothing of the stage.
    """
    if cell is None or stage == "adapt":
        backbone, tokenizer, adapters = _adapted(cell, params, project, base, device=str(execution.accelerator.device))
    else:
        source = project.output(stage, cell.name)
        if stage == "average" and not cell.row.has_average:
            raise ParamsError(f"--stage average: {cell.method} has no skills to average; name --stage pretrain or adapt")
        card = read_card(source, stage=stage, command=f"mhrctl {stage} {cell.name}", cell=cell)
        backbone, tokenizer = _opened(project, card, source, base)
        lower = load_lower(lower_of_outputs(cell, params, card, source), card.facts.backbone)
        adapter = over(lower, load_adapter(source / ADAPTERS))
        attach(backbone, adapter)
        tasks, prepared = card.facts.tasks, project.output("prepare")
        adapters = _pretrained(cell, adapter, tasks, prepared) if stage == "pretrain" else [Fitted(adapter)]
    name = cell.name if cell else "the backbone"
    return Predictor(backbone, tokenizer, adapters, name=name, params=params, execution=execution)


def _opened(
    project: Project, card: Card[PretrainFacts | AdaptFacts] | None, folder: Path | None, base: Base | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone that an adapter, with this card in this folder, was made for."""
    prepared, place = project.output("prepare"), project.output("backbone")
    if base is None:
        return open_backbone(prepared, place, card, folder)
    if card is not None and folder is not None:
        require_made_from(card, folder, {"prepare": prepared})
        require_backbone(card, folder, base.fingerprint, place)
    return base.model, base.tokenizer


def _adapted(
    cell: Cell | None, params: EvaluateParams, project: Project, base: Base | None, *, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[Fitted]]:
    prepared, start, adapted, lower = project.output("prepare"), None, None, None
    if cell is not None:
        stage, origin = cell.start
        start = project.output(stage, origin.name)
        adapted = project.output("adapt", cell.name)
    start_card, adapted_card = read_cards(cell, start, adapted)
    backbone, tokenizer = _opened(project, adapted_card or start_card, adapted if adapted_card else start, base)
    if cell and start and adapted_card and adapted:
        require_made_from(adapted_card, adapted, {"prepare": prepared, "start": start})
        lower = load_lower(lower_of_outputs(cell, params, adapted_card, adapted), adapted_card.facts.backbone)
    if router := open_router(cell, start, adapted, backbone, project.root, device):
        return backbone, tokenizer, [Fitted(None, router=router)]
    phases = load_phases(cell, start, adapted, backbone, lower)
    before, after = phases["zero_shot"], phases.get("adapted")
    if cell is None or after is None or adapted_card is None:
        return backbone, tokenizer, [Fitted(before)]
    fitted = [Fitted(after, _numbered(adapted_card.facts.tasks))]
    if before is None or before.runs == 1:  # soups are of test tasks alone, as adapted adapters are
        fitted.append(Fitted(before, note=f"answered zero-shot, as {cell.name} was not adapted to them"))
    return backbone, tokenizer, fitted


def _pretrained(cell: Cell, adapter: Adapter, tasks: Sequence[str], prepared: Path) -> list[Fitted]:
    """Of a pre-training: the adapter of each training task, and for other tasks the average where there is one."""
    if cell.row.is_private:
        sets = {row["name"]: row["dataset"] for row in read_json_of(prepared / TASKS)["tasks"] if row["role"] == "training"}
        runs = _numbered(tasks)
        return [Fitted(adapter, {name: runs[group] for name, group in sets.items() if group in runs} | runs)]
    average = adapter.average()
    if not adapter.tasks:
        return [Fitted(average)]
    note = f"answered by the average, as {cell.name} was not pre-trained on them"
    return [Fitted(adapter, _numbered(tasks), is_routed=True), Fitted(average, note=note)]


def _numbered(tasks: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(tasks)}


def of_folders(folders: Sequence[Path], params: EvaluateParams, *, project: Project, execution: Execution) -> Predictor:
    """Load what answers by exported adapters, each of the task that its card names.

    Args:
        folders: that peft, or `mhrctl export`, has written. One without a card, or for all tasks, answers every other task.
        params: precision, beams and lengths.
        project: whose backbone they are for.
        execution: how to run.

    Raises:
        ArtifactError: if one is for another backbone.
        DataError: if one is no adapter that can be read.
        ParamsError: if two are of one task, or one cannot be used as it is.
    """
    cards = [_export_card(folder) for folder in folders]
    for folder, card in zip(folders, cards, strict=True):
        if card and card.params.get("merged"):
            raise ParamsError(
                f"--adapter {folder}: is a whole model, which needs no mhrctl; its README.md shows how to load it"
            )
    base, place = open_base(project), project.output("backbone")
    backbone, fingerprint = base.model, base.fingerprint
    shapes = linear_shapes(backbone)
    of_task: dict[str | None, Fitted] = {}
    for folder, card in zip(folders, cards, strict=True):
        if card and card.facts.stacked:
            raise ParamsError(f"--adapter {folder}: is one of two adapters; export it without --stack, or name its cell")
        if card and card.facts.backbone != fingerprint:
            raise ArtifactError(
                f"--adapter {folder}: is for another backbone ({card.facts.base.name}, {card.facts.backbone[:12]}, and not"
                f" {fingerprint[:12]} in {place}); predict in a project of that"
            )
        task = card.facts.task if card else None
        if task in of_task:
            raise ParamsError(f"--adapter {folder}: another is of {task or 'every task'} too; leave one out")
        with reading(folder):
            adapter = to_adapter(read_any(folder, shapes), shapes)
        if adapter.tasks > 1:
            raise ParamsError(
                f"--adapter {folder}: is an inventory, whose routing names no tasks; name its cell, with --stage pretrain"
            )
        of_task[task] = Fitted(adapter.composed() if adapter.averageable else adapter, {task: 0} if task else None)
    layers = {name for fitted in of_task.values() if fitted.adapter for name in fitted.adapter.shapes}
    backbone.requires_grad_(requires_grad=False)
    inject(backbone, [name for name in shapes if name in layers])
    ordered = [of_task[task] for task in sorted(of_task, key=lambda task: (task is None, task or ""))]
    name = str(folders[0]) if len(folders) == 1 else f"the {len(folders)} adapters"
    return Predictor(backbone, base.tokenizer, ordered, name=name, params=params, execution=execution)


def task_of(folders: Sequence[Path]) -> str | None:
    """Return the task of the lines that name none: that of a single exported adapter."""
    facts = facts_in(folders[0], ExportFacts) if len(folders) == 1 else None
    return facts.task if facts else None


def _export_card(folder: Path) -> Card[ExportFacts] | None:
    """The card of an export; none of what another library has written."""
    if not folder.exists():
        raise DataError(f"--adapter {folder}: no such folder")
    card, facts = try_card(folder), facts_in(folder, ExportFacts)
    if card is None:
        return None
    if card.stage != "export" or facts is None:
        raise ParamsError(f"--adapter {folder}: holds what the {card.stage} stage has written; name its cell in its place")
    return replace(card, facts=facts)
