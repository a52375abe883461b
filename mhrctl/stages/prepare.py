"""prepare: tasks from a source, split, put into prompts, tokenised, and written as Parquet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from mhrctl import artifacts
from mhrctl.artifacts import Card
from mhrctl.errors import DataError, unknown
from mhrctl.params import PrepareParams
from mhrctl.progress import Track, silent
from mhrctl.suites.compositional import read_compositional
from mhrctl.suites.jsonl import read_jsonl
from mhrctl.suites.splits import held_out_size, training_split
from mhrctl.suites.superni import read_superni, superni_prompt
from mhrctl.suites.task import Example, Role, Split, Suite, Task
from mhrctl.tokenization import is_trained_here, load_tokenizer, train_tokenizer

SOURCES: dict[str, Callable[[Path], Suite]] = {
    "compositional": lambda _: read_compositional(),
    "superni": read_superni,
    "jsonl": read_jsonl,
}

FILES: dict[Role, str] = {
    "backbone": artifacts.BACKBONE_EXAMPLES,
    "training": artifacts.TRAINING_EXAMPLES,
    "test": artifacts.TEST_EXAMPLES,
}

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("split", pa.string()),
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("targets", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("reference", pa.int32()),  # the target that validation and test score against
        ("input_ids", pa.list_(pa.int32())),
        ("target_ids", pa.list_(pa.list_(pa.int32()))),
        ("choice_ids", pa.list_(pa.list_(pa.int32()))),
        ("gold", pa.list_(pa.int32())),  # for each target, which choice it is
        ("input_tokens", pa.int32()),
        ("target_tokens", pa.int32()),  # of the longest target
    ]
)


def prepare(params: PrepareParams, *, root: Path, out: Path, track: Track = silent) -> dict[str, Any]:
    """Write `training_tasks.parquet`, `test_tasks.parquet`, `backbone_tasks.parquet`, `tasks.json` and `tokenizer/` into `out`.

    Args:
        params: the section of params.yaml.
        root: what a relative `params.path` is relative to.
        out: the output folder.
        track: shows progress.

    Returns:
        The task table, as in `tasks.json`.

    Raises:
        DataError: naming file and line of what cannot be used.
    """
    source = root / (params.path or ".")
    suite = SOURCES[params.source](source)
    tasks = _selected(suite, params.test_tasks)
    splits = {task.name: _splits(task, params, suite.dropped) for task in tasks}
    tasks = [task for task in tasks if task.name not in suite.dropped]
    _require_roles(suite.name, tasks)
    with artifacts.writing(out) as folder:
        tokenizer = _tokenizer(params, root, tasks, splits)
        tokenizer.save_pretrained(str(folder / artifacts.TOKENIZER))
        rows = []
        with track("prepare", len(tasks)) as bar:
            for role, file in FILES.items():
                with pq.ParquetWriter(folder / file, SCHEMA, compression="zstd") as writer:
                    for task in (task for task in tasks if task.role == role):
                        rows.append(_write_task(task, splits[task.name], params, tokenizer, writer))
                        bar.advance(note=task.name)
        table = {"suite": suite.name, "tasks": rows, "dropped": suite.dropped, "notes": suite.notes}
        artifacts.write_json(folder / artifacts.TASKS, table)
        facts = {
            "suite": suite.name,
            "tokenizer": artifacts.digest(folder / artifacts.TOKENIZER),
            "vocab_size": len(tokenizer),
        }
        artifacts.write_card(folder, Card.of("prepare", params.model_dump(), {}, **facts))
    return table


def _selected(suite: Suite, names: list[str]) -> list[Task]:
    """Keep the named test tasks, or all."""
    known = [task.name for task in suite.tasks if task.role == "test"]
    for name in names:
        if name not in known:
            raise DataError(f"prepare.test_tasks: {unknown('test task', name, known)}")
    if names:
        suite.dropped |= {name: "not in prepare.test_tasks" for name in known if name not in names}
    return [task for task in suite.tasks if task.name not in suite.dropped]


def _require_roles(suite: str, tasks: list[Task]) -> None:
    for role in ("training", "test"):
        if not any(task.role == role for task in tasks):
            raise DataError(f"suite {suite}: no {role} tasks are left")


def _splits(task: Task, params: PrepareParams, dropped: dict[str, str]) -> dict[Split, list[Example]]:
    """Put a task's examples into splits, as its source says or by the rules of `mhrctl.suites.splits`."""
    given = {
        split: [example for example in task.examples if example.split == split] for split in ("train", "validation", "test")
    }
    free = [example for example in task.examples if example.split is None]
    size = params.examples
    splits: dict[Split, list[Example]] = {
        "train": given["train"],
        "validation": given["validation"],
        "test": given["test"],
    }
    if task.role == "backbone":
        return {"train": free}
    if task.role == "training":
        if any(given.values()):
            splits["train"] = (given["train"] + free)[:size]
        else:
            splits["train"], splits["validation"] = training_split(free, size=size, seed=params.seed)
        if not splits["train"]:
            dropped[task.name] = "has no example to train on"
        return {split: rows[:size] for split, rows in splits.items() if split != "test"}
    if not splits["test"]:
        held_out = held_out_size(len(task.examples), size=size)
        splits["test"], free = free[:held_out], free[held_out:]
    splits["pool"] = free
    if not splits["test"] or not (splits["train"] or len(free) > 1):
        dropped[task.name] = f"has too few examples ({len(task.examples)}) for train, validation and test"
    return {split: rows if split == "pool" else rows[:size] for split, rows in splits.items()}


