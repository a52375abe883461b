"""Tasks of lm-evaluation-harness are run on cells' adapters: one backbone, loaded once, answers for all of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.stack import load_lower
from mhrctl.artifacts.cards import known_digest, read_card, require_backbone, require_made_from
from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.config.cells import Cell
from mhrctl.config.methods import BACKBONE
from mhrctl.config.sections import EvaluateParams
from mhrctl.data.framing import framing_by
from mhrctl.errors import DivergedError, ParamsError, listed, unknown
from mhrctl.evaluation.harness_scores import ZERO_SHOT, HarnessScore, inputs_of, record
from mhrctl.models.attach import inject, linear_shapes
from mhrctl.models.backbones import open_backbone
from mhrctl.models.precision import set_precision
from mhrctl.stages.evaluate import lower_of_outputs, read_cards, read_phases
from mhrctl.tools.harness_tasks import Asked, Tasks, Way, load_tasks, stated
from mhrctl.training.execution import Execution

if TYPE_CHECKING:
    from mhrctl.tools.harness_model import HarnessModel

SEED = 1234
"""Of the examples that stand in prompts, as the harness has it."""


@dataclass(frozen=True)
class Subject:
    """A cell, or the bare backbone, with the settings of its evaluation."""

    cell: Cell | None
    params: EvaluateParams

    @property
    def name(self) -> str:
        """Of the cell."""
        return self.cell.name if self.cell else BACKBONE


@dataclass(frozen=True)
class Result:
    """This is what the harness said of a cell.

    Attributes:
        name: of the cell.
        file: where it is kept.
        scores: of the tasks and groups.
        outdated: how many older scores, of other inputs, are no longer kept.
    """

    name: str
    file: Path
    scores: Sequence[HarnessScore]
    outdated: int


@dataclass(frozen=True)
class _Attached:
    """The adapters of a cell.

    Attributes:
        zero_shot: the adapter before adaptation; None is the bare backbone.
        adapted: after it, a run for each of `tasks`.
        tasks: of the adapted adapter, and of soups before adaptation.
        inputs: {name: sha256} of all that there is of the cell.
    """

    zero_shot: Adapter | None
    adapted: Adapter | None
    tasks: Sequence[str]
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class _Plan:
    """How a cell answers tasks.

    Attributes:
        adapters: {name: adapter of one run}.
        names: {task: the name of its adapter, a test task or zero_shot}.
        ways: {task: how it is put}.
        inputs: {name: sha256} of all that there is of the cell.
    """

    adapters: Mapping[str, Adapter | None]
    names: Mapping[str, str]
    ways: Mapping[str, Way]
    inputs: Mapping[str, str]

    def made_from(self, adapter: str) -> dict[str, str]:
        """What decides the answers of an adapter: none that was adapted, where it is the one before, but for soups."""
        is_before = adapter == ZERO_SHOT and adapter in self.adapters
        return {name: mark for name, mark in self.inputs.items() if not (is_before and name == "adapted")}


def evaluate(subjects: Sequence[Subject], asked: Asked, *, project: Project, execution: Execution) -> Iterator[Result]:
    """Run tasks of the harness on cells, and keep what it says of each.

    Args:
        subjects: the cells.
        asked: which tasks, and how.
        project: with the outputs of the cells.
        execution: how to run.

    Raises:
        DataError: if the harness is not installed, has no such task, or a task cannot be run.
        ParamsError: if there is no such adapter.
        ArtifactError: if an output is missing, or was made from others.
        DivergedError: if what the model computes is not finite.
    """
    tasks = load_tasks(asked, project)
    for group in _sharing(subjects):
        yield from _run_on(group, asked, tasks, project, execution)


def _sharing(subjects: Sequence[Subject]) -> Iterable[Sequence[Subject]]:
    """Cells that one backbone answers for: not those that tune its weights, nor those of another precision."""
    groups: dict[object, list[Subject]] = {}
    for subject in subjects:
        tunes = subject.cell is not None and subject.cell.row.adds_lora
        groups.setdefault((subject.params.precision, subject.name if tunes else None), []).append(subject)
    return groups.values()


def _run_on(
    subjects: Sequence[Subject], asked: Asked, tasks: Tasks, project: Project, execution: Execution
) -> Iterator[Result]:
    backbone, tokenizer = open_backbone(project.output("prepare"), project.output("backbone"), None, None)
    attached = {subject.name: _attached(subject, asked, tasks, project, backbone) for subject in subjects}
    layers = {name for each in attached.values() for one in (each.zero_shot, each.adapted) if one for name in one.shapes}
    backbone.requires_grad_(requires_grad=False)
    if layers:
        inject(backbone, [name for name in linear_shapes(backbone) if name in layers])
    set_precision(backbone, subjects[0].params.precision)
    execution.place(backbone)
    model, in_turns = _model(backbone, tokenizer, project, execution)
    plans = {name: _planned(cell, asked, tasks, name) for name, cell in attached.items()}
    for name, plan in plans.items():
        model.attach(list(plan.adapters.values()), plan.ways)
        scores = [
            score
            for is_ours, part in tasks.parts
            for score in _scores(model, part, plan, asked, name, in_turns=in_turns and not is_ours)
        ]
        file = project.harness(name)
        yield Result(name, file, scores, record(file, name, scores, plan.inputs))


def _model(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, project: Project, execution: Execution
) -> tuple[HarnessModel, bool]:
    """The model that answers, and whether the project's prompts are turns of a chat."""
    from mhrctl.tools.harness_model import HarnessModel

    card = read_card(project.output("prepare"), stage="prepare", command="mhrctl prepare")
    in_turns = card.facts.chat is not None
    framed = framing_by(card.facts.framing, chat=in_turns).of(tokenizer)
    limits = {"most_input": card.params["max_input_tokens"], "most_target": card.params["max_target_tokens"]}
    return HarnessModel(backbone, tokenizer, framed, execution=execution, **limits), in_turns


