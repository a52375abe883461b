"""prepare: tasks from a source, split, put into prompts, tokenised, and written as Parquet."""

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
from mhrctl.artifacts.writing import write_json, writing
from mhrctl.config.params import PrepareParams
from mhrctl.data.rows import SCHEMA, TEST_SCHEMA, Draft, Encoder
from mhrctl.data.shards import copy_shard, read_cuts, write_shard
from mhrctl.data.splits import held_out_size, training_split
from mhrctl.data.tokenization import is_trained_here, load_tokenizer, train_tokenizer
from mhrctl.errors import DataError, unknown
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.progress import Bar, Track, silent
from mhrctl.suites.compositional import read_compositional
from mhrctl.suites.jsonl import read_jsonl
from mhrctl.suites.superni.hub import read_superni_hub
from mhrctl.suites.superni.prompts import PROMPTS, prompter
from mhrctl.suites.superni.tasks import named_tasks, read_superni
from mhrctl.suites.t0.held_out import HUB, T0_TEST_TASKS, few_shot_training_tasks, test_tasks
from mhrctl.suites.t0.p3 import training_tasks
from mhrctl.suites.task import Example, Role, Split, Suite, Task

TOKENIZER_ROWS = 2000
"""Rows of a streamed task that a tokenizer is trained on."""


def _read_superni(params: PrepareParams, root: Path, track: Track) -> Suite:
    kept = 2 * params.examples  # enough for train and validation; all of a clone would be gigabytes
    if params.hub is None:
        return read_superni(_folder(root, params.path), training_instances=kept)
    return read_superni_hub(
        params.hub,
        revision=params.revision,
        test_tasks=named_tasks(params.test_tasks),
        training_instances=kept,
        positives=params.positive_examples,
        track=track,
    )


def _read_t0(params: PrepareParams, root: Path, _track: Track) -> Suite:
    t0 = params.t0
    if both := sorted({*t0.training_few_shot} & {*(params.test_tasks or T0_TEST_TASKS)}):
        raise DataError(f"prepare.t0.training_few_shot: {both[0]} is a test task too; leave it out of prepare.test_tasks")
    few_shot = root / t0.few_shot if t0.few_shot else None
    promptsource = root / t0.promptsource if t0.promptsource else None
    if t0.training_few_shot:
        own = few_shot_training_tasks(
            _folder(root, t0.few_shot), t0.training_few_shot, promptsource=promptsource, by=t0.by, seed=params.seed
        )
        training = Suite("t0", own)
    else:
        source = params.hub or str(_folder(root, params.path))
        training = training_tasks(source=source, revision=params.revision, by=t0.by, max_rows=t0.max_rows)
    test = test_tasks(
        few_shot=few_shot,
        promptsource=promptsource,
        seeds=t0.seeds,
        anli_shots=t0.anli_shots,
        templates=t0.templates,
        evaluation=t0.evaluation if t0.evaluation == HUB else str(root / t0.evaluation),
        evaluation_seeds=t0.evaluation_seeds,
        tasks=params.test_tasks,
        seed=params.seed,
    )
    return Suite("t0", [*training.tasks, *test], training.dropped, training.notes)


def _folder(root: Path, path: str | None) -> Path:
    return root / (path or ".")


SOURCES: dict[str, Callable[[PrepareParams, Path, Track], Suite]] = {
    "compositional": lambda _params, _root, _track: read_compositional(),
    "superni": _read_superni,
    "t0": _read_t0,
    "jsonl": lambda params, root, _track: read_jsonl(_folder(root, params.path), metrics=OVER_CHOICES),
}

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
    suite = SOURCES[params.source](params, root, track)
    tasks = _selected(suite, params.test_tasks)
    splits = {task.name: _splits(task, params, suite.dropped) for task in tasks if task.stream is None}
    tasks = [task for task in tasks if task.name not in suite.dropped]
    _require_roles(suite.name, tasks)
    with writing(out) as folder:
        tokenizer = _tokenizer(params, root, tasks, splits)
        tokenizer.save_pretrained(str(folder / TOKENIZER))
        shards = scratch / f"prepare-{_key(params, folder / TOKENIZER)}"
        rows = []
        with track("prepare", len(tasks)) as bar:
            for role, file in FILES.items():
                schema = TEST_SCHEMA if role == "test" else SCHEMA
                with pq.ParquetWriter(folder / file, schema, compression="zstd") as writer:
                    for task in (task for task in tasks if task.role == role):
                        encoder = _encoder(task, params, tokenizer)
                        if task.stream is None:
                            rows.append(_write_task(task, splits[task.name], params, encoder, writer, schema))
                        else:
                            rows.append(_write_stream(task, task.stream(), params, encoder, shards, writer, bar))
                        bar.advance(note=task.name)
        table = {"suite": suite.name, "tasks": rows, "dropped": suite.dropped, "notes": suite.notes}
        write_json(folder / TASKS, table)
        facts = PrepareFacts(suite=suite.name, tokenizer=digest(folder / TOKENIZER), vocab_size=len(tokenizer))
        write_card(folder, provenance.of_prepare(params, root=root).card(facts))
    shutil.rmtree(shards, ignore_errors=True)
    return table


def _key(params: PrepareParams, tokenizer: Path) -> str:
    """Of shards: what they depend on."""
    return sha256(f"{params.model_dump_json()} {digest(tokenizer)}".encode()).hexdigest()[:16]


def _selected(suite: Suite, names: list[str]) -> list[Task]:
    """Keep the named test tasks, or all."""
    known = [task.name for task in suite.tasks if task.role == "test"]
    if suite.name == "superni":
        names = named_tasks(names, known)
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
    if params.source == "t0" and task.role == "test":
        return given  # few-shot sets and evaluation splits are as they are
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
    for task in (task for task in tasks if task.role != "test"):
        put = prompt_of(task, params, None)
        for example in splits[task.name]["train"] if task.stream is None else islice(task.stream(), TOKENIZER_ROWS):
            yield put(example.input)
            yield from example.targets


def prompt_of(task: Task, params: PrepareParams, tokenizer: PreTrainedTokenizerBase | None) -> Callable[[str], str]:
    """What puts a task's prompt around an input: Super-NaturalInstructions' own, or the definition and the input.

    Args:
        task: gives name, definition and worked examples.
        params: what of it to show.
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

    if params.source == "superni":
        return prompter(
            PROMPTS[params.prompt],
            task,
            task_name=params.task_name,
            definition=params.definition,
            positives=params.positive_examples,
            longest=params.max_input_tokens,
            count=lambda text: len(tokens(text)),
            cut=cut,
        )
    parts = [task.name] if params.task_name else []
    parts += [task.definition] if params.definition and task.definition else []
    parts += [f"{text} -> {target}" for text, target in task.positives[: params.positive_examples]]
    return lambda text: ": ".join([*parts, text])


def _encoder(task: Task, params: PrepareParams, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    put = prompt_of(task, params, tokenizer)
    return Encoder(task.name, put, tokenizer, params.max_input_tokens, params.max_target_tokens)


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
    if not shard.exists():
        write_shard(examples, encoder, shard, lambda rows: bar.advance(0, note=f"{task.name}: {rows:,} rows"))
    t0 = params.t0
    counts = copy_shard(shard, writer, train=t0.train, validation=t0.validation, seed=f"{params.seed}/{task.name}")
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
