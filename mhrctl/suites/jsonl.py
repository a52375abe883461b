"""The user's own tasks are JSON Lines, one file a task or a `task` field in each line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError, model_validator

from mhrctl.config.params import Params
from mhrctl.config.tasks import TRAINED_TOKENIZERS, PrepareParams
from mhrctl.errors import DataError, unknown
from mhrctl.progress import Track
from mhrctl.suites.files import DataFiles, data_files
from mhrctl.suites.reading import READABLE, Record, describe, parse, read_text
from mhrctl.suites.task import Example, Metrics, Role, Seen, Suite, Task, TaskCounts

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
T = TypeVar("T")
ENDING = ".jsonl"
POOLS = "only a pool (`mhrctl init --pool`), with a prepare.tokenizer that is not trained here, does without"
ROLES: tuple[Role, ...] = ("training", "test")
NEARLY: dict[str, Role] = {"training": "training", "trainings": "training", "test": "test", "tests": "test", "testing": "test"}
"""{name of a folder, in small letters: the role that it can only mean}; a folder `train` means what is the default anyway."""

ALIASES = {
    **dict.fromkeys(("inputs", "prompt", "question", "text", "sentence", "source", "query"), "input"),
    **dict.fromkeys(("output", "label", "answer", "completion", "response", "summary"), "target"),
    **dict.fromkeys(("outputs", "labels", "answers", "references"), "targets"),
    **dict.fromkeys(("instruction", "instructions", "description"), "definition"),
    **dict.fromkeys(("options", "candidates", "classes"), "choices"),
}
"""{what others call a key: the key}, for one who has lines of another form."""


class Line(Record):
    """A line is one example. The README describes the keys."""

    input: str
    target: str | None = None
    targets: list[str] | None = None
    choices: list[str] | None = None
    definition: str | None = None
    split: Literal["train", "validation", "test"] | None = None
    role: Literal["training", "test"] | None = None
    task: str | None = None
    metric: str | None = None
    id: str | None = None

    @model_validator(mode="after")
    def _targets_fit(self) -> Line:
        if (self.target is None) == (self.targets is None):
            raise ValueError("give either `target` (a string) or `targets` (a list of strings)")
        if not self.references or not all(text.strip() for text in self.references):
            raise ValueError("a target is empty")
        if self.choices is not None and not set(self.references) <= set(self.choices):
            raise ValueError(f"target {self.references[0]!r} is not one of the choices {self.choices}")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        """The targets, however they are given."""
        return (self.target,) if self.target is not None else tuple(self.targets or ())


class NoRoleError(DataError):
    """No task has a role that some must have.

    Attributes:
        names: of the tasks; empty if some have roles by a line or a folder.
        examples: of all of them.
    """

    def __init__(self, message: str, names: Sequence[str], examples: int) -> None:
        super().__init__(message)
        self.names, self.examples = names, examples


@dataclass
class _Draft:
    """A task while its lines are read.

    Attributes:
        name: of the task.
        file: that has its first line.
        by_file: whether the task is named by that file, in some line at least.
        role: as far as a line or a folder says it; likewise what follows.
        definition: in words.
        choices: whether its lines have answer choices.
        metric: of its answers.
        examples: by id.
    """

    name: str
    file: Path
    by_file: bool = False
    role: Role | None = None
    definition: str | None = None
    choices: bool | None = None
    metric: str | None = None
    examples: dict[str, Example] = field(default_factory=dict)


def read(params: PrepareParams, root: Path, *, metrics: Metrics, track: Track) -> Suite:  # noqa: ARG001 - of every source
    """Read the folder or file that `prepare.path` names."""
    return read_jsonl(root / str(params.path), metrics=metrics, tests=params.test_tasks, needs=needed_roles(params))


def check(params: Params, root: Path, *, metrics: Metrics) -> Seen:
    """Read all lines, unless they are many."""
    path = root / str(params.prepare.path)
    inside = _files(path)
    if sum(file.stat().st_size for file in inside.files) > READABLE:
        return Seen(None, (f"the lines of {path}, which are many",), inside.notes)
    suite = read_jsonl(path, metrics=metrics, tests=params.prepare.test_tasks, needs=needed_roles(params.prepare))
    suite.chosen(params.prepare.test_tasks)
    return Seen(TaskCounts.of(suite.tasks), notes=suite.notes)


def needed_roles(params: PrepareParams) -> Sequence[Role]:
    """Return the roles that some tasks must have: without training tasks there can be no tokenizer that is trained on them."""
    return ROLES if params.tokenizer in TRAINED_TOKENIZERS else ("test",)


def read_jsonl(path: Path, *, metrics: Metrics, tests: Sequence[str] = (), needs: Sequence[Role] = ROLES) -> Suite:
    """Read the user's tasks.

    Args:
        path: a `.jsonl` file whose lines name their `task`, or a folder of such files or of one file a task (its name
            is the task's). A task is a test task if its lines say `"role": "test"` or its file lies under a subfolder
            `test`. Links are followed, hidden files are not read (`mhrctl.suites.files`).
        metrics: {name that a task may have as its metric: whether the metric is over answer choices}.
        tests: the test tasks, where no line and no folder says a role.
        needs: roles of which there must be a task.

    Raises:
        DataError: naming file and line of what is malformed, or what is missing.
    """
    inside = _files(path)
    if not inside.files:
        raise DataError(f"{path}: {_nothing(path, inside)}; set prepare.path")
    drafts: dict[str, _Draft] = {}
    says_roles = False
    for file in inside.files:
        folder_role, stem = _folder_role(path, file), file.stem
        for where, line in _lines(file):
            name = stem if line.task is None else line.task
            if name not in drafts and not NAME.fullmatch(name):
                allowed = "letters, digits, '.', '_' and '-' only, and must begin with a letter or a digit"
                raise DataError(f"{where}: task name {name!r} may hold {allowed}")
            if folder_role and line.role not in (None, folder_role):
                raise DataError(f"{where}: role {line.role!r} in a folder `{folder_role}`; change one of them")
            _require_metric(line, metrics, where)
            says_roles |= (line.role or folder_role) is not None
            draft = drafts.setdefault(name, _Draft(name, file))
            _require_one_file(draft, file, line, where)
            _add(draft, line, line.role or folder_role, where)
    if not says_roles:
        _make_tests(drafts, tests)
    tasks = [_finished(drafts[name]) for name in sorted(drafts, key=lambda name: (drafts[name].role == "test", name))]
    for role in needs:
        if not any(task.role == role for task in tasks):
            how = f'mark lines with "role": "{role}" or put the task\'s file into a subfolder `{role}`'
            if not says_roles:
                how = f"name some as prepare.test_tasks, {how}" if role == "test" else f"prepare.test_tasks names all; {POOLS}"
            examples = sum(len(task.examples) for task in tasks)
            raise NoRoleError(f"{path}: no {role} task; {how}", [] if says_roles else sorted(drafts), examples)
    return Suite("jsonl", tasks, notes=inside.notes)


def _make_tests(drafts: Mapping[str, _Draft], tests: Sequence[str]) -> None:
    """Make tasks test tasks.

    Raises:
        DataError: if one of them is no task.
    """
    for name in tests:
        if name not in drafts:
            raise DataError(f"prepare.test_tasks: {unknown('task', name, sorted(drafts))}")
        drafts[name].role = "test"


def _files(path: Path) -> DataFiles:
    return data_files(path, [ENDING])


def _nothing(path: Path, inside: DataFiles) -> str:
    """Say why there is no task in a place, and what else is."""
    if not path.is_dir():
        return "no such file or folder"
    others = "; ".join(f"{what} ({count})" for what, count in inside.notes.items())
    return f"no {ENDING} files in it" + (f" ({others})" if others else "")


def _folder_role(path: Path, file: Path) -> Role | None:
    """The role of a file's tasks by the folders that it lies in.

    Raises:
        DataError: if a folder is nearly named for a role.
    """
    folders = file.relative_to(path).parts[:-1]
    for folder in folders:
        role = NEARLY.get(folder.lower())
        if role and folder != role:
            raise DataError(f"{file}: lies in a folder `{folder}`, which says nothing of its role; rename it to `{role}`")
    return next((role for role in ROLES if role in folders), None)


def _require_one_file(draft: _Draft, file: Path, line: Line, where: str) -> None:
    """Require that a task which is named by its file is in no other: two files of one name would be one task."""
    if file == draft.file:
        draft.by_file |= line.task is None
    elif draft.by_file or line.task is None:
        how = "rename one of the files, or name the task in every line as `task`"
        raise DataError(f"{where}: task {draft.name!r} is also in {draft.file}; {how}")


def _lines(path: Path) -> Iterator[tuple[str, Line]]:
    is_empty = True
    for number, text in enumerate(read_text(path).split("\n"), 1):  # splitlines would cut at U+2028, which JSON allows
        if not text.strip():
            continue
        is_empty = False
        content = parse(text, path, number)
        try:
            yield f"{path}:{number}", Line.model_validate(content)
        except ValidationError as error:
            raise DataError(f"{path}:{number}: {describe(error, Line, ALIASES)}") from None
    if is_empty:
        raise DataError(f"{path}: a task without examples; add some or remove the file")


def _require_metric(line: Line, metrics: Mapping[str, bool], where: str) -> None:
    """Require that a metric is a known one, and that a line which names one over answer choices has some."""
    if line.metric is None:
        return
    if line.metric not in metrics:
        raise DataError(f"{where}: {unknown('metric', line.metric, metrics)}")
    if metrics[line.metric] and line.choices is None:
        raise DataError(f"{where}: metric {line.metric!r} is over answer choices; give `choices`, or another metric")


def _add(draft: _Draft, line: Line, role: Role | None, where: str) -> None:
    """Add a line to its task, where role, definition, metric and choices must agree with the lines before it."""
    draft.role = _agreed(draft.role, role or draft.role or "training", "role", where)
    draft.definition = _agreed(draft.definition, line.definition or draft.definition, "definition", where)
    draft.metric = _agreed(draft.metric, line.metric or draft.metric, "metric", where)
    draft.choices = _agreed(draft.choices, line.choices is not None, "use of `choices`", where)
    name = line.id or f"{draft.name}-{len(draft.examples)}"
    if name in draft.examples:
        raise DataError(f"{where}: id {name!r} occurs twice in task {draft.name}")
    draft.examples[name] = Example(name, line.input, line.references, tuple(line.choices or ()), line.split)


def _agreed(before: T | None, now: T, what: str, where: str) -> T:
    if before is not None and before != now:
        raise DataError(f"{where}: {what} {now!r} differs from {before!r} earlier in the same task")
    return now


def _finished(draft: _Draft) -> Task:
    return Task(
        name=draft.name,
        role=draft.role or "training",
        metric=draft.metric or ("accuracy" if draft.choices else "rouge_l"),
        definition=draft.definition or "",
        examples=list(draft.examples.values()),
    )
