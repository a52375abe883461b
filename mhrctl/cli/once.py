"""A command line has nothing in vain: an option that takes one value is given once, and every word is of use.

Of two values the last would win, and the first would be lost without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mhrctl.cli.help import ReadableHelp
from mhrctl.cli.usage import help_of, unknown_word
from mhrctl.errors import ParamsError, listed


def require_all_used(command: Any, context: Any, arguments: Sequence[str]) -> None:  # noqa: ANN401 - typer has its own click
    """Refuse options of a command that are given more than once and are not repeatable, and arguments that it has no use for.

    Args:
        command: the command.
        context: in which it is parsed.
        arguments: of the command line; wrong values are left to the command to complain of.

    Raises:
        ParamsError: names the first.
    """
    if context.resilient_parsing:
        return
    try:
        _, rest, order = command.make_parser(context).parse_args(args=list(arguments))
    except typer.TyperException as error:
        if getattr(error, "ctx", None) is None:  # the parser does not always say of which command it speaks
            error.ctx = context  # type: ignore[attr-defined]
        raise
    if rest and not context.allow_extra_args:
        raise ParamsError(f"unexpected argument{'s' if len(rest) > 1 else ''} {listed(rest)}{help_of(context)}")
    for option, times in Counter(option for option in order if option.param_type_name == "option").items():
        contradicts = option.is_flag and option.secondary_opts
        if times > 1 and not option.multiple and not option.count and (contradicts or not option.is_flag):
            names = "/".join([*option.opts, *option.secondary_opts])
            raise ParamsError(f"{names} is given {times} times, and takes one value; give it once")


class OnceCommand(ReadableHelp, TyperCommand):
    """This is a command whose options are given once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the command line, once it is seen that no option is lost."""
        require_all_used(self, ctx, args)
        return super().parse_args(ctx, args)


class OnceGroup(ReadableHelp, TyperGroup):
    """This is a group of commands whose options are given once."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Find the command that is named, or say which one may be meant."""
        if not ctx.resilient_parsing and args[0] not in self.commands:
            raise ParamsError(f"{unknown_word('command', args[0], self.commands)}{help_of(ctx)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the command line, once it is seen that no option is lost."""
        if args:  # else it shows its help
            require_all_used(self, ctx, args)
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """This is a typer application all of whose commands take an option once."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(**{"cls": OnceGroup} | settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:  # noqa: ANN401
        """Add a command, as typer does."""
        return super().command(name, **{"cls": OnceCommand} | settings)
