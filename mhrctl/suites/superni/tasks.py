"""Super-NaturalInstructions is read from a clone of its upstream repository: docs/recipe.md, section 2."""

from __future__ import annotations

import json
import re
import reprlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from mhrctl.errors import DataError, unknown
from mhrctl.suites.files import DataFiles, data_files
from mhrctl.suites.jsonl import NAME
from mhrctl.suites.reading import OddRecords, describe, is_unicode, parse, read_text, too_many_odd
from mhrctl.suites.task import Example, Role, Suite, Task

FORM = "a clone of the allenai/natural-instructions repository (git clone --depth 1) with tasks/ and splits/default/"
SPLITS: dict[Role, str] = {"training": "train_tasks.txt", "test": "test_tasks.txt"}
EXCLUDED = "excluded_tasks.txt"
TASKS: dict[Role, int] = {"training": 756, "test": 119}
"""Tasks in the split files that the paper used (docs/recipe.md, section 2.1)."""
UPSTREAM_NAME = re.compile(r"task\d+_")
"""How the names of all tasks of upstream begin."""
NOT_DRAWN = "instances of training tasks that were not drawn"
"""A note: what `training_instances` left out."""


@dataclass(frozen=True)
class Instance:
    """An instance is kept as its source has it; an `id` of None or one that occurs twice is mended by `superni_task`."""

    id: str | None
    input: str
    outputs: Sequence[str]


def read_superni(path: Path, *, training_instances: int | None = None, strict: bool = False) -> Suite:
    """Read the training and test tasks that the default split names.

    Args:
        path: a clone of the upstream repository.
        training_instances: the most instances of a training task to keep, drawn as `drawn` does; None keeps all, which for
            a full clone are several gigabytes. Test tasks are kept whole, since their first instances are the test set.
        strict: reject the first record that cannot be read, such as an instance whose output is a number; else they are left
            out and counted, and a task of which more than half are so is dropped.

    Returns:
        The suite. Instances that were not drawn, or have no input or no reference, are counted. Tasks in no split are
        named, and so are those that only `excluded_tasks.txt` names. A split of another size than the paper's is noted.

    Raises:
        DataError: naming file and line of what is missing or malformed.
    """
    if not (path / "tasks").is_dir():
        raise DataError(f"{path}: no folder `tasks`; prepare.path must be {FORM}")
    notes: Counter[str] = Counter()
    odd = OddRecords(strict)
    tasks: list[Task] = []
    dropped: dict[str, str] = {}
    places: dict[str, str] = {}
    for role, file in SPLITS.items():
        names = _split_names(path, file, places)
        note_size(notes, role, len(names))
        limit = training_instances if role == "training" else None
        for name in sorted(names):
            read = _read_task(path / "tasks" / f"{name}.json", role, notes, limit, odd)
            if isinstance(read, Task):
                tasks.append(read)
            else:
                dropped[name] = read
    inside = task_files(path)
    excluded = path / "splits" / "default" / EXCLUDED
    names_excluded = set(read_text(excluded).split()) if excluded.is_file() else set()
    for name in sorted({file.stem for file in inside.files} - set(places)):
        dropped[name] = f"in {EXCLUDED}" if name in names_excluded else "in no split file"
    return Suite("superni", tasks, dropped=dropped, notes=dict(notes) | odd.notes | inside.notes)


def task_files(path: Path) -> DataFiles:
    """Find the files of tasks in a clone, and what lies beside them."""
    return data_files(path / "tasks", [".json"], deep=False)


