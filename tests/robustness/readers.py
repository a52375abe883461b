"""Which commands read which files of the walked project, and what they write: literal tables."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from tests.robustness.outcomes import Ended, Kind
from tests.robustness.workshop import Workshop


@dataclass(frozen=True)
class Reader:
    """A reader is a command that reads artifacts.

    Attributes:
        argv: its words.
        writes: files and folders that are its outputs.
        answers: whether it writes its answer to standard output.
    """

    argv: tuple[str, ...]
    writes: tuple[str, ...] = ()
    answers: bool = False


def _stage(stage: str, method: str, cell: str, *further: str) -> Reader:
    return Reader((stage, "-m", method), (f"data/{stage}/{cell}", *further))


READERS = {
    "prepare": Reader(("prepare",), ("data/prepare",)),
    "backbone": Reader(("backbone",), ("data/backbone",)),
    "index": Reader(("index",), ("data/index",)),
    "query": Reader(("index", "query", "--task", "swap"), answers=True),
    "pretrain lora": _stage("pretrain", "lora", "lora-s0", "data/metrics/pretrain/lora-s0.csv"),
    "pretrain mhr": _stage("pretrain", "mhr", "mhr-h4-s0", "data/metrics/pretrain/mhr-h4-s0.csv"),
    "pretrain soup": _stage("pretrain", "adapter_soup", "adapter_soup-s0", "data/metrics/pretrain/adapter_soup-s0.csv"),
    "pretrain cell": Reader(("pretrain", "--cell", "lora-s0"), ("data/pretrain/lora-s0", "data/metrics/pretrain/lora-s0.csv")),
    "average mhr": _stage("average", "mhr", "mhr-h4-s0"),
    "adapt lora": _stage("adapt", "lora", "lora-s0"),
    "adapt mhr_mu": _stage("adapt", "mhr_mu", "mhr_mu-h4-s0"),
    "adapt soup": _stage("adapt", "adapter_soup", "adapter_soup-s0"),
    "evaluate lora": _stage("evaluate", "lora", "lora-s0", "data/metrics/evaluate/lora-s0.json"),
    "evaluate mhr_mu": _stage("evaluate", "mhr_mu", "mhr_mu-h4-s0", "data/metrics/evaluate/mhr_mu-h4-s0.json"),
    "evaluate backbone": _stage("evaluate", "backbone", "backbone", "data/metrics/evaluate/backbone.json"),
    "report": Reader(("report",), ("data/report",)),
    "export adapt": Reader(("export", "-m", "lora"), ("data/export/adapt/lora-s0",)),
    "export pretrain": Reader(("export", "-m", "lora", "--stage", "pretrain"), ("data/export/pretrain/lora-s0",)),
    "inspect": Reader(("inspect", "-m", "poly"), ("data/inspect/poly-s0",)),
    "align": Reader(("align", "-m", "lora", "--tasks", "2"), ("data/metrics/align/lora-s0.json",)),
}
TABLE = (
    ("data/prepare/training_tasks.parquet", "backbone", "index", "query", "pretrain lora", "align"),
    ("data/prepare/backbone_tasks.parquet", "backbone"),
    ("data/prepare/test_tasks.parquet", "adapt lora", "evaluate lora", "evaluate backbone", "query"),
    ("data/prepare/tasks.json", "adapt lora", "evaluate backbone", "index"),
    ("data/prepare/tokenizer/*", "backbone", "adapt lora", "evaluate lora"),
    ("data/prepare/card.json", "prepare", "backbone", "adapt lora"),
    ("data/backbone/*", "pretrain lora", "adapt lora", "evaluate backbone", "export adapt", "backbone"),
    ("data/index/*", "adapt soup", "query", "index"),
    ("data/pretrain/lora-s0/adapters.safetensors", "adapt lora", "evaluate lora", "export pretrain", "align", "pretrain lora"),
    ("data/pretrain/lora-s0/card.json", "adapt lora", "evaluate lora", "export pretrain", "pretrain lora"),
    ("data/pretrain/lora-s0/*", "pretrain lora"),
    ("data/pretrain/mhr-h4-s0/[ac]*", "average mhr", "pretrain mhr"),
    ("data/pretrain/adapter_soup-s0/[ac]*", "adapt soup"),
    ("data/pretrain/poly-s0/[ac]*", "inspect"),
    ("data/average/mhr-h4-s0/*", "adapt mhr_mu", "average mhr"),
    ("data/adapt/lora-s0/[ac]*", "evaluate lora", "export adapt", "adapt lora"),
    ("data/adapt/lora-s0/validation.csv", "adapt lora"),
    ("data/adapt/mhr_mu-h4-s0/*", "evaluate mhr_mu"),
    ("data/evaluate/lora-s0/*", "evaluate lora"),
    ("data/metrics/evaluate/*-s0.json", "report"),
    ("data/metrics/evaluate/lora-s0.json", "evaluate lora"),
    ("data/metrics/pretrain/lora-s0.csv", "report", "pretrain lora"),
    ("data/cells/lora-s0.json", "pretrain cell"),
)
"""(files, *readers). A command stands behind its own outputs too, which it must not call up to date once they are damaged."""


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """Return (file, reader) of all files that a command reads."""
    made = [
        (name, reader) for pattern, *readers in TABLE for name in names if fnmatch.fnmatch(name, pattern) for reader in readers
    ]
    return list(dict.fromkeys(made))


def is_output(name: str, reader: Reader) -> bool:
    """Whether a file is an output of a command."""
    return any(name == out or name.startswith(f"{out}/") for out in reader.writes)


def judge(workshop: Workshop, ended: Ended, reader: Reader, damaged: str, *, answer: str, absent: bool) -> tuple[Kind, str]:
    """Say how a command ended that may have read a damaged file, and what was seen.

    The right ends are a refusal that names the file or its folder, with nothing else changed, and results that are those of the
    undamaged project to the byte.

    Args:
        workshop: where it ran.
        ended: how it ended.
        reader: the command.
        damaged: the file.
        answer: what it prints in the undamaged project.
        absent: whether its outputs were taken away before.
    """
    kind = ended.kind()
    mended = is_output(damaged, reader)
    changed = workshop.changed(but=[] if mended and kind == "right" else [damaged])
    others = [name for name in changed if not is_output(name, reader)]
    if kind == "right":
        if others:
            return "lost", f"changed: {others[:3]}"
        if changed:
            told = ended.says(damaged.rsplit("/", 1)[-1])
            return ("right", "") if told and damaged not in changed else ("silent", f"other bytes: {changed[:3]}")
        return ("silent", "another answer") if reader.answers and ended.out != answer else ("right", "")
    lost = others if absent else changed
    if lost:
        return "lost", f"{kind}, and changed: {lost[:3]}"
    if kind == "refused" and not any(ended.says(word) for word in _names(damaged)):
        return "unexpected", f"names another thing: {ended.errors[:1]}"
    return kind, ""


def _names(damaged: str) -> list[str]:
    parts = damaged.removeprefix("data/").split("/")
    return ["/".join(parts), "/".join(parts[:-1])]
