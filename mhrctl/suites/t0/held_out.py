"""T0 has 11 test tasks, which no training task asks: docs/recipe.md, section 1.4.

A record is worded by each of its data set's original-task templates. For training all wordings are kept, as a group of which
training draws one at each access; for evaluation one is drawn for each record, once and for all, or all are kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mhrctl.errors import DataError, unknown
from mhrctl.suites.files import visible
from mhrctl.suites.reading import hub_errors
from mhrctl.suites.t0.few_shot import Record, drawn_sets, few_shot_files, raw_records, read_records
from mhrctl.suites.t0.p3 import p3_name
from mhrctl.suites.t0.promptsource import FORM, PromptTemplate, Rendering, read_templates
from mhrctl.suites.task import Example, Task

HUB = "hub"
"""As `evaluation`: the evaluation splits on the hub."""
SUFFIXES = (".jsonl", ".parquet")
Label = Literal["label", "answer", "answer_right_ending"]
FIRST_LABEL: dict[Label, int] = {"label": 0, "answer": 1, "answer_right_ending": 1}
"""What a data set's label of the first answer choice is."""


@dataclass(frozen=True)
class T0TestTask:
    """This says where a test task comes from.

    Attributes:
        name: as in the authors' code.
        repository: on the hub.
        config: of the repository; None for its only one.
        train: split of the few-shot sets.
        evaluation: split that is scored.
        label: field of the right choice.
        folder: of its templates in promptsource.
        shots: records of a few-shot set that T-Few published.
        paper_shots: records of a few-shot set in the paper's code.
        templates: the only templates to use; empty uses every one whose metadata say `original_task`.
        suffix: what P3 puts after the names of its configurations.
    """

    name: str
    repository: str
    config: str | None
    train: str
    evaluation: str
    label: Label
    folder: str
    shots: int
    paper_shots: int
    templates: tuple[str, ...] = ()
    suffix: str = ""


COPA_TEMPLATES = (
    "C1 or C2? premise, so/because\u2026",
    "best_option",
    "cause_effect",
    "choose",
    "exercise",
    "i_am_hesitating",
    "more likely",
    "plausible_alternatives",
)
"""COPA's other four original-task templates word one kind of question only."""

_GLUE = "aps/super_glue"
_TABLE = [
    T0TestTask("rte", _GLUE, "rte", "train", "validation", "label", "super_glue/rte", 32, 32),
    T0TestTask("cb", _GLUE, "cb", "train", "validation", "label", "super_glue/cb", 32, 32),
    T0TestTask("copa", _GLUE, "copa", "train", "validation", "label", "super_glue/copa", 32, 32, templates=COPA_TEMPLATES),
    T0TestTask("wic", _GLUE, "wic", "train", "validation", "label", "super_glue/wic", 32, 32),
    T0TestTask("wsc", _GLUE, "wsc.fixed", "train", "validation", "label", "super_glue/wsc.fixed", 32, 32),
    T0TestTask(
        "winogrande", "allenai/winogrande", "winogrande_xl", "train", "validation", "answer", "winogrande/winogrande_xl", 50, 50
    ),
    T0TestTask("h-swag", "Rowan/hellaswag", None, "train", "validation", "label", "hellaswag", 20, 20),
    T0TestTask(
        "storycloze", "LSDSem/story_cloze", "2016", "validation", "test", "answer_right_ending", "story_cloze/2016", 70, 70
    ),
    T0TestTask("anli-r1", "facebook/anli", None, "train_r1", "test_r1", "label", "anli", 50, 32, suffix="_r1"),
    T0TestTask("anli-r2", "facebook/anli", None, "train_r2", "test_r2", "label", "anli", 50, 32, suffix="_r2"),
    T0TestTask("anli-r3", "facebook/anli", None, "train_r3", "test_r3", "label", "anli", 50, 32, suffix="_r3"),
]
T0_TEST_TASKS: dict[str, T0TestTask] = {task.name: task for task in _TABLE}