def named_tasks(names: Sequence[str], known: Collection[str] | None = None) -> list[str]:
    """Put the tasks of a named list (`few_shot_20`, `zero_shot_20`) in the place of its name.

    Args:
        names: of lists and of test tasks.
        known: the suite's test tasks, which every name must be among; None if they are not known yet.

    Returns:
        Names of tasks, each once, in the order given.

    Raises:
        DataError: naming what is neither a list nor a known task, or a list that the suite has only in part.
    """
    lists = _lists()
    for name in names:
        wanted = lists.get(name, [name])
        missing = [task for task in wanted if not (UPSTREAM_NAME.match(task) if known is None else task in known)]
        if missing and name in lists:
            raise DataError(
                f"prepare.test_tasks: {len(missing)} of the {len(wanted)} tasks of {name!r} are no test tasks of this suite, "
                f"first {missing[0]!r}; use all of upstream's tasks, or name those that there are"
            )
        if missing:
            raise DataError(f"prepare.test_tasks: {unknown('list or test task', name, [*lists, *sorted(known or ())])}")
    return list(dict.fromkeys(task for name in names for task in lists.get(name, [name])))


def drawn(instances: Sequence[Instance], limit: int | None) -> list[Instance]:
    """Draw at most `limit` instances, in their order: those whose id and input have the smallest hashes.

    Each instance is as likely as any other, so a training split drawn from those that are kept is spread as one drawn from all;
    twice `prepare.examples` is enough for it. What is drawn depends on the instances alone: not on their order, a seed, or
    what was left out before.
    """
    if limit is None or len(instances) <= limit:
        return list(instances)
    chosen = sorted(range(len(instances)), key=lambda index: _hash(instances[index]))[:limit]
    return [instances[index] for index in sorted(chosen)]


def superni_task(
    name: str,
    role: Role,
    *,
    definition: str,
    positives: Sequence[tuple[str, str]],
    instances: Sequence[Instance],
    notes: Counter[str],
    where: str,
) -> Task:
    """Make a task of what any form of the data set has of it.

    Args:
        name: of the task.
        role: training or test.
        definition: in words.
        positives: worked (input, output) pairs.
        instances: in upstream's order, whose first are a test task's test set.
        notes: counts what was dropped or changed.
        where: the place that errors name.

    Raises:
        DataError: if no instance can be used.
    """
    examples: dict[str, Example] = {}
    for number, instance in enumerate(instances):
        references = tuple(text.strip() for text in instance.outputs if text.strip())
        if not references or not instance.input.strip():
            notes["instances without a reference" if not references else "instances without an input"] += 1
            continue
        if blank := len(instance.outputs) - len(references):
            notes["blank references"] += blank
        key = instance.id or f"{name}-{number}"
        if key in examples:
            notes["instance ids that occurred twice"] += 1
        while key in examples:
            key = f"{key}-{number}"
        examples[key] = Example(key, instance.input, references)
    if not examples:
        raise DataError(f"{where}: no instance has both an input and a reference")
    return Task(
        name=name,
        role=role,
        metric="rouge_l",
        definition=definition.strip(),
        examples=list(examples.values()),
        positives=tuple(positives),
    )


def checked_name(name: str, where: str) -> str:
    """Return a task's name that can stand in a file name.

    Raises:
        DataError: if it is none.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"{where}: {name!r} is no name of a task (letters, digits, `.`, `_`, `-`)")
    return name


def note_size(notes: Counter[str], role: Role, tasks: int) -> None:
    """Note a split of another size than the paper's; later versions of upstream's training split have a task more."""
    if tasks != TASKS[role]:
        notes[f"{role} tasks in the split, where the paper's has {TASKS[role]}"] = tasks


class _Upstream(BaseModel):
    """A JSON object of the upstream repository; keys that are not used here are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _as_list(value: Any) -> Any:  # noqa: ANN401 - checked by pydantic next
    return [value] if isinstance(value, str) else value


def _as_text(value: Any) -> Any:  # noqa: ANN401
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _unicode(text: str) -> str:
    if not is_unicode(text):
        raise ValueError(f"text {reprlib.repr(text)} holds half of a surrogate pair")
    return text


Text = Annotated[str, AfterValidator(_unicode)]


