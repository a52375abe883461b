"""`show` looks at what the prepare stage has made: prompts and answers, as texts and as the tokens that a model reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import TASKS, TOKENIZER, Project
from mhrctl.artifacts.reading import read_json_of, reading
from mhrctl.data.framing import Framed, framing_by
from mhrctl.data.tokenization import bare_tokens, saved_tokenizer
from mhrctl.errors import ParamsError, listed, unknown
from mhrctl.stages.prepare import FILES

OF_EACH_ROLE = 3
"""Tasks of each role that are shown where none is named."""
COLUMNS = ("task", "split", "id", "prompt", "targets", "choices", "reference", "input_ids", "target_ids", "choice_ids", "gold")
_BEFORE = "a"
"""A text after which a token is decoded, since many tokenizers leave out the space before the first."""
_LOST = "\ufffd"
"""What decoders put for a part of a letter."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Piece:
    r"""A piece is a token as a person can read it.

    Attributes:
        id: of the token.
        text: that it stands for; the name of a special one; `\xe2` and the like for parts of a letter.
        is_special: whether it is no text: a begin, an end, a mark of a turn.
    """

    id: int
    text: str
    is_special: bool


@dataclass(frozen=True)
class Said:
    """This is a prompt, a target or a choice.

    Attributes:
        text: as the examples file has it, whole.
        pieces: its tokens, as they are read.
        cut: how many more it had.
        place: the piece before which these were.
    """

    text: str
    pieces: tuple[Piece, ...]
    cut: int = 0
    place: int = 0


@dataclass(frozen=True)
class Shown:
    """This is a framed example.

    Attributes:
        task: its name.
        role: of the task.
        split: of the example.
        id: of the example.
        number: its place among those of its task and split, from 1.
        of: how many these are.
        prompt: what the model reads before it answers.
        targets: right answers.
        reference: which of them scores count.
        choices: the answers that there are to choose from, if there are any.
        gold: which of these are right.
    """

    task: str
    role: str
    split: str
    id: str
    number: int
    of: int
    prompt: Said
    targets: tuple[Said, ...]
    reference: int
    choices: tuple[Said, ...]
    gold: tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """A gallery is what is shown of a project's examples.

    Attributes:
        examples: one after the other, task by task.
        tasks: of which there is something.
        all_tasks: that the project has.
    """

    examples: Sequence[Shown]
    tasks: int
    all_tasks: int


def show(
    project: Project, *, tasks: Sequence[str] = (), split: str | None = None, limit: int = 1, every: bool = False
) -> Gallery:
    """Look at the first examples of tasks, in the order of the examples files.

    Args:
        project: in which the prepare stage has run.
        tasks: their names; none are the first tasks of each role.
        split: of the examples; None is any.
        limit: examples of a task.
        every: show all tasks, where none is named.

    Raises:
        ArtifactError: if the prepare stage has not run, or its output is damaged.
        ParamsError: if there is no such task, or it has no example of the split.
    """
    prepared = project.output("prepare")
    facts = read_card(prepared, stage="prepare", command="mhrctl prepare").facts
    table = read_json_of(prepared / TASKS)
    rows = _chosen(table, tasks, split, every=every)
    tokenizer = saved_tokenizer(prepared / TOKENIZER)
    reader = _Reader(tokenizer, framing_by(facts.framing, chat=facts.chat is not None).of(tokenizer))
    examples: list[Shown] = []
    for role, file in FILES.items():
        names = [row["name"] for row in rows if row["role"] == role]
        if names:
            with reading(prepared / file):
                examples += [reader.shown(role, *each) for each in _drawn(prepared / file, names, split, limit)]
    return Gallery(examples, len(rows), len(table["tasks"]))


def _chosen(table: Mapping[str, Any], tasks: Sequence[str], split: str | None, *, every: bool) -> list[Mapping[str, Any]]:
    """The rows of the task table that are shown.

    Raises:
        ParamsError: if a named task is none of them, or none has the split.
    """
    by_name = {row["name"]: row for row in table["tasks"]}
    for name in tasks:
        if name in table["dropped"]:
            raise ParamsError(f"--task {name}: has no examples: {table['dropped'][name]}")
        if name not in by_name:
            raise ParamsError(f"--task: {unknown('task', name, by_name)}")
    rows = [by_name[name] for name in dict.fromkeys(tasks)] or list(by_name.values())
    having = [row for row in rows if split is None or row["splits"].get(split)]
    if tasks and len(having) < len(rows):
        row = next(row for row in rows if row not in having)
        raise ParamsError(f"--split {split}: task {row['name']} has none; it has {listed(_splits([row]))}")
    if not having:
        raise ParamsError(f"--split {split}: no task has any; there are {listed(_splits(rows))}")
    if tasks or every:
        return having
    return [row for role in FILES for row in [row for row in having if row["role"] == role][:OF_EACH_ROLE]]


