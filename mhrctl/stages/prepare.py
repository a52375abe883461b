"""The stage `prepare` splits tasks of a source, puts them into prompts, tokenises them, and writes them as Parquet."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import write_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import BACKBONE_EXAMPLES, TASKS, TEST_EXAMPLES, TOKENIZER, TRAINING_EXAMPLES, folder_name
from mhrctl.artifacts.noting import is_noted, note
from mhrctl.artifacts.writing import write_json, writing
from mhrctl.config.tasks import PrepareParams
from mhrctl.data.rows import SCHEMA, TEST_SCHEMA, Draft, Encoder
from mhrctl.data.shards import copy_shard, read_cuts, write_shard
from mhrctl.data.splits import held_out_size, training_split
from mhrctl.data.tokenization import is_trained_here, load_tokenizer, train_tokenizer
from mhrctl.errors import DataError, in_section, unknown
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.progress import Bar, Track, silent
from mhrctl.suites.source import source_module
from mhrctl.suites.task import Example, Prompter, Role, Split, Suite, Task

TOKENIZER_ROWS = 2000
"""Rows of a streamed task that a tokenizer is trained on."""

FILES: dict[Role, str] = {
    "backbone": BACKBONE_EXAMPLES,
    "training": TRAINING_EXAMPLES,
    "test": TEST_EXAMPLES,
}


def prepare(params: PrepareParams, *, root: Path, out: Path, scratch: Path, track: Track = silent) -> dict[str, Any]:
    """Write `training_tasks.parquet`, `test_tasks.parquet`, `backbone_tasks.parquet`, `tasks.json` and `tokenizer/` into `out`.

    A task that its source streams is held a row group at a time, and first written to a shard of its own: a killed run finds
    the shards that were whole.

    Args:
        params: the section of params.yaml.
        root: what a relative `params.path` is relative to.
        out: the output folder.
        scratch: folder for the shards of a run in progress.
        track: shows progress.

    Returns:
        The task table, as in `tasks.json`.

    Raises:
        DataError: naming file and line of what cannot be used.
    """
    suite = source_module(params.source).read(params, root, metrics=OVER_CHOICES, track=track)
    tasks = _selected(suite, params.test_tasks)
    splits = {task.name: _splits(task, params, suite.dropped) for task in tasks if task.stream is None}
    tasks = [task for task in tasks if task.name not in suite.dropped]
    _require_roles(suite.name, tasks)
    with writing(out) as folder:
        tokenizer = _tokenizer(params, root, _training_texts(params, suite.prompter, tasks, splits))
        tokenizer.save_pretrained(str(folder / TOKENIZER))
        made = provenance.of_prepare(params, root=root)
        shards = (
            scratch / f"prepare-{_key(params, folder / TOKENIZER, made.parents if any(task.stream for task in tasks) else {})}"
        )
        rows = []
        with track("prepare", len(tasks)) as bar:
            for role, file in FILES.items():
                schema = TEST_SCHEMA if role == "test" else SCHEMA
                with pq.ParquetWriter(folder / file, schema, compression="zstd") as writer:
                    for task in (task for task in tasks if task.role == role):
                        put = prompt_of(task, params, suite.prompter, tokenizer)
                        encoder = Encoder(task.name, put, tokenizer, params.max_input_tokens, params.max_target_tokens)
                        if task.stream is None:
                            rows.append(_write_task(task, splits[task.name], params, encoder, writer, schema))
                        else:
                            rows.append(_write_stream(task, task.stream(), params, encoder, shards, writer, bar))
                        bar.advance(note=task.name)
        table = {"suite": suite.name, "tasks": rows, "dropped": suite.dropped, "notes": suite.notes}
        write_json(folder / TASKS, table)
        facts = PrepareFacts(suite=suite.name, tokenizer=digest(folder / TOKENIZER), vocab_size=len(tokenizer))
        write_card(folder, made.card(facts))
    shutil.rmtree(shards, ignore_errors=True)
    return table


def _key(params: PrepareParams, tokenizer: Path, parents: Mapping[str, Path]) -> str:
    """Of shards: what they depend on."""
    hashes = "".join(f" {digest(path)}" for path in parents.values())
    return sha256(f"{params.model_dump_json()} {digest(tokenizer)}{hashes}".encode()).hexdigest()[:16]


def _selected(suite: Suite, names: list[str]) -> list[Task]:
    """Keep the named test tasks, or all."""
    known = [task.name for task in suite.tasks if task.role == "test"]
    if suite.named:
        names = suite.named(names, known)
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
    """Put a task's examples into splits, as its source says or by the rules of `mhrctl.data.splits`."""
    given: dict[Split, list[Example]] = {
        split: [example for example in task.examples if example.split == split] for split in ("train", "validation", "test")
    }
    free = [example for example in task.examples if example.split is None]
    size = params.examples
    if task.keeps_splits:
        return given
    splits = dict(given)
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


