"""The source `superni` reads Super-NaturalInstructions, from a clone of upstream or a mirror on the hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mhrctl.config.params import Params
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError
from mhrctl.progress import Track
from mhrctl.suites.reading import read_text
from mhrctl.suites.superni.hub import read_superni_hub
from mhrctl.suites.superni.prompts import PROMPTS, prompter
from mhrctl.suites.superni.tasks import FORM, SPLITS, TASKS, named_tasks, read_superni, task_files
from mhrctl.suites.task import Metrics, Seen, Suite, Task, TaskCounts


def read(params: PrepareParams, root: Path, *, metrics: Metrics, track: Track) -> Suite:  # noqa: ARG001 - of every source
    """Read a clone or a mirror, of each training task no more than twice what its splits can take."""
    kept = 2 * params.examples  # enough for train and validation; all of a clone would be gigabytes
    if params.hub is None:
        suite = read_superni(root / str(params.path), training_instances=kept, strict=params.strict)
    else:
        suite = read_superni_hub(
            params.hub,
            revision=params.revision,
            test_tasks=named_tasks(params.test_tasks),
            training_instances=kept,
            positives=params.positive_examples,
            strict=params.strict,
            track=track,
        )
    suite.named, suite.prompter = named_tasks, partial(_prompter, params)
    return suite


def check(params: Params, root: Path, *, metrics: Metrics) -> Seen:  # noqa: ARG001 - of every source
    """See that the split files name tasks that there are, and that test tasks are among them."""
    prepare = params.prepare
    chosen = prepare.test_tasks
    if prepare.hub is not None:
        number = len(named_tasks(chosen)) if chosen else TASKS["test"]
        return Seen(TaskCounts(TASKS["training"], TASKS["training"], number), (f"prepare.hub {prepare.hub}",))
    path = root / str(prepare.path)
    if path.is_dir() and not (path / "tasks").is_dir():
        raise DataError(f"{path}: no folder `tasks`; prepare.path must be {FORM}")
    names: dict[str, list[str]] = {}
    for role, file in SPLITS.items():
        split = path / "splits" / "default" / file
        if not split.is_file():
            raise DataError(f"{split}: no such file; prepare.path must be {FORM}")
        names[role] = read_text(split).split()
        if not names[role]:
            raise DataError(f"{split}: names no task")
        for name in names[role]:
            if not (path / "tasks" / f"{name}.json").is_file():
                raise DataError(f"{split}: names {name}, but there is no {path / 'tasks' / name}.json")
    tests = named_tasks(chosen, names["test"]) if chosen else names["test"]
    return Seen(TaskCounts(len(names["training"]), len(names["training"]), len(tests)), notes=task_files(path).notes)


def _prompter(
    params: PrepareParams, task: Task, count: Callable[[str], int], cut: Callable[[str, int], str]
) -> Callable[[str], str]:
    """Put Super-NaturalInstructions' own prompt around a task's inputs."""
    return prompter(
        PROMPTS[params.prompt],
        task,
        task_name=params.task_name,
        definition=params.definition,
        positives=params.positive_examples,
        longest=params.max_input_tokens,
        count=count,
        cut=cut,
    )
