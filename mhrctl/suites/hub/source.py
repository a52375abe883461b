"""The source `hub` reads data sets as `datasets` does. A task is a data set, one of its configurations, or a value of a column.

Training tasks that are whole data sets are streamed. Of training tasks by a column, no more rows are held than their splits
can take; test tasks are held in full, in an order that is drawn, since many a data set is sorted by its answers.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mhrctl.config.params import Params
from mhrctl.config.tasks import DataSetParams, PrepareParams, SplitsParams
from mhrctl.errors import DataError, listed, unknown
from mhrctl.progress import Track, silent
from mhrctl.suites.hub.opening import DataSet, beside, chosen_split, open_splits
from mhrctl.suites.hub.rows import Columns, RowReader
from mhrctl.suites.reading import READABLE
from mhrctl.suites.task import Example, Metrics, Role, Seen, Suite, Task, TaskCounts

HELD = 2
"""Rows of a training task by a column that are held, as a multiple of `examples`: enough for train and validation."""
NOT_DRAWN = "rows of training tasks that were not drawn"


@dataclass(frozen=True)
class Part:
    """A part is a data set, or one of several configurations, with the role of its tasks.

    Attributes:
        data: the data set.
        columns: which columns say what.
        splits: which splits to read.
        setting: where in params.yaml it is named.
        name: of its only task; of tasks by a column, what their names begin with.
        prefix: whether they begin with it.
        is_test: whether a task, by its name, is a test task.
        strict: reject the first row that cannot be used.
    """

    data: DataSet
    columns: Columns
    splits: SplitsParams
    setting: str
    name: str
    prefix: bool
    is_test: Callable[[str], bool]
    strict: bool

    def task(self, value: str) -> str:
        """Return the name of the task of a column's value."""
        return task_name(f"{self.name}_{value}" if self.prefix else value)

    def readers(self, max_rows: int | None) -> tuple[RowReader, Callable[[], RowReader | None]]:
        """Return what reads the split to train on and, if it is asked for, that to score test tasks on."""
        splits = open_splits(self.data, text=self.columns.text, max_rows=max_rows)
        train = chosen_split(self.data, splits, self.splits.train, f"{self.setting}.splits.train")

        def scored() -> RowReader | None:
            if self.splits.test is None and (splits.get("test") in (None, train)):
                return None
            test = chosen_split(self.data, splits, self.splits.test or "test", f"{self.setting}.splits.test")
            return RowReader.of(test, self.columns, strict=self.strict)

        return RowReader.of(train, self.columns, strict=self.strict), scored


@dataclass
class _Draft:
    """A task by a column while rows are read.

    Attributes:
        value: of the column.
        limit: rows to hold, each row of the task with the same chance; None holds all.
        rng: draws them.
        train: rows to train on, or to adapt with.
        scored: rows to score.
        seen: rows to train on so far.
    """

    value: str
    limit: int | None
    rng: random.Random
    train: list[Example] = field(default_factory=list)
    scored: list[Example] = field(default_factory=list)
    seen: int = 0

    def add(self, example: Example) -> None:
        """Hold a row, or leave it out by lot."""
        self.seen += 1
        if self.limit is None or len(self.train) < self.limit:
            self.train.append(example)
        elif (place := self.rng.randrange(self.seen)) < self.limit:
            self.train[place] = example


def read(params: PrepareParams, root: Path, *, metrics: Metrics, track: Track) -> Suite:
    """Read the tasks of the data set, and of that of test tasks if there is one."""
    parts = _parts(params, root)
    suite = Suite("hub", [], named=lambda names, _known: [task_name(name) for name in names])
    tasks: list[Task] = []
    with track("read data sets", len(parts)) as bar:
        for part in parts:
            suite.notes |= beside(part.data)
            tasks += _tasks(part, params, metrics, suite)
            bar.advance(note=part.data.where)
    _require_tests(params, tasks, parts[0].data)
    tasks.sort(key=lambda task: (task.role == "test", task.name))
    return replace(suite, tasks=tasks)


def check(params: Params, root: Path, *, metrics: Metrics) -> Seen:
    """Read local data sets in full unless they are large, else their first rows; what is on the hub is not looked at."""
    prepare = params.prepare
    parts = _parts(prepare, root)
    paths = {part.data.place for part in parts if isinstance(part.data.place, Path)}
    unchecked = [f"{part.setting}.hub {part.data.place}" for part in parts if not isinstance(part.data.place, Path)]
    large = [path for path in paths if _size(path) > READABLE]
    if not unchecked and not large:
        suite = read(prepare, root, metrics=metrics, track=silent)
        notes = Counter(suite.notes)
        for task in suite.tasks:
            for _ in task.stream(notes) if task.stream else ():
                pass  # reading complains of rows that cannot be used, or counts them
        chosen = {task_name(name) for name in prepare.test_tasks}
        used = [task for task in suite.tasks if task.role != "test" or not chosen or task.name in chosen]
        return Seen(TaskCounts.of(used), notes=notes)
    seen: dict[str, int] = {}
    for part in parts:
        if part.data.place in paths:
            seen |= beside(part.data)
            part.readers(prepare.max_rows)
    return Seen(None, (*dict.fromkeys(unchecked), *(f"the rows of {path}, which are many" for path in large)), seen)


def task_name(value: str) -> str:
    """Return a name for a task that can stand in a file's name."""
    return re.sub(r"[^\w.-]+", "_", value).strip("._-") or "_"


