"""An option that takes one value is given once: of two the last would win, and the first would be lost without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mhrctl.cli.help import ReadableHelp
from mhrctl.errors import ParamsError


def require_once(command: Any, context: Any, arguments: Sequence[str]) -> None:  # noqa: ANN401 - typer has its own click
    """Refuse options of a command that are given more than once and are not repeatable.

    Args:
        command: the command.
        context: in which it is parsed.
        arguments: of the command line; wrong ones are left to the command to complain of.

    Raises:
        ParamsError: names the first.
    """
    if context.resilient_parsing:
        return
    *_, order = command.make_parser(context).parse_args(args=list(arguments))
    for option, times in Counter(option for option in order if option.param_type_name == "option").items():
        contradicts = option.is_flag and option.secondary_opts
        if times > 1 and not option.multiple and not option.count and (contradicts or not option.is_flag):
            names = "/".join([*option.opts, *option.secondary_opts])
            raise ParamsError(f"{names} is given {times} times, and takes one value; give it once")


class OnceCommand(ReadableHelp, TyperCommand):
    """This is a command whose options are given once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the command line, once it is seen that no option is lost."""
        require_once(self, ctx, args)
        return super().parse_args(ctx, args)


class OnceGroup(ReadableHelp, TyperGroup):
    """This is a group of commands whose options are given once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the command line, once it is seen that no option is lost."""
        if args:  # else it shows its help
            require_once(self, ctx, args)
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """This is a typer application all of whose commands take an option once."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(**{"cls": OnceGroup} | settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:  # noqa: ANN401
        """Add a command, as typer does."""
        return super().command(name, **{"cls": OnceCommand} | settings)
