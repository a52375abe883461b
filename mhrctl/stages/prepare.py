"""The stage `prepare` splits tasks of a source, puts them into prompts, tokenises them, and writes them as Parquet."""

from __future__ import annotations

import random
import reprlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import WORDINGS, PrepareParams
from mhrctl.data.chat import USER, Chat
from mhrctl.data.division import Division, divide
from mhrctl.data.framing import FRAMINGS, framed_tokenizer, framing_by
from mhrctl.data.leaks import LEAKS, TestTexts
from mhrctl.data.pieces import Pieces
from mhrctl.data.rows import SCHEMA, TEST_SCHEMA, Draft, Encoder
from mhrctl.data.shards import copy_shard, read_counts, read_cuts, write_shard
from mhrctl.data.tokenization import Tokenizes, bare_tokens, is_trained_here, train_tokenizer, whole_tokens
from mhrctl.data.vocabulary import Unsayable
from mhrctl.data.wording import BETWEEN, filled
from mhrctl.errors import DataError, in_section
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.evaluation.rouge import tokenizer_for
from mhrctl.garbage import rarely_collected
from mhrctl.progress import Bar, Track, silent
from mhrctl.suites.source import source_module
from mhrctl.suites.task import Example, Prompter, Role, Suite, Task

TOKENIZER_ROWS = 2000
"""Rows of a streamed task that a tokenizer is trained on."""

FILES: dict[Role, str] = {
    "backbone": BACKBONE_EXAMPLES,
    "training": TRAINING_EXAMPLES,
    "test": TEST_EXAMPLES,
}


@rarely_collected()
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
    divisions, tests = _divided(tasks, params, suite.dropped)
    tasks = [task for task in tasks if task.name not in suite.dropped]
    _require_roles(suite, tasks, params)
    with writing(out) as folder:
        tokenizer = _tokenizer(params, root, _training_texts(params, suite.prompter, tasks, divisions, tests))
        tokenizer.save_pretrained(str(folder / TOKENIZER))
        made = provenance.of_prepare(params, root=root)
        parents = made.parents if any(task.stream for task in tasks) else {}
        shards = scratch / f"prepare-{_key(params, folder / TOKENIZER, parents, tests)}"
        rows: list[dict[str, Any]] = []
        notes = Counter(suite.notes)
        pieces = Pieces(tokenizer)
        with track("prepare", len(tasks)) as bar:
            for role, file in FILES.items():
                schema = TEST_SCHEMA if role == "test" else SCHEMA
                with pq.ParquetWriter(folder / file, schema, compression="zstd") as writer:
                    for task in (task for task in tasks if task.role == role):
                        put = prompt_of(task, params, suite.prompter, tokenizer, pieces)
                        limits = params.max_input_tokens, params.max_target_tokens
                        encoder = Encoder(task.name, put, tokenizer, *limits, params.framing, chat=params.chat, pieces=pieces)
                        if task.stream is None:
                            rows.append(_write_task(task, divisions[task.name], params, encoder, writer, schema))
                        else:
                            examples = tests.filtered(task.stream(encoder.notes), encoder.notes)
                            rows.append(_write_stream(task, examples, params, encoder, shards, writer, bar, notes))
                        bar.advance(note=task.name)
        table = {"suite": suite.name, "tasks": rows, "dropped": suite.dropped, "notes": dict(notes)}
        write_json(folder / TASKS, table)
        facts = PrepareFacts(
            suite=suite.name,
            tokenizer=digest(folder / TOKENIZER),
            vocab_size=len(tokenizer),
            framing=params.framing,
            chat=str(tokenizer.eos_token) if params.chat else None,
        )
        write_card(folder, made.card(facts))
    shutil.rmtree(shards, ignore_errors=True)
    return table


def _key(params: PrepareParams, tokenizer: Path, parents: Mapping[str, Path], tests: TestTexts) -> str:
    """Of shards: what they depend on."""
    hashes = "".join(f" {digest(path)}" for path in parents.values()) + f" {tests.key}"
    return sha256(f"{params.model_dump_json()} {digest(tokenizer)}{hashes}".encode()).hexdigest()[:16]


