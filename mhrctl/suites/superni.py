"""Super-NaturalInstructions, from a clone of its upstream repository: section 2 of the reference recipe."""

from __future__ import annotations

import string
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mhrctl.errors import DataError
from mhrctl.suites.reading import describe, parse, read_text
from mhrctl.suites.task import Example, Role, Suite, Task

FORM = "a clone of the allenai/natural-instructions repository (git clone --depth 1) with tasks/ and splits/default/"
SPLITS: dict[Role, str] = {"training": "train_tasks.txt", "test": "test_tasks.txt"}


class _Upstream(BaseModel):
    """A JSON object of the upstream repository; keys that are not used here are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _as_list(value: Any) -> Any:  # noqa: ANN401 - checked by pydantic next
    return [value] if isinstance(value, str) else value


class _Instance(_Upstream):
    id: str | None = None
    input: str
    output: list[str]

    _one_output = field_validator("output", mode="before")(_as_list)


class _Positive(_Upstream):
    input: str
    output: str


class _File(_Upstream):
    definition: list[str] = Field(alias="Definition", min_length=1)
    positives: list[_Positive] = Field([], alias="Positive Examples")
    instances: list[_Instance] = Field(alias="Instances")

    _one_definition = field_validator("definition", mode="before")(_as_list)


def read_superni(path: Path) -> Suite:
    """Read the training and test tasks that the default split names.

    Args:
        path: a clone of the upstream repository.

    Returns:
        The suite. Instances without an input or a reference are dropped and counted; tasks in no split are named.

    Raises:
        DataError: naming file and line of what is missing or malformed.
    """
    if not (path / "tasks").is_dir():
        raise DataError(f"{path}: no folder `tasks`; prepare.path must be {FORM}")
    notes: Counter[str] = Counter()
    tasks: list[Task] = []
    places: dict[str, str] = {}
    for role, file in SPLITS.items():
        names = _split_names(path, file, places)
        tasks += [_read_task(path / "tasks" / f"{name}.json", role, notes) for name in sorted(names)]
    used = {task.name for task in tasks}
    others = sorted(file.stem for file in (path / "tasks").glob("*.json") if file.stem not in used)
    return Suite("superni", tasks, dropped=dict.fromkeys(others, "in no split file"), notes=dict(notes))


def superni_prompt(task: Task, example_input: str, *, task_name: bool, definition: bool, positives: int) -> str:
    """Put the original prompt around an input (prompt A of recipe 2.4).

    Args:
        task: gives name, definition and worked examples.
        example_input: of the instance.
        task_name: begin with the task's name.
        definition: tell the task's definition.
        positives: how many worked examples to show.
    """
    parts = [f"{task.name}. "] if task_name else []
    if definition:
        parts.append(f"Definition: {_ended(task.definition)}\n\n")
    for number, (text, answer) in enumerate(task.positives[:positives], 1):
        parts.append(f" Positive Example {number} -\nInput: {_ended(text)}\n Output: {_ended(answer)}\n")
    parts.append(f"Now complete the following example -\nInput: {_ended(example_input)}\nOutput: ")
    return "".join(parts)


def _ended(text: str) -> str:
    text = text.strip()
    return text if text.endswith(tuple(string.punctuation)) else f"{text}."


def _split_names(path: Path, file: str, places: dict[str, str]) -> list[str]:
    """The names in a split file; `places` remembers where each stood, over all split files."""
    split = path / "splits" / "default" / file
    if not split.is_file():
        raise DataError(f"{split}: no such file; prepare.path must be {FORM}")
    names = []
    for line, text in enumerate(read_text(split).splitlines(), 1):
        if name := text.strip():
            task = path / "tasks" / f"{name}.json"
            if not task.is_file():
                raise DataError(f"{split}:{line}: there is no {task}; remove the line or add the task")
            if name in places:
                raise DataError(f"{split}:{line}: {name!r} was named before, in {places[name]}; remove one of them")
            places[name] = f"{split}:{line}"
            names.append(name)
    return names


def _read_task(path: Path, role: Role, notes: Counter[str]) -> Task:
    content = parse(read_text(path), path)
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {describe(error, _File)}") from None
    if not file.instances:
        raise DataError(f"{path}: a task without instances; add some or take it out of the split files")
    examples: dict[str, Example] = {}
    for number, instance in enumerate(file.instances):
        references = tuple(text.strip() for text in instance.output if text.strip())
        if not references or not instance.input.strip():
            notes["instances without a reference" if not references else "instances without an input"] += 1
            continue
        if blank := len(instance.output) - len(references):
            notes["blank references"] += blank
        name = instance.id or f"{path.stem}-{number}"
        if name in examples:
            notes["instance ids that occurred twice"] += 1
        while name in examples:
            name = f"{name}-{number}"
        examples[name] = Example(name, instance.input, references)
    if not examples:
        raise DataError(f"{path}: no instance has both an input and a reference")
    return Task(
        name=path.stem,
        role=role,
        metric="rouge_l",
        definition=" ".join(file.definition).strip(),
        examples=list(examples.values()),
        positives=tuple((example.input, example.output) for example in file.positives),
    )
