"""A small whole project of each source of tasks, to be damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import write_tasks

REST = """\
backbone: {source: scratch, scratch: {d_model: 16, d_ff: 32, d_kv: 4, attention_heads: 4, layers: 1, steps: 2, batch_size: 4}}
pretrain: {skills: 2, steps: 2, batch_size: 4}
adapt: {shots: 3, validation: 3, steps: 2, batch_size: 2, evaluate_every: 2, max_new_tokens: 4}
evaluate: {max_new_tokens: 4}
grid: {seeds: [0], methods: {lora: }}
"""
WORDS = ("ant", "bee", "cat", "dog", "elk", "fox")


def jsonl(root: Path) -> str:
    """Make tasks of one's own."""
    write_tasks(root / "tasks")
    return "source: jsonl, path: tasks"


def superni(root: Path) -> str:
    """Make a clone of Super-NaturalInstructions of four tasks."""
    for folder in ("tasks", "splits/default"):
        (root / "ni" / folder).mkdir(parents=True)
    for split, names in (("train", ["task001_a", "task002_b"]), ("test", ["task003_c", "task004_d"])):
        (root / f"ni/splits/default/{split}_tasks.txt").write_text("\n".join(names) + "\n")
        for name in names:
            instances = [{"id": f"{name}-{i}", "input": f"say {i} {name[-1]}", "output": [WORDS[i % 6]]} for i in range(30)]
            whole = {"Definition": ["Copy it"], "Positive Examples": [], "Instances": instances}
            (root / f"ni/tasks/{name}.json").write_text(json.dumps(whole, indent=1))
    return "source: superni, path: ni"


def t0(root: Path) -> str:
    """Make a configuration of P3, and rendered few-shot sets of a test task."""
    config = root / "p3/imdb_Sentiment_with_choices_"
    config.mkdir(parents=True)
    columns = {
        "inputs_pretokenized": [f"{WORDS[i % 6]} {i} yes no" for i in range(40)],
        "targets_pretokenized": [WORDS[i % 6] for i in range(40)],
    }
    pq.write_table(pa.table(columns), config / "train-00000-of-00001.parquet")
    (root / "sets/rte").mkdir(parents=True)
    for seed in (0, 1):
        lines = [
            {
                "template": "is",
                "idx": 8 * seed + i,
                "inputs_pretokenized": f"q {seed} {i}",
                "answer_choices": ["yes", "no"],
                "label": i % 2,
            }
            for i in range(8)
        ]
        (root / f"sets/rte/seed{seed}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = "few_shot: sets, seeds: [0], evaluation_seeds: [1], train: 20, validation: 4"
    return f"source: t0, path: p3, test_tasks: [rte], t0: {{{settings}}}"


def hub(root: Path) -> str:
    """Make a data set in JSON Lines."""
    rows = [
        {"question": f"{task} {WORDS[i % 6]} {i}", "answer": WORDS[i % 6], "task": task} for task in "xyz" for i in range(14)
    ]
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "source: hub, path: data.jsonl, test_tasks: [z], columns: {input: question, target: answer, task: task}"


def hub_csv(root: Path) -> str:
    """Make a data set in CSV."""
    rows = [f"{task} {WORDS[i % 6]} {i},{WORDS[i % 6]},{task}" for task in "xyz" for i in range(14)]
    (root / "data.csv").write_text("\n".join(["question,answer,task", *rows]) + "\n")
    return "source: hub, path: data.csv, test_tasks: [z], columns: {input: question, target: answer, task: task}"


def hub_parquet(root: Path) -> str:
    """Make a data set in Parquet."""
    rows = [(f"{task} {WORDS[i % 6]} {i}", WORDS[i % 6], task) for task in "xyz" for i in range(14)]
    table = pa.table(dict(zip(("question", "answer", "task"), map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(table, root / "data.parquet")
    return "source: hub, path: data.parquet, test_tasks: [z], columns: {input: question, target: answer, task: task}"


SOURCES: dict[str, tuple[Callable[[Path], str], tuple[str, ...]]] = {
    "jsonl": (jsonl, ("tasks/training/first.jsonl", "tasks/test/swap.jsonl")),
    "superni": (superni, ("ni/tasks/task001_a.json", "ni/tasks/task003_c.json", "ni/splits/default/test_tasks.txt")),
    "t0": (
        t0,
        ("p3/imdb_Sentiment_with_choices_/train-00000-of-00001.parquet", "sets/rte/seed0.jsonl", "sets/rte/seed1.jsonl"),
    ),
    "hub": (hub, ("data.jsonl",)),
    "hub, CSV": (hub_csv, ("data.csv",)),
    "hub, Parquet": (hub_parquet, ("data.parquet",)),
}
"""{source: (what makes a project of it, files to damage)}"""


def make(root: Path, source: str, further: str = "") -> None:
    """Make a project of a source.

    Args:
        root: a new folder.
        source: the source.
        further: settings of `prepare`.
    """
    root.mkdir(parents=True)
    where = SOURCES[source][0](root)
    limits = "tokenizer: word, examples: 4, max_input_tokens: 32, max_target_tokens: 8"
    (root / "params.yaml").write_text(f"prepare: {{{where}, {limits}{further}}}\n{REST}")