def test_tasks(
    *,
    few_shot: Path | None,
    promptsource: Path | None,
    seeds: Sequence[int],
    anli_shots: Literal[32, 50],
    templates: Literal["one", "all"],
    evaluation: str,
    evaluation_seeds: Sequence[int],
    tasks: Sequence[str],
    seed: int,
) -> list[Task]:
    """Read T0's test tasks: few-shot sets as their `train` splits, scored records as their `test` splits.

    Args:
        few_shot: a folder of few-shot sets, in T-Few's layout or of rendered files; None draws them from the training splits on
            the hub as T-Few and the paper's authors do.
        promptsource: a checkout of its repository; raw records need it.
        seeds: whose few-shot sets to read; empty reads all that are there, but those of `evaluation_seeds`.
        anli_shots: 50 as in T-Few's sets, or 32 as the paper's code draws anew. T-Few's sets are in the order of their draw, so
            that their first 32 are the 32 that it draws.
        templates: of a scored record: one template, drawn once, or all.
        evaluation: `hub`, or a folder with `<task>.jsonl` or `<task>.parquet` of records, raw (in the words of the hub) or
            rendered; tasks that have no file there are read from the hub.
        evaluation_seeds: scores the few-shot records of these seeds that no set of `seeds` holds, and leaves `evaluation`
            unread: a trial without evaluation splits.
        tasks: names of the tasks; empty reads all 11.
        seed: of the templates drawn for scored records, and of wordings that a template draws.

    Returns:
        The tasks, sorted by name, scored by accuracy over the template's answer choices.

    Raises:
        DataError: naming what is missing or malformed, and where.
    """
    _check_names(tasks)
    if both := sorted(set(seeds) & set(evaluation_seeds)):
        raise DataError(f"seed {both[0]} is both to train on and to evaluate on; take it out of one of the two lists")
    if not evaluation_seeds:
        _check_evaluation(evaluation)
    read = []
    for task in (T0_TEST_TASKS[name] for name in sorted(tasks or T0_TEST_TASKS)):
        sets = _few_shot_sets(task, few_shot, seeds, evaluation_seeds, anli_shots)
        train = _merged(sets, [number for number in sets if number not in evaluation_seeds])
        if evaluation_seeds:
            scored = _left_over(task, _merged(sets, evaluation_seeds), train)
        else:
            scored = _evaluation_records(task, evaluation)
        words = _Words(task, _templates(task, promptsource), seed)
        examples = [example for record, numbers in train.values() for example in words.examples(record, "train", seeds=numbers)]
        examples += [example for record in scored for example in words.examples(record, "test", one=templates == "one")]
        read.append(Task(task.name, "test", "accuracy", "", examples))
    return read


def few_shot_training_tasks(
    few_shot: Path, names: Sequence[str], *, promptsource: Path | None, by: Literal["template", "dataset"], seed: int = 0
) -> list[Task]:
    """Make training tasks of few-shot sets, for trials without P3: all records of all seeds, each once with each template.

    Args:
        few_shot: a folder of few-shot sets, in T-Few's layout or of rendered files.
        names: of the test tasks whose sets to use.
        promptsource: a checkout of its repository; raw records need it.
        by: `template` makes each template a task, named as P3 names its configuration; `dataset` each data set, in which, as
            in P3, the wordings of a record stand each for itself.
        seed: of wordings that a template draws.

    Returns:
        The tasks, sorted by name.

    Raises:
        DataError: naming what is missing or malformed, and where.
    """
    _check_names(names)
    examples: dict[str, list[Example]] = {}
    data_sets: dict[str, str] = {}
    for task in (T0_TEST_TASKS[name] for name in names):
        sets = _few_shot_sets(task, few_shot, [], [], task.shots)
        words = _Words(task, _templates(task, promptsource), seed)
        dataset, _, subset = task.folder.partition("/")
        whole = p3_name(dataset, subset or None) + task.suffix
        for record, _ in _merged(sets, sets).values():
            for name in words.names(record):
                config = p3_name(dataset, subset or None, name) + task.suffix
                owner, idx = (config, f"{record.idx}") if by == "template" else (whole, f"{config}/{record.idx}")
                said = words.word(record, name)
                data_sets[owner] = whole
                examples.setdefault(owner, []).append(Example(idx, said.input, (said.target,), said.choices))
    return [Task(name, "training", "accuracy", "", rows, dataset=data_sets[name]) for name, rows in sorted(examples.items())]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in T0_TEST_TASKS:
            raise DataError(unknown("T0 test task", name, T0_TEST_TASKS))