def _selected(suite: Suite, names: list[str]) -> list[Task]:
    """Keep the named test tasks, or all."""
    chosen, known = suite.chosen(names), suite.chosen([])
    suite.dropped |= {name: "not in prepare.test_tasks" for name in known if name not in chosen}
    return [task for task in suite.tasks if task.name not in suite.dropped]


def _require_roles(suite: Suite, tasks: list[Task], params: PrepareParams) -> None:
    """Require test tasks, and training tasks where a tokenizer is trained on them or the suite had some."""
    needs_training = is_trained_here(params.tokenizer) or any(task.role == "training" for task in suite.tasks)
    for role in ("training", "test") if needs_training else ("test",):
        if not any(task.role == role for task in tasks):
            name = next((task.name for task in suite.tasks if task.role == role and task.name in suite.dropped), None)
            why = f"; {name} {suite.dropped[name]}" if name else ""
            raise DataError(f"suite {suite.name}: no {role} tasks are left{why}")


def _divided(tasks: Sequence[Task], params: PrepareParams, dropped: dict[str, str]) -> tuple[dict[str, Division], TestTexts]:
    """{task that is not streamed: its division}, and the test rows: test tasks first, whose rows the others may not have."""
    divisions: dict[str, Division] = {}
    tests = TestTexts()
    for role in ("test", "training", "backbone"):
        for task in tasks:
            if task.role == role and task.stream is None:
                division = divide(task, size=params.examples, seed=params.seed, tests=tests)
                if division.dropped:
                    dropped[task.name] = division.dropped
                divisions[task.name] = division
        if role == "test":
            used = [division for division in divisions.values() if not division.dropped]
            tests = TestTexts.of(example for division in used for example in division.splits["test"])
    return divisions, tests