def _tokenizer(
    params: PrepareParams, root: Path, tasks: list[Task], splits: Mapping[str, Mapping[Split, list[Example]]]
) -> PreTrainedTokenizerBase:
    if not is_trained_here(params.tokenizer):
        local = root / params.tokenizer
        return load_tokenizer(str(local) if local.is_dir() else params.tokenizer, revision=params.tokenizer_revision)
    return train_tokenizer(params.tokenizer, _training_texts(params, tasks, splits), vocab_size=params.vocab_size)


def _training_texts(
    params: PrepareParams, tasks: list[Task], splits: Mapping[str, Mapping[Split, list[Example]]]
) -> Iterator[str]:
    for task in tasks:
        if task.role != "test":
            for example in splits[task.name]["train"]:
                yield prompt(task, example, params)
                yield from example.targets


def prompt(task: Task, example: Example, params: PrepareParams) -> str:
    """Put a prompt around an input: Super-NaturalInstructions' own (recipe 2.4 A), or the definition and the input."""
    if params.source == "superni":
        return superni_prompt(
            task,
            example.input,
            task_name=params.task_name,
            definition=params.definition,
            positives=params.positive_examples,
        )
    parts = [task.name] if params.task_name else []
    parts += [task.definition] if params.definition and task.definition else []
    parts += [f"{text} -> {target}" for text, target in task.positives[: params.positive_examples]]
    return ": ".join([*parts, example.input])


def _write_task(
    task: Task,
    splits: Mapping[Split, list[Example]],
    params: PrepareParams,
    tokenizer: PreTrainedTokenizerBase,
    writer: pq.ParquetWriter,
) -> dict[str, Any]:
    """Write one row group, and return the task's row of the task table."""
    rng = random.Random(f"{params.seed}/{task.name}")
    cut: Counter[str] = Counter()
    rows = [
        _row(task, split, example, rng.randrange(len(example.targets)), params, tokenizer, cut)
        for split, examples in splits.items()
        for example in examples
    ]
    writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    used = {split: len(examples) for split, examples in splits.items() if examples}
    return {
        "name": task.name,
        "role": task.role,
        "metric": task.metric,
        "splits": used,
        "unused": len(task.examples) - sum(used.values()),
        "cut_inputs": cut["input"],
        "cut_targets": cut["target"],
    }


def _row(
    task: Task,
    split: Split,
    example: Example,
    reference: int,
    params: PrepareParams,
    tokenizer: PreTrainedTokenizerBase,
    cut: Counter[str],
) -> dict[str, Any]:
    text = prompt(task, example, params)
    input_ids = _encode(tokenizer, text, params.max_input_tokens, cut, "input")
    target_ids = [_encode(tokenizer, target, params.max_target_tokens, cut, "target") for target in example.targets]
    choices = list(example.choices)
    return {
        "task": task.name,
        "split": split,
        "id": example.id,
        "prompt": text,
        "targets": list(example.targets),
        "choices": choices,
        "reference": reference,
        "input_ids": input_ids,
        "target_ids": target_ids,
        "choice_ids": [_encode(tokenizer, choice, params.max_target_tokens, cut, "choice") for choice in choices],
        "gold": [choices.index(target) for target in example.targets] if choices else [],
        "input_tokens": len(input_ids),
        "target_tokens": max(len(ids) for ids in target_ids),
    }


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, longest: int, cut: Counter[str], what: str) -> list[int]:
    """Token ids with the end token, cut to `longest` with the end token kept."""
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    if len(ids) > longest:
        cut[what] += 1
        ids = [*ids[: longest - 1], ids[-1]]
    return ids