def _splits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name, size in row["splits"].items() if size))


def _drawn(path: Path, tasks: Sequence[str], split: str | None, limit: int) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """The first examples of tasks: (place among those of its task and split, how many these are, row); read by row groups."""
    labels = pq.read_table(path, columns=["task", "split"])
    places: dict[str, list[int]] = {}
    counts: dict[int, tuple[int, int]] = {}
    for name in tasks:
        of_task = pc.equal(labels["task"], name).to_numpy()
        wanted = of_task if split is None else of_task & pc.equal(labels["split"], split).to_numpy()
        places[name] = np.flatnonzero(wanted)[:limit].tolist()
        for place in places[name]:
            alike = np.flatnonzero(of_task & pc.equal(labels["split"], labels["split"][place]).to_numpy())
            counts[place] = int(np.searchsorted(alike, place)) + 1, len(alike)
    rows: dict[int, Mapping[str, Any]] = {}
    file, start = pq.ParquetFile(path, memory_map=True), 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [place for of_task in places.values() for place in of_task if start <= place < end]
        if inside:
            read = file.read_row_group(group, columns=list(COLUMNS)).take(pa.array([place - start for place in inside]))
            rows.update(zip(inside, read.to_pylist(), strict=True))
        start = end
    for of_task in places.values():
        yield from ((*counts[place], rows[place]) for place in of_task)


@dataclass(frozen=True)
class _Reader:
    """Makes rows of an examples file readable.

    Attributes:
        tokenizer: of the examples.
        framed: makes their tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    framed: Framed

    def shown(self, role: str, number: int, of: int, row: Mapping[str, Any]) -> Shown:
        targets, choices = row["targets"], row["choices"]
        (whole,) = self.framed.inputs.encode(self.tokenizer, [row["prompt"]])
        return Shown(
            task=row["task"],
            role=role,
            split=row["split"],
            id=row["id"],
            number=number,
            of=of,
            prompt=self._said(row["prompt"], row["input_ids"], whole),
            targets=self._answers(targets, row["target_ids"]),
            reference=row["reference"],
            choices=self._answers(choices, row["choice_ids"]),
            gold=tuple(sorted(set(row["gold"]))),
        )

    def _answers(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> tuple[Said, ...]:
        wholes = self.framed.answers.encode(self.tokenizer, texts) if texts else []
        return tuple(self._said(*each) for each in zip(texts, rows, wholes, strict=True))

    def _said(self, text: str, ids: Sequence[int], whole: Sequence[int]) -> Said:
        """A text with its tokens, beside those that it had before any were cut, of which both ends are kept or one."""
        pieces = tuple(map(self._piece, ids))
        if len(whole) <= len(ids):
            return Said(text, pieces)
        pairs = enumerate(zip(ids, whole, strict=False))
        place = next((number for number, (ours, theirs) in pairs if ours != theirs), len(ids))
        return Said(text, pieces, len(whole) - len(ids), place)

    def _piece(self, token: int) -> Piece:
        name = str(self.tokenizer.convert_ids_to_tokens(token))
        if token in self._special:
            return Piece(token, name, is_special=True)
        ids, before = self._before
        text = str(self.tokenizer.decode([*ids, token])).removeprefix(before)
        return Piece(token, _bytes(name) if _LOST in text or not text else text, is_special=False)

    @cached_property
    def _special(self) -> set[int]:
        marked = {token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special}
        return marked | set(self.tokenizer.all_special_ids)

    @cached_property
    def _before(self) -> tuple[list[int], str]:
        (ids,) = bare_tokens(self.tokenizer, [_BEFORE])
        return ids, str(self.tokenizer.decode(ids))


def _bytes(name: str) -> str:
    r"""A token that is a part of a letter as its bytes, such as `\xe2`; as it is called, if it is none."""
    if match := _BYTE.fullmatch(name):
        return f"\\x{match[1].lower()}"
    codes = {letter: number for number, letter in bytes_to_unicode().items()}
    if not all(letter in codes for letter in name):
        return name
    return "".join(f"\\x{codes[letter]:02x}" for letter in name)
