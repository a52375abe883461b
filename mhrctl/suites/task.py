"""Every source of tasks hands this to the prepare stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mhrctl.errors import DataError, unknown

Metrics = Mapping[str, bool]
"""{metric that a task may have: whether it is over answer choices}."""
Role = Literal["backbone", "training", "test"]
Split = Literal["train", "validation", "test", "pool"]


@dataclass(frozen=True)
class Example:
    """An example is one input of a task with its references.

    Attributes:
        id: unique within the task.
        input: the task's input text, before any prompt is put around it.
        targets: the references, at least one.
        choices: the answer choices, empty for free text.
        split: where the source puts the example; None leaves that to the prepare stage.
        seeds: the seeds whose few-shot set the example belongs to; empty leaves that to the draw of shots.
        group: what it is a rendering of; training draws one rendering of a group at each access. Empty: it stands alone.
        turns: (role, content) of the messages that the input is, where the source keeps inputs as conversations.
    """

    id: str
    input: str
    targets: tuple[str, ...]
    choices: tuple[str, ...] = ()
    split: Split | None = None
    seeds: tuple[int, ...] = ()
    group: str = ""
    turns: tuple[tuple[str, str], ...] = ()


class Stream(Protocol):
    """A stream reads examples anew at each call."""

    def __call__(self, notes: Counter[str] | None = None) -> Iterator[Example]:
        """Read them.

        Args:
            notes: {what: count} of rows that are left out, to which the reading adds.
        """


@dataclass(frozen=True)
class Task:
    """A task is a named set of examples.

    Attributes:
        name: unique within the suite.
        role: `training` (seen in pre-training), `test` (adapted to, and evaluated on), or `backbone` (only for a backbone
            trained from scratch).
        metric: what an answer is scored by, a name of `mhrctl.evaluation.metrics`.
        definition: what to do, in words; empty if the source has none.
        examples: in the source's own order, which splits rely on.
        positives: worked (input, output) pairs that a prompt may show.
        dataset: the data set that the task is a template of; empty if it is one of its own.
        stream: reads the examples of a training task that is too large to hold, as often as it is called, and counts what it
            leaves out; `examples` is empty then.
        stream_train: of a streamed task, the examples that are kept to train on, drawn at random; None keeps all.
        stream_validation: of a streamed task, the examples that are held out at most.
        keeps_splits: whether the splits of its examples are as they must be: whole, with nothing else put into them.
    """

    name: str
    role: Role
    metric: str
    definition: str
    examples: Sequence[Example]
    positives: tuple[tuple[str, str], ...] = ()
    dataset: str = ""
    stream: Stream | None = None
    stream_train: int | None = None
    stream_validation: int = 100
    keeps_splits: bool = False


class Prompter(Protocol):
    """A prompter makes what puts a task's prompt around its inputs."""

    def __call__(self, task: Task, count: Callable[[str], int], cut: Callable[[str, int], str]) -> Callable[[str], str]:
        """Make it.

        Args:
            task: gives name, definition and worked examples.
            count: the tokens of a text, end token included.
            cut: a text's beginning of so many tokens.
        """


@dataclass
class Suite:
    """A suite is the tasks of a source, and what of the source was left out.

    Attributes:
        name: the source's name.
        tasks: training tasks first, each part sorted by name.
        dropped: {task name: reason} for tasks that the source has but the suite has not.
        notes: {what: count} of anything smaller that was dropped or changed on the way.
        named: turns the names of `prepare.test_tasks` into those of test tasks, given all of these, where the source has names
            for lists of them, or spells them otherwise; None takes them as they are.
        prompter: the source's own wording of prompts; None puts definition and input together.
    """

    name: str
    tasks: list[Task]
    dropped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    named: Callable[[Sequence[str], Collection[str]], list[str]] | None = None
    prompter: Prompter | None = None

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Return the test tasks that `prepare.test_tasks` names; all, if it names none.

        Raises:
            DataError: if one of them is no test task.
        """
        known = [task.name for task in self.tasks if task.role == "test"]
        if self.named:
            names = self.named(names, known)
        for name in names:
            if name not in known:
                raise DataError(f"prepare.test_tasks: {unknown('test task', name, known)}")
        return list(names) or known

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for task in self.tasks:
            if task.name in seen:
                raise DataError(f"suite {self.name}: task {task.name!r} occurs twice; rename one of them")
            seen.add(task.name)


@dataclass(frozen=True)
class TaskCounts:
    """Counts say how many tasks a suite has: to train on, data sets of these, and to test on."""

    training: int
    datasets: int
    test: int

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> TaskCounts:
        """Count tasks."""
        training = [task.dataset or task.name for task in tasks if task.role == "training"]
        return cls(len(training), len(set(training)), sum(task.role == "test" for task in tasks))


@dataclass(frozen=True)
class Seen:
    """This is what a look at a source's files has shown, before anything is read in full.

    Attributes:
        tasks: how many there are; None if only `mhrctl prepare` can tell.
        unchecked: what could not be looked at, in words.
        notes: {what: count} of what was passed over, as a suite's.
    """

    tasks: TaskCounts | None
    unchecked: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)