def _attached(subject: Subject, asked: Asked, tasks: Tasks, project: Project, backbone: PreTrainedModel) -> _Attached:
    """The adapters that a cell needs for what is asked.

    Raises:
        ArtifactError: if an output is missing, or was made from others.
    """
    cell, prepared = subject.cell, project.output("prepare")
    inputs = inputs_of(project, cell)
    if cell is None:
        return _Attached(None, None, (), inputs)
    if cell.row.routes_queries:
        raise ParamsError(f"--harness: {cell.name} answers each query by a mixture of its own, and the harness by one adapter")
    stage, origin = cell.start
    start, adapted = project.output(stage, origin.name), project.output("adapt", cell.name)
    made_for_tests = cell.row.needs_index or cell.row.trains_nothing
    wants_adapted = made_for_tests or asked.adapter not in (None, ZERO_SHOT) or (asked.adapter is None and tasks.ours)
    after = adapted if wants_adapted and not cell.extra_steps else None
    start_card, adapted_card = read_cards(cell, start, after)
    if start_card is not None:
        require_backbone(start_card, start, inputs["backbone"], project.output("backbone"))
        require_made_from(start_card, start, {"prepare": prepared})
    if adapted_card is not None:
        require_backbone(adapted_card, adapted, inputs["backbone"], project.output("backbone"))
        require_made_from(adapted_card, adapted, {"prepare": prepared, "start": start})
    upper, folder = (adapted_card, adapted) if adapted_card else (start_card, start)
    under = lower_of_outputs(cell, subject.params, upper, folder) if upper else None
    inputs = {**inputs, **({"under": known_digest(under / ADAPTERS)} if under else {})}
    phases = read_phases(cell, start, after, backbone, load_lower(under, inputs["backbone"]))
    names = adapted_card.facts.tasks if adapted_card else ()
    return _Attached(phases["zero_shot"], phases.get("adapted"), names, inputs)


def _planned(cell: _Attached, asked: Asked, tasks: Tasks, name: str) -> _Plan:
    """Choose the adapter of each task.

    Raises:
        ParamsError: if there is no such adapter.
    """
    adapters: dict[str, Adapter | None] = {}
    ways: dict[str, Way] = {}
    names: dict[str, str] = {}
    for task in tasks.all:
        ours = tasks.ours.get(task)
        has_its_own = ours is not None and ours in cell.tasks and cell.adapted is not None
        chosen = asked.adapter or (ours if ours is not None and has_its_own else ZERO_SHOT)
        # Soups are zero-shot adapters of test tasks, one each.
        key = f"{chosen}/{ours}" if chosen == ZERO_SHOT and cell.zero_shot is not None and cell.zero_shot.runs > 1 else chosen
        if key not in adapters:
            adapters[key] = _adapter(cell, chosen, ours, name)
        names[task] = chosen
        ways[task] = Way(list(adapters).index(key), is_ours=ours is not None)
    return _Plan(adapters, names, ways, cell.inputs)


