"""What is wrong with a command line is said in one line, as all that is wrong, and with the help that answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mhrctl.cli.help import placeholder, value_type, word
from mhrctl.errors import nearest

NUMBERS: Mapping[object, str] = {int: "a whole number", float: "a number"}
"""{type of a value: what it must be}."""


def complaint(error: Any) -> str:  # noqa: ANN401 - typer has its own click
    """Return what an error of the parser says, in a line.

    Args:
        error: typer's usage error.
    """
    say = SAYINGS.get(type(error).__name__, _in_its_words)
    return f"{say(error)}{help_of(error.ctx)}" if getattr(error, "ctx", None) else _in_its_words(error)


def unknown_word(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that a word of the command line is no `kind`, and which is near it; help lists those that there are."""
    close = nearest(word, known)
    return f"unknown {kind} {word}{f'; did you mean {close}?' if close else ''}"


def help_of(context: Any) -> str:  # noqa: ANN401
    """Name the help of a command, for the end of an error."""
    return f" ({context.command_path} --help)"


def _no_such_option(error: Any) -> str:  # noqa: ANN401
    options = [name for param in error.ctx.command.params for name in (*param.opts, *param.secondary_opts) if name[0] == "-"]
    return unknown_word("option", error.option_name, [*options, *error.ctx.help_option_names])


def _misused_option(error: Any) -> str:  # noqa: ANN401
    """An option that wants a value and is the last word, or one that wants none and has it."""
    param = next(param for param in error.ctx.command.params if error.option_name in (*param.opts, *param.secondary_opts))
    return f"{error.option_name}: " + ("takes no value" if param.is_flag else f"needs a value, {placeholder(param)}")


def _missing(error: Any) -> str:  # noqa: ANN401
    return f"{_name(error.param)}: is missing" if error.param else _in_its_words(error)


def _bad_value(error: Any) -> str:  # noqa: ANN401
    details = error.__cause__.errors()[0] if hasattr(error.__cause__, "errors") else {}
    if error.param is None or not details:
        return _in_its_words(error)
    source = error.ctx.get_parameter_source(error.param.name)
    given = f"{error.param.envvar}=" if source is not None and source.name == "ENVIRONMENT" else f"{_name(error.param)} "
    return f"{given}{details['input']}: {_demand(error.param) or details['msg'].removeprefix('Value error, ')}"


def _demand(param: Any) -> str | None:  # noqa: ANN401
    """What a value must be; None if nothing here knows."""
    kind, choices = value_type(param.type_descriptor.annotation), getattr(param.type_descriptor, "choices", None)
    if choices:
        *first, last = map(word, choices)
        return f"choose {', '.join(first)}{' or ' if first else ''}{last}"
    if kind is bool:
        return "must be true or false"
    return f"must be {NUMBERS[kind]}{_bounds(param.min, param.max)}" if kind in NUMBERS else None


def _bounds(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f", {most} or less"
    return f", {least} or more" if most is None else f" from {least} to {most}"


def _name(param: Any) -> str:  # noqa: ANN401
    """The name of an option, the long one if it has two, or of an argument."""
    return str(placeholder(param) if param.param_type_name == "argument" else max(param.opts, key=len))


def _in_its_words(error: Any) -> str:  # noqa: ANN401
    """What typer says, as a line of ours: a small letter first, no full stop."""
    said = " ".join(error.format_message().split()).rstrip(".")
    return f"{said[:1].lower()}{said[1:]}"


SAYINGS: Mapping[str, Callable[[Any], str]] = {
    "NoSuchOption": _no_such_option,
    "BadOptionUsage": _misused_option,
    "MissingParameter": _missing,
    "BadParameter": _bad_value,
}
"""{class of typer's usage errors, of which it exports one only: what it says}; the others keep their words."""
