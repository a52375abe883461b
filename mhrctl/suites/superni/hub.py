"""Super-NaturalInstructions is read from its mirrors on the Hugging Face hub: docs/recipe.md, section 2.2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mhrctl.errors import DataError, unknown
from mhrctl.progress import Track, silent
from mhrctl.suites.reading import OddRecords, describe, hub_errors
from mhrctl.suites.superni.tasks import NOT_DRAWN, TASKS, Instance, checked_name, drawn, note_size, superni_task
from mhrctl.suites.task import Role, Suite, Task

HUB = "hf://datasets/"
"""The URL of a data set on the hub begins so."""
FOLDERS: dict[Role, str] = {"test": "test", "training": "train"}
"""Test tasks first: a wrong name of one is rejected before the training tasks, most of the bytes, are read."""
Pair = tuple[str, str]


class Row(BaseModel):
    """This is a row of `Muennighoff/natural-instructions`: one reference of one instance. Unused columns are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    worked_examples: ClassVar[int] = 0

    task_name: str
    id: str
    definition: str
    inputs: str
    targets: str

    @property
    def positives(self) -> list[Pair]:
        """The task's worked (input, output) pairs, as many as the mirror has."""
        return []

    @property
    def comes_first(self) -> bool:
        """Whether the instance is marked as one of its task's first."""
        return False


class RowWithExamples(Row):
    """This is a row of `jayelm/natural-instructions`: two worked examples of the task, and a mark on its first instances."""

    worked_examples: ClassVar[int] = 2

    eval: bool
    pos_0_input: str | None
    pos_0_output: str | None
    pos_1_input: str | None
    pos_1_output: str | None

    @property
    def positives(self) -> list[Pair]:
        """The worked pairs that are there."""
        pairs = [(self.pos_0_input, self.pos_0_output), (self.pos_1_input, self.pos_1_output)]
        return [(text, answer) for text, answer in pairs if text is not None and answer is not None]

    @property
    def comes_first(self) -> bool:
        """Whether `eval` marks it: the first 100 instances of a test task, the first 15 of a training task."""
        return self.eval


MIRRORS: dict[str, type[Row]] = {
    "Muennighoff/natural-instructions": Row,
    "jayelm/natural-instructions": RowWithExamples,
}


def read_superni_hub(
    name: str,
    *,
    revision: str,
    test_tasks: Collection[str] = (),
    training_instances: int | None = None,
    positives: int = 0,
    strict: bool = False,
    track: Track = silent,
) -> Suite:
    """Read a mirror on the hub, as a stream.

    Args:
        name: one of `MIRRORS`.
        revision: a commit, tag or branch of the mirror.
        test_tasks: the test tasks to keep; empty keeps all.
        training_instances: the most instances of a training task to keep (`mhrctl.suites.superni.tasks.drawn`); None keeps
            all, which are several gigabytes. Test tasks are kept whole, since their first instances are the test set.
        positives: how many worked examples of a task will be shown; a mirror that has fewer is refused.
        strict: reject the first row that cannot be read; else they are left out and counted, unless they are more than half.
        track: shows progress, a step a task.

    Returns:
        The suite that `read_superni` makes of the same instances. Rows that repeat an id and an input are one instance with
        several references. The mirrors say nothing of upstream's excluded tasks.

    Raises:
        DataError: if the mirror is none, cannot be reached, or has not what is asked for.
    """
    if name not in MIRRORS:
        raise DataError(f"prepare.path: {unknown('mirror of Super-NaturalInstructions', name, MIRRORS)}")
    row = MIRRORS[name]
    if positives > row.worked_examples:
        raise DataError(
            f"{name}: has {row.worked_examples or 'no'} positive examples a task, not the {positives} of "
            "prepare.positive_examples; lower it, or use a clone of upstream"
        )
    place = f"{HUB}{name}@{revision}"
    return read_mirror(place, row, test_tasks=test_tasks, training_instances=training_instances, strict=strict, track=track)