def _few_shot_sets(
    task: T0TestTask, few_shot: Path | None, seeds: Sequence[int], evaluation_seeds: Sequence[int], anli_shots: int
) -> dict[int, list[Record]]:
    """The sets of `seeds`, or of all that there are, and of `evaluation_seeds`."""
    is_anli = task.shots != task.paper_shots  # of no other task did the paper's code draw sets anew
    shots = anli_shots if is_anli else task.shots
    if few_shot is None:
        if not seeds:
            raise DataError("few-shot sets that are drawn from the hub need seeds; the paper's are 42, 1024 and 0")
        how = "check the network, or name a folder of few-shot sets"
        return drawn_sets(_hub_records(task, task.train, how), shots=shots, seeds=sorted({*seeds, *evaluation_seeds}))
    files = few_shot_files(few_shot, task.name, shots=shots)
    wanted = sorted({*(seeds or files), *evaluation_seeds})
    for number in wanted:
        if number not in files:
            there = ", ".join(map(str, files))
            raise DataError(f"{next(iter(files.values())).parent}: no few-shot set of seed {number} (it has {there})")
    return {number: read_records(files[number])[: shots if is_anli else None] for number in wanted}


def _merged(sets: Mapping[int, list[Record]], seeds: Iterable[int]) -> dict[int, tuple[Record, tuple[int, ...]]]:
    """{idx: (record, the seeds whose sets hold it)}."""
    merged: dict[int, tuple[Record, tuple[int, ...]]] = {}
    for number in seeds:
        for record in sets[number]:
            first, before = merged.get(record.idx, (record, ()))
            if first.fields != record.fields:
                raise DataError(
                    f"{record.where}: idx {record.idx} is another record in {first.where}; number them in one split"
                )
            merged[record.idx] = (first, (*before, number))
    return merged


def _left_over(
    task: T0TestTask, scored: Mapping[int, tuple[Record, tuple[int, ...]]], train: Mapping[int, object]
) -> list[Record]:
    """The records of the evaluation seeds that no training seed uses."""
    left = [record for idx, (record, _) in scored.items() if idx not in train]
    if not train or not left:
        what = "to train on" if not train else "to evaluate on that is not trained on"
        raise DataError(f"{task.name}: the few-shot sets leave no record {what}; name other seeds")
    return left


def _check_evaluation(evaluation: str) -> None:
    """See that the evaluation splits are the hub's or a folder's whose files are named for tasks."""
    folder = Path(evaluation)
    if evaluation != HUB and not folder.is_dir():
        raise DataError(f"{evaluation}: no such folder; give `{HUB}`, or a folder with <task>.jsonl or <task>.parquet")
    for path in visible(sorted(folder.iterdir())) if evaluation != HUB else ():
        if path.suffix in SUFFIXES and path.stem not in T0_TEST_TASKS:
            raise DataError(f"{path}: {unknown('T0 test task', path.stem, T0_TEST_TASKS)}")