def _adapter(cell: _Attached, chosen: str, ours: str | None, name: str) -> Adapter | None:
    """The adapter of one run that answers a task."""
    if chosen != ZERO_SHOT:
        if cell.adapted is None:
            raise ParamsError(f"--adapter {chosen}: {name} is not adapted to any task; name {ZERO_SHOT}")
        if chosen not in cell.tasks:
            raise ParamsError(f"--adapter: {unknown('task', chosen, [ZERO_SHOT, *cell.tasks])}")
        return cell.adapted.select([cell.tasks.index(chosen)])
    if cell.zero_shot is None or cell.zero_shot.runs == 1:
        return cell.zero_shot
    if ours not in cell.tasks:
        raise ParamsError(f"{name} has a zero-shot adapter of each test task, and none of others; name one with --adapter")
    return cell.zero_shot.select([cell.tasks.index(ours)])


def _scores(
    model: HarnessModel,
    part: Mapping[str, Any],
    plan: _Plan,
    asked: Asked,
    name: str,
    *,
    in_turns: bool,
) -> list[HarnessScore]:
    """Run tasks on the adapters that a model has now."""
    from lm_eval import evaluator

    random.seed(0)
    np.random.seed(SEED)  # noqa: NPY002 - tasks draw from the global ones
    torch.manual_seed(SEED)
    for task in part["tasks"].values():
        task.set_fewshot_seed(seed=SEED)
    what = f"--harness {listed(list(part['tasks']))}"
    # The harness draws samples for standard errors in processes of its own; means, which need none, have theirs from here.
    options = {"limit": asked.limit, "bootstrap_iters": 0}
    options |= {"apply_chat_template": in_turns, "fewshot_as_multiturn": in_turns}
    try:
        said = stated(what, lambda: evaluator.evaluate(lm=model, task_dict=dict(part), log_samples=True, **options))
    except DivergedError as error:
        raise DivergedError(f"{name}: {error}: its adapters have diverged, or the backbone is unfit") from None
    scores, tasks = [], part["tasks"]
    for task, numbers in (said["results"] | (said.get("groups") or {})).items():
        adapter = plan.names.get(task) or asked.adapter or ZERO_SHOT  # a group is of other people's tasks, which have one
        score = _score(task, numbers, said, adapter=adapter, limit=asked.limit, made_from=plan.made_from(adapter))
        scores.append(_with_errors(score, tasks[task], said) if task in tasks else score)
    return scores


def _score(task: str, numbers: Mapping[str, Any], said: Mapping[str, Any], **known: Any) -> HarnessScore:  # noqa: ANN401
    """What the harness said of a task, without what is no number."""
    from lm_eval.utils import hash_string

    are_numbers = {key: value for key, value in numbers.items() if isinstance(value, (int, float, np.number))}
    finite = {key: float(value) for key, value in are_numbers.items() if np.isfinite(value)}
    by_name = {key.removesuffix(",none"): value for key, value in finite.items() if "," in key}
    samples = said["samples"].get(task)
    marks = [sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples or ()]
    of_version, better = said["versions"].get(task), said["higher_is_better"].get(task) or {}
    return HarnessScore(
        task=task,
        metrics={key: value for key, value in by_name.items() if "_stderr" not in key},
        higher_is_better={key: value for key, value in better.items() if value is not None},
        examples=said["n-samples"][task]["effective"] if task in said["n-samples"] else None,
        fewshot=said["n-shot"].get(task) or 0,
        version=None if of_version is None else str(of_version),
        hash=hash_string("".join(marks)) if marks else None,
        harness=version("lm_eval"),
        **known,
    )


def _with_errors(score: HarnessScore, task: Any, said: Mapping[str, Any]) -> HarnessScore:  # noqa: ANN401
    """A score with the standard errors of the metrics that are means over the examples."""
    from lm_eval.api.metrics import mean, mean_stderr

    errors: dict[str, float] = {}
    for key in score.metrics:
        name, _, filtered = key.partition(",")
        rows = [row for row in said["samples"][score.task] if row["filter"] == (filtered or "none")]
        values = [row[name] for row in rows if isinstance(row.get(name), (int, float, np.number))]
        if len(values) > 1 and task.aggregation().get(name) is mean:
            errors[key] = float(mean_stderr(values))
    return score.model_copy(update={"stderr": errors})