def _tokenizer(params: PrepareParams, root: Path, texts: Iterator[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer, or train one on texts."""
    with in_section("prepare"):
        if is_trained_here(params.tokenizer):
            ends_texts = FRAMINGS[params.framing].ends_prompts
            return train_tokenizer(params.tokenizer, texts, vocab_size=params.vocab_size, ends_texts=ends_texts)
        local = root / params.tokenizer
        return framed_tokenizer(
            str(local) if local.is_dir() else params.tokenizer,
            revision=params.tokenizer_revision,
            gguf=params.tokenizer_gguf,
            framing=params.framing,
            chat=params.chat,
        )


def _training_texts(
    params: PrepareParams,
    prompter: Prompter | None,
    tasks: list[Task],
    divisions: Mapping[str, Division],
    tests: TestTexts,
) -> Iterator[str]:
    for task in (task for task in tasks if task.role != "test"):
        put = prompt_of(task, params, prompter, None)
        if task.stream is None:
            examples: Iterable[Example] = divisions[task.name].splits["train"]
        else:
            examples = islice(tests.filtered(task.stream()), TOKENIZER_ROWS)
        for example in examples:
            yield put(example.input)
            yield from example.targets


def prompt_of(
    task: Task,
    params: PrepareParams,
    prompter: Prompter | None,
    tokenizer: PreTrainedTokenizerBase | None,
    pieces: Pieces | None = None,
) -> Callable[[str], str]:
    """Make what puts a task's prompt around an input; of a chat, it is what the user says.

    Args:
        task: gives name, definition and worked examples.
        params: what of it to show.
        prompter: the source's own, unless params have a template; None puts what is shown and the input one after the other.
        tokenizer: counts tokens, so that the worked examples fit; None shows as many as are asked for.
        pieces: knows tokens of the tokenizer from other tasks, if there are any.
    """
    chat = Chat.of(tokenizer) if tokenizer and params.chat else None
    counting: Tokenizes | None = pieces or tokenizer

    def tokens(text: str) -> list[int]:
        if counting is None:
            return []
        if chat:
            return bare_tokens(counting, [chat.prompt([(USER, text)])])[0]
        return whole_tokens(counting, [text])[0]

    def cut(text: str, longest: int) -> str:
        if not tokenizer or not longest:
            return "" if tokenizer else text
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return text[: offsets[min(longest, len(offsets)) - 1][1]]

    framing = framing_by(params.framing, chat=params.chat)
    template = SOURCES[params.source].prompt if params.prompt in WORDINGS else params.prompt
    if prompter and not template:
        put = prompter(task, lambda text: len(tokens(text)), cut)
        return lambda text: framing.prompt(put(text), params.answer_cue)
    parts = [task.name] if params.task_name else []
    parts += [task.definition] if params.definition and task.definition else []
    parts += [f"{text} -> {target}" for text, target in task.positives[: params.positive_examples]]
    if template:
        fill = filled(template, BETWEEN.join(parts))
        return lambda text: framing.prompt(fill(text), params.answer_cue)
    return lambda text: framing.prompt(framing.between.join([*parts, text]), params.answer_cue)


def _write_task(
    task: Task, division: Division, params: PrepareParams, encoder: Encoder, writer: pq.ParquetWriter, schema: pa.Schema
) -> dict[str, Any]:
    """Write one row group, and return the task's row of the task table."""
    rng = random.Random(f"{params.seed}/{task.name}")
    drafts: list[Draft] = [
        (split, example, rng.randrange(len(example.targets)))
        for split, examples in division.splits.items()
        for example in examples
    ]
    writer.write_table(encoder.table(drafts, schema))
    if task.role == "test":
        _require_sayable(task, division.used, params, encoder.unsayable)
    unused = len(task.examples) - sum(division.used.values()) - division.leaks - division.repeated
    repeats = {
        "of_tests": division.leaks,
        "of_tests_kept": division.given_leaks,
        "in_pool": division.repeated,
        "in_tests": division.repeated_tests,
    }
    row = _task_row(task, division.used, unused, encoder.cut, repeats, encoder.unsayable.counts)
    references = (target for example in task.examples for target in example.targets)
    tokenizer = tokenizer_for(params.rouge_tokenizer, params.source, references) if task.role == "test" else None
    return row | ({"rouge_tokenizer": tokenizer} if tokenizer else {})


def _require_sayable(task: Task, used: Mapping[str, int], params: PrepareParams, unsayable: Unsayable) -> None:
    """Require that the tokenizer can say what a test task is scored by.

    Raises:
        DataError: if the right one of a row's choices is the same tokens as a wrong one, or no target of any row says anything.
    """
    how = f"set a prepare.tokenizer that knows its words, or leave the task out; this is {params.tokenizer!r}"
    if alike := unsayable.first_alike if OVER_CHOICES[task.metric] else None:
        if alike.tokens >= params.max_target_tokens:
            how = f"raise prepare.max_target_tokens, which cuts them to {params.max_target_tokens}"
        rows = sum(used.values())
        if (
            not task.keeps_splits or 2 * unsayable.alike > rows
        ):  # rows that a benchmark gives are kept and counted, if they are few
            raise DataError(
                f"test task {task.name}, example {alike.example}: the choices {reprlib.repr(alike.right)}, which is right, and "
                f"{reprlib.repr(alike.wrong)} are the same tokens (so in {unsayable.alike:,} of {rows:,} examples); {how}"
            )
    elif not OVER_CHOICES[task.metric] and unsayable.wordless["test"] == used.get("test"):
        raise DataError(f"test task {task.name}: none of its targets has a token other than the unknown one; {how}")


def _write_stream(
    task: Task,
    examples: Iterator[Example],
    params: PrepareParams,
    encoder: Encoder,
    shards: Path,
    writer: pq.ParquetWriter,
    bar: Bar,
    notes: Counter[str],
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
    left_out = Counter(read_counts(shard, "notes"))
    repeats = {"of_tests": left_out.pop(LEAKS, 0)}
    notes.update(left_out)
    return _task_row(task, counts, unused, read_cuts(shard), repeats, read_counts(shard, "unknown"))


def _task_row(
    task: Task,
    splits: Mapping[str, int],
    unused: int,
    cut: Mapping[str, int],
    repeats: Mapping[str, int],
    unknown: Mapping[str, int],
) -> dict[str, Any]:
    """The row of a task; `repeats` counts equal texts, `unknown` what the tokenizer cannot say."""
    return {
        "name": task.name,
        "role": task.role,
        "metric": task.metric,
        "dataset": task.dataset or task.name,
        "splits": dict(splits),
        "unused": unused,
        "cut_inputs": cut.get("input", 0),
        "cut_targets": cut.get("target", 0),
        "repeats": dict(repeats),
        "unknown": dict(unknown),
    }