def _parts(params: PrepareParams, root: Path) -> list[Part]:
    """The data sets to read: that of `prepare`, by its configurations, and that of `prepare.test`."""
    test = params.test
    named = {task_name(name) for name in params.test_tasks}
    parts = _configurations(params, "prepare", root, params, (lambda _: False) if test else named.__contains__)
    if test is not None:
        names = {part.name for part in parts}
        more = _configurations(test, "prepare.test", root, params, lambda _: True)
        parts += [replace(part, name=f"{part.name}_test") if part.name in names else part for part in more]
    return parts


def _configurations(
    place: PrepareParams | DataSetParams, setting: str, root: Path, params: PrepareParams, is_test: Callable[[str], bool]
) -> list[Part]:
    where = root / place.path if place.path else str(place.hub)
    configs: Sequence[str | None] = place.config if isinstance(place.config, list) else [place.config]
    columns = Columns(**(place.columns or params.columns).model_dump())
    parts = []
    for config in configs:
        data = DataSet(where, place.revision, config)
        name = task_name(str(config) if len(configs) > 1 else data.name)
        splits = place.splits or params.splits
        parts.append(Part(data, columns, splits, setting, name, len(configs) > 1, is_test, params.strict))
    return parts


def _tasks(part: Part, params: PrepareParams, metrics: Metrics, suite: Suite) -> list[Task]:
    """The tasks of a data set."""
    reader, scored = part.readers(params.max_rows)
    metric = _metric(params.metric, metrics, reader)
    if part.columns.task is not None:
        return _by_column(part, reader, scored, metric, params, suite)
    if part.is_test(part.name):
        rows = scored()
        notes: Counter[str] = Counter()
        scores = [*rows.examples(notes)] if rows else []
        task = _test_task(part.name, metric, reader.examples(notes), scores, params.seed)
        suite.notes |= notes
        return [task]
    size = params.examples
    return [Task(part.name, "training", metric, "", [], stream=reader.examples, stream_train=size, stream_validation=size)]


def _by_column(
    part: Part,
    reader: RowReader,
    scored: Callable[[], RowReader | None],
    metric: str,
    params: PrepareParams,
    suite: Suite,
) -> list[Task]:
    """The tasks of a data set that a column names."""
    drafts: dict[str, _Draft] = {}

    def draft(value: str, where: str) -> _Draft:
        name = part.task(value)
        limit = None if part.is_test(name) else HELD * params.examples
        each = drafts.setdefault(name, _Draft(value, limit, random.Random(f"{params.seed}/{name}")))
        if each.value != value:
            raise DataError(f"{where}: tasks {each.value!r} and {value!r} would both be named {name!r}; rename one of them")
        return each

    notes: Counter[str] = Counter()
    for value, example in reader.rows(notes):
        draft(str(value), reader.split.where).add(example)
    test = scored() if any(map(part.is_test, drafts)) or params.test_tasks else None
    for value, example in test.rows(notes) if test else ():
        if part.is_test(part.task(str(value))):
            draft(str(value), str(test and test.split.where)).scored.append(example)
    suite.notes |= notes
    tasks = []
    for name, each in drafts.items():
        if part.is_test(name):
            tasks.append(_test_task(name, metric, each.train, each.scored, params.seed))
            continue
        tasks.append(Task(name, "training", metric, "", each.train))
        if left_out := each.seen - len(each.train):
            suite.notes[NOT_DRAWN] = suite.notes.get(NOT_DRAWN, 0) + left_out
    return tasks


def _test_task(name: str, metric: str, train: Iterable[Example], scored: Iterable[Example], seed: int) -> Task:
    """A test task: the rows to score, if a split has them, and the rest, in an order that is drawn."""
    rest = [replace(example, id=f"train/{example.id}") for example in train]
    tests = [replace(example, id=f"test/{example.id}", split="test") for example in scored]
    for rows in (rest, tests):
        random.Random(f"{seed}/{name}").shuffle(rows)
    return Task(name, "test", metric, "", [*tests, *rest])


def _metric(wanted: str | None, metrics: Metrics, reader: RowReader) -> str:
    """The metric of a data set's tasks.

    Raises:
        DataError: if there is no such metric, or it is over answer choices and there are none.
    """
    if wanted is not None and wanted not in metrics:
        raise DataError(f"prepare.metric: {unknown('metric', wanted, metrics)}")
    if wanted is not None and metrics[wanted] and not reader.has_choices:
        raise DataError(
            f"{reader.split.where}: prepare.metric {wanted} needs answer choices; name their column as prepare.columns.choices"
        )
    return wanted or ("accuracy" if reader.has_choices else "rouge_l")


def _require_tests(params: PrepareParams, tasks: Sequence[Task], data: DataSet) -> None:
    """Check that there are test tasks, and that all that are named are among them.

    Raises:
        DataError: naming the tasks that there are.
    """
    by_role: dict[Role, list[str]] = {"training": [], "test": []}
    for task in tasks:
        by_role[task.role].append(task.name)
    known = sorted(by_role["test"] if params.test else by_role["training"] + by_role["test"])
    for name in params.test_tasks:
        if task_name(name) not in known:
            raise DataError(f"prepare.test_tasks: {unknown('task', name, known)}")
    if by_role["test"]:
        return
    if len(known) == 1:
        raise DataError(
            f"{data.where}: is one task, {known[0]!r}; name the column of its tasks as prepare.columns.task, "
            "or give a data set of test tasks as prepare.test"
        )
    raise DataError(f"prepare.test_tasks: name the test tasks among those of {data.where}: {listed(known)}")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path] if path.is_file() else []
    return sum(file.stat().st_size for file in files if file.is_file())