def _evaluation_records(task: T0TestTask, evaluation: str) -> list[Record]:
    if evaluation != HUB:
        paths = [
            path for suffix in SUFFIXES if (path := Path(evaluation) / f"{task.name}{suffix}").exists() or path.is_symlink()
        ]
        if len(paths) > 1:
            raise DataError(f"{paths[1]}: is of task {task.name}, as {paths[0]} is; remove one of them")
        if paths:
            return read_records(paths[0])
    how = f"check the network, or put {task.name}.jsonl with its {task.evaluation} split into the folder named as `evaluation`"
    return _hub_records(task, task.evaluation, how)


def _hub_records(task: T0TestTask, split: str, how: str) -> list[Record]:
    from datasets import load_dataset

    where = "/".join(part for part in (task.repository, task.config, split) if part)
    with hub_errors(f"{task.name} ({where})", how, opens=task.repository):
        rows = list(load_dataset(task.repository, task.config, split=split, streaming=True))
    return raw_records((f"{where}, row {number}", row) for number, row in enumerate(rows))


def _templates(task: T0TestTask, promptsource: Path | None) -> dict[str, PromptTemplate]:
    """The task's templates by name, sorted; none without a checkout, which rendered records do not need."""
    if promptsource is None:
        return {}
    templates = {row.name: row for row in read_templates(promptsource, task.folder) if row.original_task}
    if missing := [name for name in task.templates if name not in templates]:
        raise DataError(f"{promptsource}: {task.folder} has no original-task template {missing[0]!r}; give {FORM}")
    return {name: templates[name] for name in task.templates or templates}


@dataclass(frozen=True)
class _Words:
    """A task's templates, which word its records; rendered records bring their own wordings.

    Attributes:
        task: the test task.
        templates: by name, sorted; empty if there is no checkout of promptsource.
        seed: of what is drawn.
    """

    task: T0TestTask
    templates: Mapping[str, PromptTemplate]
    seed: int

    def examples(
        self, record: Record, split: Literal["train", "test"], *, seeds: tuple[int, ...] = (), one: bool = False
    ) -> list[Example]:
        """The wordings of a record, one of them drawn or all."""
        names = self.names(record)
        if one:
            names = [random.Random(f"{self.seed}/{self.task.name}/{record.idx}").choice(names)]
        group = f"{split}/{record.idx}"
        worded = ((name, self.word(record, name)) for name in names)
        return [
            Example(f"{group}/{name}", said.input, (said.target,), said.choices, split, seeds, group) for name, said in worded
        ]

    def names(self, record: Record) -> list[str]:
        """The templates that word a record, sorted."""
        if record.renderings:
            names = sorted(name for name in record.renderings if not self.task.templates or name in self.task.templates)
            if not names:
                raise DataError(f"{record.where}: none of the templates of {self.task.name}: {', '.join(self.task.templates)}")
            return names
        if not self.templates:
            raise DataError(f"{record.where}: a raw record, to be rendered with promptsource's templates; give {FORM}")
        return list(self.templates)

    def word(self, record: Record, name: str) -> Rendering:
        """A record in a template's words; its target is the right one of the answer choices."""
        if record.renderings:
            return record.renderings[name]
        try:
            rng = random.Random(f"{self.seed}/{self.task.name}/{record.idx}/{name}")
            said = self.templates[name].render(record.fields, rng)
        except DataError as error:
            raise DataError(f"{record.where}: {error}") from None
        if not said.input:
            raise DataError(f"{record.where}: template {name!r} renders nothing; take the record out")
        return replace(said, target=said.choices[self._label(record, len(said.choices))])

    def _label(self, record: Record, choices: int) -> int:
        value = record.fields.get(self.task.label)
        try:
            label = int(value) - FIRST_LABEL[self.task.label]  # type: ignore[arg-type]  # whatever it is, it is tried
        except (TypeError, ValueError):
            raise DataError(f"{record.where}: {self.task.label} {value!r} is no label") from None
        if not 0 <= label < choices:
            raise DataError(f"{record.where}: {self.task.label} {value!r} names none of {choices} answer choices")
        return label
