"""What `mhrctl check` proves before anything runs: that the files which params.yaml names are there and look right.

Nothing is fetched, and nothing large is read: what needs either is said to be unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mhrctl.artifacts.cards import facts_in
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import TASKS, Project
from mhrctl.artifacts.writing import read_json
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params, PrepareParams
from mhrctl.errors import DataError, unknown
from mhrctl.projects.templates import dvc_yaml
from mhrctl.tools.estimate import TaskCounts

READABLE = 64 * 2**20
"""Bytes of the user's own tasks that are read in full."""
READ, WRITTEN = ("deps", "params"), ("outs", "metrics", "plots")
"""Sections of a stage of dvc.yaml."""


@dataclass(frozen=True)
class Suite:
    """What was seen of the tasks.

    Attributes:
        tasks: how many there are; None if only `mhrctl prepare` can tell.
        unchecked: what could not be looked at, in words.
    """

    tasks: TaskCounts | None
    unchecked: tuple[str, ...] = ()


def check_suite(params: Params, project: Project) -> Suite:
    """Look at the files of tasks.

    Raises:
        DataError: naming what is missing or malformed, and the setting.
    """
    seen = _SOURCES[params.prepare.source](params, project.root)
    if params.index.encoder != "tfidf" and any(METHODS[name].needs_index for name in params.grid.methods):
        _require_folder(project.root, params.index.encoder, "index.encoder")
    prepared = prepared_tasks(project)
    unchecked = list(seen.unchecked)
    if not _is_local(project.root, params.prepare.tokenizer) and params.prepare.tokenizer not in ("word", "bpe"):
        unchecked.append(f"prepare.tokenizer {params.prepare.tokenizer} on the hub")
    return Suite(prepared or seen.tasks, tuple(unchecked))


def prepared_tasks(project: Project) -> TaskCounts | None:
    """The tasks that the prepare stage has written, if it ran."""
    path = project.output("prepare") / TASKS
    if not path.exists():
        return None
    rows = read_json(path)["tasks"]
    training = [row for row in rows if row["role"] == "training"]
    return TaskCounts(len(training), len({row["dataset"] for row in training}), sum(row["role"] == "test" for row in rows))


def vocab_size(params: PrepareParams, project: Project) -> int:
    """Entries of the tokenizer, or how many it has at most if prepare has not run."""
    facts = facts_in(project.output("prepare"), PrepareFacts)
    return facts.vocab_size if facts else params.vocab_size


def pipeline_gaps(params: Params, project: Project) -> list[str]:
    """Say how dvc.yaml falls short of params.yaml: `mhrctl init` writes it once, and edits of params.yaml may outgrow it.

    A stage whose command is the user's own is left alone, and so is whatever dvc.yaml has besides.

    Returns:
        One line for whatever a stage reads or writes with these params and does not name, or names and does not write.
    """
    path, yaml = project.root / "dvc.yaml", YAML(typ="safe", pure=True)
    if not path.exists():
        return []
    try:
        own = yaml.load(path)["stages"]
    except (MarkedYAMLError, LookupError, TypeError):
        return [f"{path}: no stages can be read from it; `dvc status` says why"]
    wanted = yaml.load(dvc_yaml(params))["stages"]
    gaps = [f"has no stage {name}" for name in wanted if name not in own]
    for name in [name for name in wanted if name in own and _body(own[name]).get("cmd") == _body(wanted[name])["cmd"]]:
        has, needs = _named(own[name]), _named(wanted[name])
        gaps += [f"stage {name} does not name {section} {word}" for section, word in sorted(needs - has)]
        unwritten = sorted((section, word) for section, word in has - needs if section in WRITTEN)
        gaps += [f"stage {name} names {section} {word}, but will not write it" for section, word in unwritten]
    return [f"{path}: {gap}" for gap in gaps]


def _body(stage: Any) -> Mapping[str, Any]:  # noqa: ANN401 - what YAML holds
    """A stage of dvc.yaml, for one cell if it has many; empty for what is none."""
    body = stage.get("do", stage) if isinstance(stage, Mapping) else None
    return body if isinstance(body, Mapping) else {}


def _named(stage: Any) -> set[tuple[str, str]]:  # noqa: ANN401
    """What a stage names, such as (outs, data/index) and (params, data/cells/versions.json index)."""
    items = [(section, item) for section in (*READ, *WRITTEN) for item in _body(stage).get(section, [])]
    named = {(section, item) for section, item in items if isinstance(item, str)}
    for section, path, more in [(section, *pair) for section, item in items if isinstance(item, dict) for pair in item.items()]:
        named |= {(section, f"{path} {key}") for key in more} if isinstance(more, list) else {(section, path)}
    return named


def _compositional(_params: Params, _root: Path) -> Suite:
    from mhrctl.suites.compositional import read_compositional

    return Suite(_counted([(task.role, task.dataset or task.name) for task in read_compositional().tasks]))