def read_mirror(
    place: str,
    row: type[Row],
    *,
    test_tasks: Collection[str],
    training_instances: int | None,
    strict: bool = False,
    track: Track = silent,
) -> Suite:
    """Read a mirror from where it lies.

    Args:
        place: a URL of fsspec, or a folder; with JSON Lines in `train/` and `test/`.
        row: what its rows hold.
        test_tasks: as `read_superni_hub` has it.
        training_instances: likewise.
        strict: likewise.
        track: likewise.
    """
    notes: Counter[str] = Counter()
    odd = OddRecords(strict)
    dropped: dict[str, str] = {}
    tasks: dict[Role, list[Task]] = {}
    for role, folder in FOLDERS.items():
        where = f"{place}/{folder}"
        limit = training_instances if role == "training" else None
        only = test_tasks if role == "test" else ()
        drafts = _drafts(where, row, limit=limit, only=only, track=track, total=TASKS[role], odd=odd)
        if not drafts:
            raise DataError(f"{where}: holds no JSON Lines; check the revision, or use a clone of upstream")
        note_size(notes, role, len(drafts))
        if role == "test":
            _require(test_tasks, drafts, where)
        dropped |= {name: "not in prepare.test_tasks" for name, draft in drafts.items() if draft is None}
        kept = sorted((name, draft) for name, draft in drafts.items() if draft is not None)
        tasks[role] = [_task(name, role, draft, limit, notes, where) for name, draft in kept]
    return Suite(
        "superni", tasks["training"] + tasks["test"], dropped=dict(sorted(dropped.items())), notes=dict(notes) | odd.notes
    )


@dataclass
class _Draft:
    """A task while its rows are read.

    Attributes:
        definition: of the task, in its first row.
        positives: likewise.
        instances: by id and input, in the order of their first rows.
        first: those marked as the task's first.
        seen: instances so far, taking an instance's rows to stand together.
        last: the instance of the row before.
    """

    definition: str
    positives: list[Pair]
    instances: dict[Pair, Instance] = field(default_factory=dict)
    first: set[Pair] = field(default_factory=set)
    seen: int = 0
    last: Pair | None = None

    def add(self, row: Row, limit: int | None) -> None:
        """Add a reference to the row's instance; now and then drop instances that will not be among the `limit` drawn."""
        key = row.id, row.inputs
        self.seen += key != self.last
        self.last = key
        before = self.instances.get(key)
        self.instances[key] = Instance(row.id, row.inputs, [*(before.outputs if before else ()), row.targets])
        if row.comes_first:
            self.first.add(key)
        if limit is not None and len(self.instances) > 2 * limit:
            self.instances = {(str(kept.id), kept.input): kept for kept in drawn(list(self.instances.values()), limit)}

    def ordered(self) -> list[Instance]:
        """The instances in upstream's order: as they came, but marked ones first should a mirror have moved them."""
        return [self.instances[key] for key in sorted(self.instances, key=lambda key: key not in self.first)]


def _task(name: str, role: Role, draft: _Draft, limit: int | None, notes: Counter[str], where: str) -> Task:
    instances = drawn(draft.ordered(), limit)
    if limit is not None and draft.seen > limit:
        notes[NOT_DRAWN] += draft.seen - len(instances)
    return superni_task(
        name,
        role,
        definition=draft.definition,
        positives=draft.positives,
        instances=instances,
        notes=notes,
        where=f"{where}: {name}",
    )


def _drafts(
    where: str, kind: type[Row], *, limit: int | None, only: Collection[str], track: Track, total: int, odd: OddRecords
) -> dict[str, _Draft | None]:
    """The tasks of a folder by name; None for those that `only` leaves out."""
    drafts: dict[str, _Draft | None] = {}
    number = 0
    with track(f"read {where}", total) as bar:
        for number, text in enumerate(_lines(where), 1):
            try:
                row = kind.model_validate_json(text)
            except ValidationError as error:
                odd.add(f"rows of {where.rpartition('/')[2]}", f"{where}: row {number}: {describe(error, kind)}")
                continue
            name = row.task_name
            if name not in drafts:
                checked_name(name, f"{where}: row {number}")
                drafts[name] = _Draft(row.definition, row.positives) if not only or name in only else None
                bar.advance(note=name)
            if draft := drafts[name]:
                draft.add(row, limit)
    odd.require_few(f"rows of {where.rpartition('/')[2]}", number)
    return drafts


def _lines(where: str) -> Iterator[str]:
    """The lines of a folder's files, as they are.

    They are read as text: `datasets` reads JSON by a schema that it infers, in which answers such as 2018-09-03 become dates.
    """
    from datasets import load_dataset

    repository = where.removeprefix(HUB).partition("@")[0] if where.startswith(HUB) else None
    with hub_errors(where, "check revision and network, or use a clone of upstream", opens=repository):
        for record in load_dataset("text", data_files={"all": f"{where}/*.json*"}, split="all", streaming=True):
            yield record["text"]


def _require(names: Collection[str], known: Collection[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"prepare.test_tasks: {unknown('test task', name, sorted(known))} in {where}")
