"""`mhrctl predict` answers new inputs: JSON Lines in, the same lines with their answers out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.cells import (
    CellChoice,
    CellOption,
    ExtraStepsOption,
    HeadsOption,
    MethodOption,
    SeedOption,
    VariantOption,
    chosen_cell,
    require_alone,
)
from mhrctl.cli.completion import complete_task
from mhrctl.cli.options import (
    HERE,
    DeviceMapOption,
    DeviceOption,
    OffOption,
    ProjectOption,
    ThreadsOption,
    TogetherOption,
    open_accelerator,
    open_project,
)
from mhrctl.config.cells import Cell
from mhrctl.config.fields import MAX_COUNT
from mhrctl.config.methods import BACKBONE
from mhrctl.config.sections import EvaluateParams
from mhrctl.errors import DataError, ParamsError, counted
from mhrctl.models.speed import Speed
from mhrctl.progress import silent

if TYPE_CHECKING:
    from mhrctl.data.examples import Sample
    from mhrctl.evaluation.metrics import Answer
    from mhrctl.tools.asking import Asker, Question
    from mhrctl.tools.predictor import Predictor

LINES = 256
"""Lines that are answered, and written, at a time."""
STDIN = Path("stdin")
ADAPTER_CONFIG = "adapter_config.json"
"""A folder with this file is an adapter of peft's."""


class PredictStage(StrEnum):
    """Adapters of these stages can answer."""

    ADAPT = "adapt"
    AVERAGE = "average"
    PRETRAIN = "pretrain"


def predict(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="JSON Lines to answer; none is stdin.", show_default=False),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="Task of all lines, in place of their field `task`.", autocompletion=complete_task),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A new file to write to. [default: stdout]")] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Write the scores of answer choices too.")] = False,
    method: MethodOption = None,
    heads: HeadsOption = None,
    variant: VariantOption = None,
    seed: SeedOption = None,
    extra_steps: ExtraStepsOption = None,
    cell: CellOption = None,
    stage: Annotated[PredictStage, typer.Option("--stage", help="Stage whose adapters answer.")] = PredictStage.ADAPT,
    adapter: Annotated[
        list[Path],
        typer.Option("--adapter", help="An exported folder in place of a cell; repeatable.", show_default=False),
    ] = [],
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, max=MAX_COUNT, help="Longest answer. [default: evaluate's]")
    ] = None,
    beams: Annotated[
        int | None, typer.Option("--beams", min=1, max=1000, help="Beams of generation; 1 is greedy. [default: evaluate's]")
    ] = None,
    project: ProjectOption = HERE,
    device: DeviceOption = "auto",
    device_map: DeviceMapOption = None,
    threads: ThreadsOption = None,
    together: TogetherOption = Speed.together,
    off: OffOption = [],
) -> None:
    """Answer new inputs, JSON Lines in and out, with a cell's adapters or exported ones."""
    choice = CellChoice(method, heads, variant, seed, extra_steps, cell)
    folders = _adapters([*adapter, *(file for file in files or () if file.is_dir())])
    files = [file for file in files or () if not file.is_dir()]
    where, point, params = _chosen(project, choice, folders)
    point = answering_cell(point, stage) if point else None
    generation = {"max_new_tokens": max_new_tokens, "beams": beams}
    params = params.model_copy(update={name: value for name, value in generation.items() if value is not None})
    accelerator = open_accelerator(device, threads)
    from mhrctl.tools.asking import Asker
    from mhrctl.tools.predict import of_cell, of_folders, task_of
    from mhrctl.training.execution import Execution

    asker = Asker(where, task=task, default=task_of(folders), track=display.track)
    inputs = [_Input(file, _asked(asker, file)) for file in files] if files else [_Input(STDIN, None)]
    execution = Execution(accelerator, Speed(together=together).without(off), display.track, device_map=device_map)
    if folders:
        predictor = of_folders(folders, params, project=where, execution=execution)
    else:
        predictor = of_cell(point, params, stage=stage.value, project=where, execution=execution)
    for each in inputs:
        predictor.require([question for question, _ in each.asked or ()])
    display.loaded()
    with ExitStack() as stack:
        done = _answer(predictor, asker, inputs, _opened(out, stack), scores=scores)
    for note in predictor.notes:
        display.done(f"note: {note}")
    display.done(f"answered {counted(done, 'line')} with {predictor.name}{f', in {out}' if out else ''}")


def answering_cell(cell: Cell, stage: PredictStage) -> Cell:
    """Return the cell whose output of a stage answers: where it was not adapted, that of its pre-training.

    Raises:
        ParamsError: if there is none.
    """
    if stage is not PredictStage.ADAPT:
        return cell if cell.extra_steps else cell.pretrain_cell
    if cell.extra_steps:
        raise ParamsError("--extra-steps: such a cell is not adapted; name --stage pretrain")
    return cell


