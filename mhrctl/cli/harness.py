"""`mhrctl evaluate --harness` runs tasks of lm-evaluation-harness; its options, and what it says, are here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.options import open_accelerator
from mhrctl.config.cells import Cell
from mhrctl.config.fields import MAX_COUNT
from mhrctl.config.sections import EvaluateParams
from mhrctl.errors import ParamsError, counted
from mhrctl.models.speed import Speed

if TYPE_CHECKING:
    from mhrctl.evaluation.harness_scores import HarnessScore

PANEL = "lm-evaluation-harness"
MOST_SHOTS = 1000
HarnessOption = Annotated[
    list[str],
    typer.Option(
        "--harness",
        metavar="TASKS",
        help="Run these tasks, groups or tags of lm-evaluation-harness on all cells that are named, in place of the test"
        " splits; repeatable, or with commas.",
        rich_help_panel=PANEL,
    ),
]
HarnessTasksOption = Annotated[
    list[Path],
    typer.Option(
        "--harness-tasks",
        metavar="FOLDER",
        help="Look for tasks in this folder too, such as one of `mhrctl export --to harness`; repeatable.",
        rich_help_panel=PANEL,
    ),
]
HarnessAdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="TASK",
        help="Adapter for all these tasks: `zero_shot`, or that of a test task. [default: that of a task which was exported"
        " from here, zero_shot for others]",
        rich_help_panel=PANEL,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, max=MAX_COUNT, help="Score the first examples of each task alone.", rich_help_panel=PANEL),
]
FewshotOption = Annotated[
    int | None,
    typer.Option(
        "--fewshot", min=0, max=MOST_SHOTS, help="Examples in each prompt, where the task allows any.", rich_help_panel=PANEL
    ),
]


def names_of(harness: Sequence[str]) -> list[str]:
    """Return the names in `--harness`, each once."""
    return list(dict.fromkeys(name.strip() for part in harness for name in part.split(",") if name.strip()))


def require_harness(harness: Sequence[str], given: Mapping[str, object]) -> None:
    """Check that no option of the harness is given without tasks.

    Args:
        harness: of `--harness`.
        given: {option: its value}.

    Raises:
        ParamsError: if one is.
    """
    if not harness and (options := [option for option, value in given.items() if value not in (None, [])]):
        raise ParamsError(f"{options[0]}: is an option of --harness, which names tasks of lm-evaluation-harness")


def run_harness(
    cells: Mapping[str, tuple[Cell | None, EvaluateParams]],
    tasks: Sequence[str],
    *,
    project: Project,
    folders: Sequence[Path],
    adapter: str | None,
    limit: int | None,
    fewshot: int | None,
    device: str,
    threads: int | None,
    device_map: str | None,
    speed: Speed,
) -> None:
    """Run tasks on cells, and say what came out.

    Args:
        cells: {name: the cell, or None for the bare backbone, and the settings of its evaluation}.
        tasks: of the harness.
        project: with the outputs of the cells.
        folders: of `--harness-tasks`.
        adapter: of `--adapter`.
        limit: of `--limit`.
        fewshot: of `--fewshot`.
        device: of `--device`.
        threads: of `--threads`.
        device_map: of `--device-map`.
        speed: how to compute.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # which is read when the harness's libraries are imported
    accelerator = open_accelerator(device, threads)
    from mhrctl.tools.harness import Subject, evaluate
    from mhrctl.tools.harness_tasks import Asked
    from mhrctl.training.execution import Execution

    execution = Execution(accelerator, speed, display.track, device_map=device_map)
    asked = Asked(tasks, folders, adapter, limit, fewshot)
    subjects = [Subject(cell, params) for cell, params in cells.values()]
    for result in evaluate(subjects, asked, project=project, execution=execution):
        for score in result.scores:
            display.done(f"{result.name} {_line(score)}")
        if result.outdated:
            display.done(f"note: {counted(result.outdated, 'older score')} of other adapters or examples went")
        display.done(f"wrote {result.file}")


def _line(score: HarnessScore) -> str:
    """The numbers of a task, with their standard errors."""
    numbers = []
    for name, value in score.metrics.items():
        error = f" \N{PLUS-MINUS SIGN} {score.stderr[name]:.2g}" if name in score.stderr else ""
        numbers.append(f"{name} {value:.4g}{error}")
    return f"{score.task} ({score.adapter}): {', '.join(numbers) or 'no number'}"
