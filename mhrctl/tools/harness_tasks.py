"""Tasks of lm-evaluation-harness are looked up and made, without asking a network for anything unsaid."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mhrctl.artifacts.cards import known_digest
from mhrctl.artifacts.names import TEST_EXAMPLES, Project
from mhrctl.errors import DataError, MhrctlError, nearest
from mhrctl.hub import fetching
from mhrctl.tools.harness_export import ORIGIN

LOCAL = ("json", "csv", "parquet", "text", "arrow", "xml")
"""What the library datasets reads from files; any other name is a data set of the hub, or a folder."""


@dataclass(frozen=True)
class Asked:
    """This is what is asked of the harness.

    Attributes:
        tasks: names of its tasks, groups or tags.
        folders: of tasks of the user's own.
        adapter: of all tasks; None is the adapter of each task that was exported from the project, and zero-shot for others.
        limit: examples of each task; None is all.
        fewshot: examples in each prompt, where the task leaves it open; None is what the task says.
    """

    tasks: Sequence[str]
    folders: Sequence[Path] = ()
    adapter: str | None = None
    limit: int | None = None
    fewshot: int | None = None


@dataclass(frozen=True)
class Way:
    """A way is how a task of the harness is put to the model.

    Attributes:
        adapter: its place among those of the cell.
        is_ours: whether its tokens are those of the prepare stage.
    """

    adapter: int
    is_ours: bool = False


@dataclass(frozen=True)
class Tasks:
    """The tasks that are asked for, as the harness has made them.

    Attributes:
        all: {name: task}.
        groups: {name: group}.
        ours: {name: the project's test task} of those that were exported from this project.
    """

    all: Mapping[str, Any]
    groups: Mapping[str, Any]
    ours: Mapping[str, str]

    @property
    def parts(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        """(whether they are ours, tasks and groups) of what is run at a time."""
        others = {name: task for name, task in self.all.items() if name not in self.ours}
        if self.ours:
            yield True, {"tasks": {name: self.all[name] for name in self.ours}, "groups": {}}
        if others:
            yield False, {"tasks": others, "groups": self.groups}


def _library() -> ModuleType:
    try:
        import lm_eval
    except ImportError:
        raise DataError("--harness needs the package lm_eval (pip install 'mhrctl[harness]')") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    library: ModuleType = lm_eval
    return library


def load_tasks(asked: Asked, project: Project) -> Tasks:
    """Make the tasks.

    Raises:
        DataError: if there is no such task, or one cannot be made, such as one whose data are on the hub, which is not asked.
    """
    _library()
    manager = _manager(asked)
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for name in asked.tasks:
        loaded = stated(f"--harness {name}", partial(_made, manager, name))
        tasks |= loaded["tasks"]
        groups |= loaded["groups"]
    for task in tasks.values():
        if (shots := task.get_config("num_fewshot")) is None or (asked.fewshot is not None and shots != 0):
            task.set_config(key="num_fewshot", value=asked.fewshot or 0)
    return Tasks(tasks, groups, _ours(tasks, project))


def _made(manager: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401
    """A task, or those of a group or tag; what must come from the hub is said before."""
    with ExitStack() as stack:
        for place in dict.fromkeys(_hub_data(manager.task_index, name)):
            what = f"--harness {name}: its data set {place}"
            stack.enter_context(fetching(place, what=what, way_out="run it where there is a network"))
        made: Mapping[str, Any] = manager.load([name])
    return made


def _manager(asked: Asked) -> Any:  # noqa: ANN401
    """The harness's index of tasks: of the folders alone where these have all, since it has some 14,000 of its own.

    Raises:
        DataError: if there is no such folder, or no such task.
    """
    from lm_eval.tasks import TaskManager

    for folder in asked.folders:
        if not folder.is_dir():
            raise DataError(f"--harness-tasks {folder}: no such folder")
    folders = [str(folder) for folder in asked.folders]
    manager = TaskManager(include_path=folders, include_defaults=False) if folders else None
    if manager is None or any(name not in manager.task_index for name in asked.tasks):
        manager = TaskManager(include_path=folders or None)
    if missing := [name for name in asked.tasks if name not in manager.task_index]:
        near = nearest(missing[0], manager.task_index)
        raise DataError(
            f"--harness {missing[0]}: no such task, group or tag{f'; did you mean {near}?' if near else ''}"
            "; --harness-tasks names a folder of your own"
        )
    return manager


def _ours(tasks: Mapping[str, Any], project: Project) -> dict[str, str]:
    """{name: test task} of the tasks that were exported from the project as it is now."""
    digest = known_digest(project.output("prepare") / TEST_EXAMPLES)
    origins = {name: (task.config.metadata or {}).get(ORIGIN) or {} for name, task in tasks.items()}
    return {name: origin["task"] for name, origin in origins.items() if origin.get("examples") == digest}


def stated(what: str, make: Any) -> Any:  # noqa: ANN401 - whatever the harness gives
    """Call the harness, whose tasks can fail in any way: an error in one line.

    Raises:
        DataError: if it fails.
    """
    try:
        return make()
    except (MhrctlError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{what}: lm_eval cannot run it: {said[:300]}") from error


def _hub_data(index: Mapping[str, Any], name: str) -> Iterator[str]:
    """The data sets of the hub that a task reads, or those of a group or tag do."""
    entry = index[name]
    config = entry.cfg or {}
    listed = config.get("task")
    members = sorted(entry.tags) if entry.cfg is None else listed if isinstance(listed, list) else []
    for member in members:
        named = member if isinstance(member, str) else member.get("task") or member.get("group")
        if isinstance(named, str) and named in index:
            yield from _hub_data(index, named)
    place = config.get("dataset_path")
    if isinstance(place, str) and place not in LOCAL and "custom_dataset" not in config:
        yield place