def _jsonl(params: Params, root: Path) -> Suite:
    from mhrctl.evaluation.metrics import OVER_CHOICES
    from mhrctl.suites.jsonl import read_jsonl

    path = root / str(params.prepare.path)
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
    if sum(file.stat().st_size for file in files) > READABLE:
        return Suite(None, (f"the lines of {path}, which are many",))
    tasks = read_jsonl(path, metrics=OVER_CHOICES).tasks
    return Suite(_counted([(task.role, task.dataset or task.name) for task in tasks]))


def _superni(params: Params, root: Path) -> Suite:
    from mhrctl.suites.superni.tasks import FORM, SPLITS, TASKS, named_tasks

    chosen = params.prepare.test_tasks
    if params.prepare.hub is not None:
        number = len(named_tasks(chosen)) if chosen else TASKS["test"]
        return Suite(TaskCounts(TASKS["training"], TASKS["training"], number), (f"prepare.hub {params.prepare.hub}",))
    path = root / str(params.prepare.path)
    names: dict[str, list[str]] = {}
    for role, file in SPLITS.items():
        split = path / "splits" / "default" / file
        if not split.is_file():
            raise DataError(f"{split}: no such file; prepare.path must be {FORM}")
        names[role] = split.read_text().split()
        for name in names[role]:
            if not (path / "tasks" / f"{name}.json").is_file():
                raise DataError(f"{split}: names {name}, but there is no {path / 'tasks' / name}.json")
    tests = named_tasks(chosen, names["test"]) if chosen else names["test"]
    return Suite(TaskCounts(len(names["training"]), len(names["training"]), len(tests)))


def _t0(params: Params, root: Path) -> Suite:
    from mhrctl.suites.t0.held_out import HUB, T0_TEST_TASKS
    from mhrctl.suites.t0.p3 import p3_templates
    from mhrctl.suites.t0.promptsource import FORM

    prepare, own = params.prepare, params.prepare.t0
    tests = prepare.test_tasks or list(T0_TEST_TASKS)
    for name in [*tests, *own.training_few_shot]:
        if name not in T0_TEST_TASKS:
            raise DataError(f"prepare.test_tasks: {unknown('T0 test task', name, T0_TEST_TASKS)}")
    unchecked = [] if prepare.hub is None else [f"prepare.hub {prepare.hub}"]
    if prepare.path:
        _require_folder(root, prepare.path, "prepare.path")
    if own.few_shot:
        _few_shot_sets(params, root, tests)
    if own.promptsource:
        checkout = root / own.promptsource
        homes = (checkout / "promptsource" / "templates", checkout / "templates")
        if not any((home / "super_glue").is_dir() for home in homes):
            raise DataError(f"{checkout}: no templates in it; prepare.t0.promptsource must be {FORM}")
    if own.evaluation == HUB and not own.evaluation_seeds:
        unchecked.append("evaluation splits on the hub")
    elif own.evaluation != HUB:
        _require_folder(root, own.evaluation, "prepare.t0.evaluation")
    templates = p3_templates()
    datasets = len({template.data_set for template in templates})
    training = len(templates) if own.by == "template" else datasets
    known = None if own.training_few_shot or prepare.path else TaskCounts(training, datasets, len(tests))
    return Suite(known, tuple(unchecked))


def _few_shot_sets(params: Params, root: Path, tests: Sequence[str]) -> None:
    """See that every test task has the few-shot set of every seed that reads one."""
    from mhrctl.suites.t0.few_shot import few_shot_files
    from mhrctl.suites.t0.held_out import T0_TEST_TASKS

    own = params.prepare.t0
    folder = root / str(own.few_shot)
    for name in [*tests, *own.training_few_shot]:
        task = T0_TEST_TASKS[name]
        shots = own.anli_shots if task.shots != task.paper_shots else task.shots
        files = few_shot_files(folder, name, shots=shots)
        wanted = {*own.seeds, *own.evaluation_seeds} | (set(params.grid.seeds) if params.adapt.shots is None else set())
        if missing := sorted(wanted - set(files)):
            raise DataError(
                f"{folder}: task {name} has no few-shot set of seed {missing[0]} (it has {', '.join(map(str, files))});"
                " change grid.seeds or prepare.t0"
            )


_SOURCES: dict[str, Callable[[Params, Path], Suite]] = {
    "compositional": _compositional,
    "jsonl": _jsonl,
    "superni": _superni,
    "t0": _t0,
}


def _counted(tasks: Sequence[tuple[str, str]]) -> TaskCounts:
    """Count tasks of (role, data set)."""
    training = [dataset for role, dataset in tasks if role == "training"]
    return TaskCounts(len(training), len(set(training)), sum(role == "test" for role, _ in tasks))


def _is_local(root: Path, name: str) -> bool:
    return (root / name).is_dir()


def _require_folder(root: Path, path: str, setting: str) -> None:
    """Complain of a folder that is not there; what looks like a hub id may be one."""
    if not _is_local(root, path) and (setting != "index.encoder" or path.startswith((".", "/"))):
        raise DataError(f"{root / path}: no such folder; set {setting}")