def _adapters(folders: Sequence[Path]) -> list[Path]:
    """Exported folders: those that are named, and those within a named one that is none itself."""
    return [each for folder in folders for each in (_inside(folder) or [folder])]


def _inside(folder: Path) -> list[Path]:
    if not folder.is_dir() or (folder / ADAPTER_CONFIG).exists():
        return []
    return sorted(file.parent for file in folder.glob(f"*/{ADAPTER_CONFIG}"))


def _chosen(folder: Path, choice: CellChoice, adapters: Sequence[Path]) -> tuple[Project, Cell | None, EvaluateParams]:
    """The cell that answers, or none for the bare backbone and for exported adapters, and the settings of answers."""
    if adapters and choice != CellChoice():
        raise ParamsError("--adapter stands in place of a cell; leave out --method, --heads, --variant, --seed and --cell")
    if adapters or BACKBONE in (choice.method, choice.cell):
        if choice.cell:
            require_alone(choice, (), None)
        project, settings = open_project(folder, reads=["evaluate"])
        return project, None, settings.params.evaluate
    project, params = chosen_cell(folder, choice, reads="evaluate")
    return project, params.cell, params.evaluate


@dataclass
class _Input:
    """What is answered of a file.

    Attributes:
        path: of the file.
        asked: its questions with their tokens, all looked at before anything is computed; None of a pipe, which is read as it
            comes.
    """

    path: Path
    asked: list[tuple[Question, Sample]] | None


def _asked(asker: Asker, file: Path) -> list[tuple[Question, Sample]] | None:
    from mhrctl.tools.lines import is_pipe, of_file

    if is_pipe(file):
        return None
    questions = [asker.question(text, path, number) for path, number, text in of_file(file)]
    return list(zip(questions, asker.samples(questions), strict=True))


def _answer(predictor: Predictor, asker: Asker, inputs: Sequence[_Input], sink: int, *, scores: bool) -> int:
    """Answer the inputs one after the other, and return how many lines these were."""
    total = sum(len(each.asked or ()) for each in inputs)
    done = 0
    with display.track("predict", total) if total else silent("predict", 0) as bar:
        for each in inputs:
            for asked in _batches(asker, each):
                questions = [question for question, _ in asked]
                prompts = asker.prompts(questions) if predictor.reads_prompts else ()
                answers = predictor.answers(questions, [sample for _, sample in asked], bar, prompts=prompts)
                for question, answer in zip(questions, answers, strict=True):
                    _write(sink, _record(question, answer, scores=scores))
                    done += 1
    return done


def _batches(asker: Asker, given: _Input) -> Iterator[list[tuple[Question, Sample]]]:
    """What is answered at a time.

    Raises:
        DataError: of a line of a pipe that cannot be answered, when those before it were.
    """
    from mhrctl.tools.lines import of_pipe

    if given.asked is not None:
        yield from (given.asked[start : start + LINES] for start in range(0, len(given.asked), LINES))
        return
    with ExitStack() as stack:
        stream = sys.stdin.buffer if given.path == STDIN else stack.enter_context(given.path.open("rb"))
        for lines in of_pipe(stream.fileno(), given.path, LINES):
            asked: list[tuple[Question, Sample]] = []
            fault: DataError | None = None
            for path, number, text in lines:
                try:
                    question = asker.question(text, path, number)
                    asked += zip([question], asker.samples([question]), strict=True)
                except DataError as error:
                    fault = error
                    break
            if asked:
                yield asked
            if fault:
                raise fault


def _record(question: Question, answer: Answer, *, scores: bool) -> dict[str, Any]:
    """A line with its answer, and the scores of its choices if they are asked for."""
    record = dict(question.line) | {"answer": answer.text}
    if scores and question.choices:
        record |= {"choices": list(question.choices), "scores": [round(score, 4) for score in answer.scores]}
    return record


def _opened(out: Path | None, stack: ExitStack) -> int:
    """The descriptor to write to.

    Raises:
        ParamsError: if there is such a file already, or it cannot be written.
    """
    if out is None:
        sys.stdout.flush()
        return sys.stdout.fileno()
    try:
        return stack.enter_context(out.open("xb", buffering=0)).fileno()
    except FileExistsError:
        raise ParamsError(f"--out {out}: there is such a file, which would be lost; remove it, or name another") from None
    except OSError as error:
        raise ParamsError(f"--out {out}: cannot be written: {error.strerror}") from None


def _write(sink: int, record: Mapping[str, Any]) -> None:
    """Write a line whole, and at once: whoever reads a pipe waits for it, and an interrupted run leaves no half of one."""
    rest = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    while rest:
        rest = rest[os.write(sink, rest) :]
