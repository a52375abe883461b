"""The prepare stage in rows a second, on own tasks as long as those of Super-NaturalInstructions, and datasets' `map`."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Measured, Row
from benchmarks.timing import Ratio
from mhrctl.artifacts.names import TASKS, TEST_EXAMPLES, TOKENIZER, TRAINING_EXAMPLES
from mhrctl.config.tasks import PrepareParams
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.stages.prepare import prepare

TARGETS = (5_000.0, 10_000.0)
VOCABULARY = 40_000
"""Different words, the n-th as frequent as 1/n."""
DEFINITION = 55
"""Words of a task's definition."""
INPUTS, ANSWERS = (22.0, 1.0, 400), (4.0, 0.9, 60)
"""Median and sigma of lognormals, and the most, of words."""
TEST_TASKS = 10
"""One task in so many is a test task."""
TRAINED = "bpe"
MANY = 100_000
"""Rows from which on the gate is for them: before that, what happens once counts."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        tasks: how many.
        rows: of each task.
        mapped: rows that `map` makes tokens of, by which it is timed.
    """

    tasks: int
    rows: int
    mapped: int


PLANS = {False: Plan(200, 2000, 20_000), True: Plan(4, 500, 500)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time the stage with a tokenizer that it trains, again with that as one that is there, and `map` with the same."""
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        root = Path(folder)
        write_rows(root / "tasks", plan)
        trained, there = root / "trained", root / "there"
        seconds = {
            "tokenizer trained": _seconds(lambda: _prepare(root, trained, TRAINED, plan.rows)),
            "tokenizer there": _seconds(lambda: _prepare(root, there, str(trained / TOKENIZER), plan.rows)),
        }
        total = plan.tasks * plan.rows
        _require_all(trained, total)
        rates = {name: total / number for name, number in seconds.items()}
        rates["datasets' map"] = _mapped_rate(there, plan.mapped)
    targets = TARGETS if total >= MANY else (None, None)
    rows = [
        _row("rows a second of prepare, a BPE of 16,000 trained among the rest", rates["tokenizer trained"], *targets),
        _row("rows a second of prepare, with a tokenizer that is there", rates["tokenizer there"], *targets),
        _row(
            "rows a second of prepare / of datasets' map with the same tokenizer, which makes tokens alone",
            rates["tokenizer there"] / rates["datasets' map"],
        ),
    ]
    figures: dict[str, float] = {f"{name}: rows a second": round(rate) for name, rate in rates.items()}
    note = f"{total:,} made rows of {plan.tasks} tasks, in CPU time of one thread, measured once"
    return Measured(rows, figures, [note])


def write_rows(folder: Path, plan: Plan) -> None:
    """Write own tasks of made words."""
    random = np.random.default_rng(0)
    words = _words(random)
    for number in range(plan.tasks):
        of_role = folder / ("training" if number % TEST_TASKS else "test")
        of_role.mkdir(parents=True, exist_ok=True)
        definition = _texts(random, words, np.array([DEFINITION]))[0]
        inputs, answers = (_texts(random, words, _lengths(random, plan.rows, *kind)) for kind in (INPUTS, ANSWERS))
        lines = [
            json.dumps({"id": f"{row}", "input": f"{text}.", "target": answer, "definition": f"{definition}."})
            for row, (text, answer) in enumerate(zip(inputs, answers, strict=True))
        ]
        (of_role / f"task{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _words(random: np.random.Generator) -> NDArray[np.object_]:
    syllables = [first + second for first in "bcdfghklmnprstvw" for second in ("a", "e", "i", "o", "u", "an", "er", "in", "on")]
    words = dict.fromkeys("".join(random.choice(syllables, random.integers(1, 5))) for _ in range(VOCABULARY))
    return np.array(list(words), dtype=object)


def _lengths(random: np.random.Generator, count: int, median: float, sigma: float, most: int) -> NDArray[np.int64]:
    return random.lognormal(np.log(median), sigma, count).clip(1, most).round().astype(np.int64)


def _texts(random: np.random.Generator, words: NDArray[np.object_], lengths: NDArray[np.int64]) -> list[str]:
    often = 1 / np.arange(1, len(words) + 1)
    drawn = random.choice(words, int(lengths.sum()), p=often / often.sum())
    return [" ".join(part) for part in np.split(drawn, lengths.cumsum()[:-1])]


def _prepare(root: Path, out: Path, tokenizer: str, rows: int) -> None:
    """All rows of all tasks: as many as there are for train as for validation, or for test as for the pool."""
    options: dict[str, Any] = {"vocab_size": 16_000} if tokenizer == TRAINED else {}
    params = PrepareParams(source="jsonl", path="tasks", tokenizer=tokenizer, examples=rows // 2, **options)
    prepare(params, root=root, out=out, scratch=root / "scratch")


def _require_all(prepared: Path, total: int) -> None:
    """Check that no row was left out.

    Raises:
        RuntimeError: if one was.
    """
    tasks = json.loads((prepared / TASKS).read_text(encoding="utf-8"))["tasks"]
    written = sum(sum(task["splits"].values()) for task in tasks)
    if written != total:
        raise RuntimeError(f"prepare has written {written:,} rows of {total:,}")


def _mapped_rate(prepared: Path, rows: int) -> float:
    """Rows a second of what makes tokens of prompts and targets that are there, in batches of 1,000."""
    from datasets import Dataset, concatenate_datasets, disable_progress_bars

    disable_progress_bars()
    tokenizer = saved_tokenizer(prepared / TOKENIZER)
    whole = concatenate_datasets(
        [Dataset.from_parquet(str(prepared / file), cache_dir=str(prepared)) for file in (TRAINING_EXAMPLES, TEST_EXAMPLES)]
    )
    texts = whole.select(range(min(rows, len(whole)))).select_columns(["prompt", "targets"])

    def tokens(batch: dict[str, list[Any]]) -> dict[str, Any]:
        targets = [of_row[0] for of_row in batch["targets"]]
        return {"input_ids": tokenizer(batch["prompt"])["input_ids"], "target_ids": tokenizer(targets)["input_ids"]}

    return len(texts) / _seconds(lambda: texts.map(tokens, batched=True, load_from_cache_file=False))


def _seconds(work: Callable[[], object]) -> float:
    """CPU time of the process: of threads that tokenizers or Arrow might have, too."""
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep tokenizers to one thread."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _row(what: str, value: float, gate: float | None = None, aim: float | None = None) -> Row:
    return Row(what, Ratio(value, value, value), gate, aim, more_is_better=True)
