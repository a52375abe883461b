"""The help of a command says what an option wants as `N`, `NAME` or `PATH`, in panels, and ends with examples."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from copy import copy
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer
from rich.markup import escape

WHICH_CELL = "Which cell"
SETTINGS = "Settings"
SPEED = "Speed and memory"
RUNNING = "Running"
"""Panels of options that several commands share; what a command has for itself stands above them."""
WIDTH = 10
"""Of the column of commands."""
SHOWING = "mhrctl.showing_help"
PLACEHOLDERS: Mapping[object, str] = {int: "N", float: "X", str: "NAME", Path: "PATH"}
"""{type of a value: its word in help}, where an option has none of its own."""


def readable(param: Any) -> Any:  # noqa: ANN401 - typer has its own click
    """Return an option or argument as help shows it: a flag without a type, a number without its range, no text as markup."""
    shown = copy(param)
    shown.min = shown.max = None
    choices = getattr(shown.type_descriptor, "choices", None)
    if choices and shown.metavar is None:
        shown.help = f"{shown.help or ''} One of: {', '.join(map(word, choices))}.".strip()
    shown.metavar = placeholder(param)
    if shown.param_type_name == "argument":
        shown.display_type_rich = lambda ctx: ""  # noqa: ARG005 - typer names it
    if shown.help:
        shown.help = escape(shown.help)
    return shown


def placeholder(param: Any) -> str | None:  # noqa: ANN401
    """Return the word that stands for the value of an option or argument; nothing for a flag."""
    if param.metavar is not None:
        return str(param.metavar)
    if getattr(param.type_descriptor, "choices", None):
        return "WORD"
    return "" if getattr(param, "is_flag", False) else PLACEHOLDERS.get(value_type(param.type_descriptor.annotation))


def word(choice: object) -> str:
    """Return how a choice is typed."""
    return str(choice.value if isinstance(choice, Enum) else choice)


def value_type(annotation: object) -> object:
    """Return the type of one value: of `list[int]` and of `int | None` it is `int`."""
    if get_origin(annotation) in (list, Union, types.UnionType):
        return next((value_type(each) for each in get_args(annotation) if each is not type(None)), annotation)
    return annotation


def examples(lines: Sequence[str]) -> str | None:
    """Return what stands below the help of a command: command lines to begin with."""
    return "\n".join(["Examples:\n", *(f"    {escape(line)}" for line in lines)]) if lines else None


class ReadableHelp:
    """This is a command, or a group of commands, whose help can be read."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401
        """Return the options and arguments; while help is shown, as it shows them."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc] # typer's class comes after this one
        if not ctx.meta.get(SHOWING):
            return params
        shown = list(map(readable, params))
        if any(param.rich_help_panel == RUNNING for param in shown[:-1]) and "--help" in shown[-1].opts:
            shown[-1].rich_help_panel = RUNNING
        return shown

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Show the help."""
        ctx.meta[SHOWING] = True
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            del ctx.meta[SHOWING]


def write_commands(formatter: Any, heading: str, lines: Mapping[str, str]) -> None:  # noqa: ANN401
    """Write commands below a heading: each with its line, those without one all in a line.

    Args:
        formatter: click's.
        heading: of these commands.
        lines: {command: what it is for, or nothing}.
    """
    with formatter.section(typer.style(heading, bold=True)):
        if rows := [(name.ljust(WIDTH), line) for name, line in lines.items() if line]:
            formatter.write_dl(rows)
        if names := [name for name, line in lines.items() if not line]:
            formatter.write(f"{'':>{formatter.current_indent}}{'  '.join(names)}\n")
