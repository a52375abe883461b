"""`mhrctl show` prints framed examples of tasks: prompt, target and choices, and with `--tokens` the tokens that they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mhrctl.artifacts.names import Project
from mhrctl.cli import display
from mhrctl.cli.completion import complete_cell, complete_task
from mhrctl.cli.options import HERE, ProjectOption, quieten
from mhrctl.errors import ParamsError, printable

if TYPE_CHECKING:
    from mhrctl.tools.answers import AnswersGallery, AnswersShown
    from mhrctl.tools.show import Gallery, Piece, Said, Shown

OF_ONE_TASK, OF_EACH_TASK = 3, 1
"""Examples that are shown unless `--limit` says more."""
BETWEEN = "\u2502"
"""Stands between two tokens."""
SPACE = "\u00b7"
"""Stands for a space within a token."""
SPECIAL = "\u00ab{}\u00bb"
"""Marks a special token, where there are no colours too."""


class Split(StrEnum):
    """These are the splits of prepared examples."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    POOL = "pool"


def show(
    task: Annotated[
        list[str],
        typer.Option(
            "--task", help="Name of a task; repeatable. [default: the first of each role]", autocompletion=complete_task
        ),
    ] = [],
    split: Annotated[Split | None, typer.Option("--split", help="Examples of this split alone.", show_default=False)] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Examples of a task: 3 of a named one, else 1.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show all tasks.")] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show the tokens, with their boundaries, spaces and special ones.")
    ] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Show the tokens with their numbers.")] = False,
    cell: Annotated[
        str | None,
        typer.Option("--cell", help="Show the answers of an evaluated cell, with their scores.", autocompletion=complete_cell),
    ] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="With --cell: only answers that are not wholly right.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="CELL",
            help="With --cell: only where another cell's answer differs.",
            autocompletion=complete_cell,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an example a line, as JSON.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Show examples as the model gets them, or with `--cell` what it has answered."""
    limit = limit or (OF_ONE_TASK if task else OF_EACH_TASK)
    if cell is not None:
        if tokens or ids or split not in (None, Split.TEST):
            raise ParamsError("--cell: answers are texts, to the test split; leave out --tokens, --ids and --split")
        from mhrctl.tools.answers import show_answers

        answered = show_answers(Project(project), cell, against=against, tasks=task, wrong=wrong, limit=limit, every=every)
        _print_answers(answered, as_json=as_json, wrong=wrong, against=against)
        return
    if wrong or against:
        raise ParamsError(f"--{'wrong' if wrong else 'against'}: is of answers; name the cell with --cell")
    quieten("tokenizers")
    from mhrctl.tools.show import show as look

    gallery = look(Project(project), tasks=task, split=split and split.value, limit=limit, every=every)
    if as_json:
        for example in gallery.examples:
            display.echo(json.dumps(_record(example, tokens=tokens or ids), ensure_ascii=False))
        return
    for place, example in enumerate(gallery.examples):
        for line in (*([Text()] if place else []), *_lines(example, tokens=tokens or ids, ids=ids)):
            display.out.print(line, soft_wrap=True)
    if rest := _rest(gallery, named=bool(task) or every):
        display.done(rest)


def _print_answers(gallery: AnswersGallery, *, as_json: bool, wrong: bool, against: str | None) -> None:
    """Print answers, and how many there are of the kind that was asked for."""
    from mhrctl.tools.answers import records

    if as_json:
        for example in gallery.examples:
            display.echo(json.dumps(dict(records(example)), ensure_ascii=False))
        return
    for place, example in enumerate(gallery.examples):
        for line in (*([Text()] if place else []), *_answer_lines(example)):
            display.out.print(line, soft_wrap=True)
    tasks = f"{gallery.tasks} of {gallery.all_tasks} test tasks"
    kinds = [*(["wrong"] if wrong else []), *([f"other than those of {against}"] if against else [])]
    if kinds:
        what = f"{gallery.matching:,} of {gallery.answers:,} answers are {' and '.join(kinds)}"
        display.done(f"{what}, in {tasks}; {len(gallery.examples):,} shown")
    elif gallery.tasks < gallery.all_tasks:
        display.done(
            f"{tasks}, {len(gallery.examples):,} of {gallery.matching:,} answers; `-n N` shows more, `--wrong` mistakes"
        )


def _answer_lines(example: AnswersShown) -> Iterator[Text]:
    """An example with its answers, line by line."""
    title = f"{example.task}: test {example.number:,} of {example.of:,}, id {example.id}"
    yield Text(printable(title), style="bold")
    yield Text("prompt", style="cyan")
    for line in example.prompt.split("\n"):
        yield Text(f"  {printable(line)}")
    labels = max(len(label) for label in ("expected", *(said.label for said in example.answers)))
    yield Text.assemble(("expected".ljust(labels), "cyan"), "  ", printable(" | ".join(example.expected)))
    for said in example.answers:
        style = "red" if said.is_wrong else "green"
        score = f"  ({example.metric} {said.score:.1f})"
        yield Text.assemble((said.label.ljust(labels), "cyan"), "  ", printable(said.text), (score, style))


def _rest(gallery: Gallery, *, named: bool) -> str | None:
    """What to say of the tasks that are not shown."""
    if named or gallery.tasks == gallery.all_tasks:
        return None
    return f"{gallery.tasks} of {gallery.all_tasks} tasks; `--task NAME` shows one, `--all` every one"


def _lines(example: Shown, *, tokens: bool, ids: bool) -> Iterator[Text]:
    """An example, line by line."""
    role = "backbone task" if example.role == "backbone" else f"{example.role} task"
    title = f"{example.task}, {role}: {example.split} {example.number:,} of {example.of:,}, id {example.id}"
    yield Text(printable(title), style="bold")
    yield from _part("prompt", [example.prompt], tokens=tokens, ids=ids)
    if len(example.targets) == 1:
        yield from _part("target", example.targets, tokens=tokens, ids=ids)
    else:
        yield from _part("targets", example.targets, {example.reference: "scored"}, tokens=tokens, ids=ids)
    if example.choices:
        yield from _part("choices", example.choices, dict.fromkeys(example.gold, "right"), tokens=tokens, ids=ids)


def _part(name: str, texts: Sequence[Said], marks: dict[int, str] | None = None, *, tokens: bool, ids: bool) -> Iterator[Text]:
    """What an example says as one thing: a heading with its number of tokens, and below it the text or the tokens."""
    sizes = " + ".join(f"{len(each.pieces):,}" for each in texts)
    cut = sum(each.cut for each in texts)
    yield Text.assemble((name, "cyan"), f", {sizes} {'token' if sizes == '1' else 'tokens'}", f" ({cut:,} cut)" if cut else "")
    for number, each in enumerate(texts):
        mark = f"  ({marks[number]})" if marks and number in marks else ""
        *lines, last = _token_lines(each, ids=ids) if tokens else text_lines(each)
        for line in [*lines, Text.assemble(last, (mark, "green"))]:
            yield Text("  ").append_text(line)


def text_lines(said: Said) -> list[Text]:
    """The text as it is read, without what was cut of it."""
    parts: list[str | Text] = [said.text]
    if said.cut:
        read = ["" if piece.is_special and piece.text not in said.text else piece.text for piece in said.pieces]
        parts = ["".join(read[: said.place]), _cut(said), "".join(read[said.place :])]
    lines = [Text()]
    for part in parts:
        if isinstance(part, Text):
            lines[-1].append_text(part)
        else:
            first, *others = map(printable, part.split("\n"))
            lines[-1].append(first)
            lines += map(Text, others)
    return lines


def _cut(said: Said) -> Text:
    return Text(f"[... {said.cut:,} tokens cut ...]", style="yellow")


def _token_lines(said: Said, *, ids: bool) -> list[Text]:
    """The tokens, with a new line after each that ends one."""
    lines = [Text()]
    for place, piece in enumerate(said.pieces):
        if said.cut and place == said.place:
            lines[-1].append_text(_cut(said)).append(BETWEEN, style="dim")
        lines[-1].append_text(_token(piece, ids=ids))
        if place + 1 < len(said.pieces):
            lines[-1].append(BETWEEN, style="dim")
            if piece.text.endswith("\n"):
                lines.append(Text())
    if said.cut and said.place == len(said.pieces):
        lines[-1].append(BETWEEN, style="dim").append_text(_cut(said))
    return lines


def _token(piece: Piece, *, ids: bool) -> Text:
    if piece.is_special:
        shown = Text(SPECIAL.format(printable(piece.text)), style="bold magenta")
    else:
        escaped = piece.text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        shown = Text(printable(escaped).replace(" ", SPACE))
    return shown.append(f" {piece.id}", style="dim") if ids else shown


def _record(example: Shown, *, tokens: bool) -> dict[str, Any]:
    """An example as JSON."""
    what = ("task", "role", "split", "id", "number", "of")
    record: dict[str, Any] = {name: getattr(example, name) for name in what}
    record |= {"prompt": _text_record(example.prompt, tokens=tokens)}
    record |= {"targets": [_text_record(each, tokens=tokens) for each in example.targets], "reference": example.reference}
    return record | {"choices": [_text_record(each, tokens=tokens) for each in example.choices], "gold": list(example.gold)}


def _text_record(said: Said, *, tokens: bool) -> dict[str, Any]:
    record = {"text": said.text, "tokens": len(said.pieces), "cut": said.cut}
    if not tokens:
        return record
    ids, pieces = [piece.id for piece in said.pieces], [piece.text for piece in said.pieces]
    return record | {"ids": ids, "pieces": pieces, "special": [int(piece.is_special) for piece in said.pieces]}