class _Instance(_Upstream):
    id: Text | None = None
    input: Text
    output: list[Text]

    _id_as_text = field_validator("id", mode="before")(_as_text)
    _one_output = field_validator("output", mode="before")(_as_list)


class _Positive(_Upstream):
    input: Text
    output: list[Text] = Field(min_length=1)

    _one_output = field_validator("output", mode="before")(_as_list)


class _File(_Upstream):
    definition: list[Text] = Field(alias="Definition", min_length=1)
    positives: Any = Field([], alias="Positive Examples")
    instances: list[Any] = Field(alias="Instances")

    _one_definition = field_validator("definition", mode="before")(_as_list)


R = TypeVar("R", bound=_Upstream)
ONCE = frozenset({"Definition", "Positive Examples", "Instances", "id", "input", "output"})
"""Keys that may not stand twice in an object; others are not used here."""


def _lists() -> dict[str, list[str]]:
    """The named lists of test tasks; `superni_lists.json` says where each comes from."""
    content = json.loads((files("mhrctl.suites.superni") / "lists.json").read_text())
    return {name: entry["tasks"] for name, entry in content.items()}


def _hash(instance: Instance) -> bytes:
    return blake2b(f"{instance.id or ''}\n{instance.input}".encode(errors="surrogatepass"), digest_size=8).digest()


def _split_names(path: Path, file: str, places: dict[str, str]) -> list[str]:
    """The names in a split file; `places` remembers where each stood, over all split files."""
    split = path / "splits" / "default" / file
    if not split.is_file():
        raise DataError(f"{split}: no such file; prepare.path must be {FORM}")
    names = []
    for line, text in enumerate(read_text(split).splitlines(), 1):
        if text.strip():
            name = checked_name(text.strip(), f"{split}:{line}")
            task = path / "tasks" / f"{name}.json"
            if not task.is_file():
                raise DataError(f"{split}:{line}: there is no {task}; remove the line or add the task")
            if name in places:
                raise DataError(f"{split}:{line}: {name!r} was named before, in {places[name]}; remove one of them")
            places[name] = f"{split}:{line}"
            names.append(name)
    if not names:
        raise DataError(f"{split}: names no task")
    return names


def _read_task(path: Path, role: Role, notes: Counter[str], limit: int | None, odd: OddRecords) -> Task | str:
    """The task, or why it is dropped."""
    content = parse(read_text(path), path, once=ONCE, surrogates=True)
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {describe(error, _File)}") from None
    if not file.instances:
        raise DataError(f"{path}: a task without instances; add some or take it out of the split files")
    where = f"tasks/{path.name}" if not odd.strict else str(path)
    entries = _readable(file.instances, _Instance, "Instances", where, odd)
    if reason := too_many_odd(len(file.instances), len(entries), "instances"):
        return reason
    shown = file.positives if isinstance(file.positives, list) else [file.positives]
    positives = _readable(shown, _Positive, "Positive Examples", where, odd)
    every = [Instance(entry.id, entry.input, entry.output) for entry in entries]
    instances = drawn(every, limit)
    if left_out := len(every) - len(instances):
        notes[NOT_DRAWN] += left_out
    return superni_task(
        path.stem,
        role,
        definition=" ".join(file.definition),
        positives=[(example.input, example.output[0]) for example in positives],
        instances=instances,
        notes=notes,
        where=str(path),
    )


def _readable(records: Sequence[Any], model: type[R], key: str, where: str, odd: OddRecords) -> list[R]:
    """The records that fit the model; the others are counted, or the first is rejected."""
    read = []
    for number, record in enumerate(records):
        try:
            read.append(model.model_validate(record))
        except ValidationError as error:
            fault, inner = describe(error, model), ".".join(map(str, error.errors()[0]["loc"]))
            joint = "." if inner and fault.startswith(inner) else ": "
            odd.add(f"records of {key}", f"{where}: {key}.{number}{joint}{fault}")
    return read