def _tokenizer(params: PrepareParams, root: Path, texts: Iterator[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer, or train one on texts."""
    if not is_trained_here(params.tokenizer):
        local = root / params.tokenizer
        with in_section("prepare"):
            return load_tokenizer(str(local) if local.is_dir() else params.tokenizer, revision=params.tokenizer_revision)
    with in_section("prepare"):
        return train_tokenizer(params.tokenizer, texts, vocab_size=params.vocab_size)


def _training_texts(
    params: PrepareParams, prompter: Prompter | None, tasks: list[Task], splits: Mapping[str, Mapping[Split, list[Example]]]
) -> Iterator[str]:
    for task in (task for task in tasks if task.role != "test"):
        put = prompt_of(task, params, prompter, None)
        for example in splits[task.name]["train"] if task.stream is None else islice(task.stream(), TOKENIZER_ROWS):
            yield put(example.input)
            yield from example.targets


def prompt_of(
    task: Task, params: PrepareParams, prompter: Prompter | None, tokenizer: PreTrainedTokenizerBase | None
) -> Callable[[str], str]:
    """Make what puts a task's prompt around an input.

    Args:
        task: gives name, definition and worked examples.
        params: what of it to show.
        prompter: the source's own; None puts what is shown and the input one after the other.
        tokenizer: counts tokens, so that the worked examples fit; None shows as many as are asked for.
    """

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, verbose=False)["input_ids"] if tokenizer else []
        return ids

    def cut(text: str, longest: int) -> str:
        if not tokenizer or not longest:
            return "" if tokenizer else text
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return text[: offsets[min(longest, len(offsets)) - 1][1]]

    if prompter:
        return prompter(task, lambda text: len(tokens(text)), cut)
    parts = [task.name] if params.task_name else []
    parts += [task.definition] if params.definition and task.definition else []
    parts += [f"{text} -> {target}" for text, target in task.positives[: params.positive_examples]]
    return lambda text: ": ".join([*parts, text])


def _write_task(
    task: Task,
    splits: Mapping[Split, list[Example]],
    params: PrepareParams,
    encoder: Encoder,
    writer: pq.ParquetWriter,
    schema: pa.Schema,
) -> dict[str, Any]:
    """Write one row group, and return the task's row of the task table."""
    rng = random.Random(f"{params.seed}/{task.name}")
    drafts: list[Draft] = [
        (split, example, rng.randrange(len(example.targets))) for split, examples in splits.items() for example in examples
    ]
    writer.write_table(encoder.table(drafts, schema))
    used: dict[str, int] = {split: len(examples) for split, examples in splits.items() if examples}
    return _task_row(task, used, len(task.examples) - sum(used.values()), encoder.cut)


def _write_stream(
    task: Task,
    examples: Iterator[Example],
    params: PrepareParams,
    encoder: Encoder,
    shards: Path,
    writer: pq.ParquetWriter,
    bar: Bar,
) -> dict[str, Any]:
    """Write a streamed task, from its shard if a killed run left it, and return the task's row of the task table."""
    shard = shards / f"{folder_name(task.name)}.parquet"
    if not is_noted(shard):
        write_shard(examples, encoder, shard, lambda rows: bar.advance(0, note=f"{task.name}: {rows:,} rows"))
        note(shard)
    counts = copy_shard(
        shard, writer, train=task.stream_train, validation=task.stream_validation, seed=f"{params.seed}/{task.name}"
    )
    unused = counts.pop("unused")
    return _task_row(task, counts, unused, read_cuts(shard))


def _task_row(task: Task, splits: Mapping[str, int], unused: int, cut: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": task.name,
        "role": task.role,
        "metric": task.metric,
        "dataset": task.dataset or task.name,
        "splits": dict(splits),
        "unused": unused,
        "cut_inputs": cut.get("input", 0),
        "cut_targets": cut.get("target", 0),
    }
