"""The `mhrctl` command has its commands put together here. Nothing here imports torch: a command imports what it runs."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import Any, NoReturn

import typer

import mhrctl
from mhrctl.cli import (
    adapt,
    align,
    average,
    backbone,
    check,
    count,
    evaluate,
    export,
    grid,
    import_,
    index,
    init,
    inspect,
    predict,
    prepare,
    pretrain,
    report,
    run,
    show,
)
from mhrctl.cli.display import complain, done, loaded
from mhrctl.cli.failures import reason_of
from mhrctl.cli.once import App, OnceGroup
from mhrctl.cli.options import launched_processes
from mhrctl.cli.signals import TerminatedError, asked_to_end, raising_signals
from mhrctl.errors import MhrctlError, StoppedError

TYPED = "mhrctl.typed"


class Commands(OnceGroup):
    """The commands, of which each ends with an exit code and a line, or with a traceback if it has met a bug."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer's own
        """Parse the command line, and keep what was typed."""
        ctx.meta[TYPED] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own
        """Run a command: 2 for what the user can mend, 1 for what the environment does not give, 128 + N for a signal."""
        try:
            with raising_signals():
                result = super().invoke(ctx)
                sys.stdout.flush()  # else a pipe that is closed would be noticed at the very end, with a traceback
                return result
        except BrokenPipeError:  # whoever read has seen enough
            raise
        except (KeyboardInterrupt, TerminatedError) as error:
            _end(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        except Exception as error:
            if isinstance(error, StoppedError):
                _stop(str(error), ctx.meta[TYPED], 128 + (asked_to_end() or signal.SIGTERM))
            if number := asked_to_end():  # of which a library has made an error of its own
                _end(number)
            if isinstance(error, MhrctlError):
                _fail(str(error), 2)
            if (reason := reason_of(error)) is None:
                raise
            _fail(reason, 1)
        finally:
            loaded()


app = App(
    name="mhrctl",
    cls=Commands,
    help="Cross-task generalisation with routed adapters: pre-train skills and routing, adapt to new tasks, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (prepare.prepare, backbone.backbone, pretrain.pretrain, average.average):
    app.command(rich_help_panel="Stages")(command)
app.add_typer(index.app, name="index", rich_help_panel="Stages")
app.command(rich_help_panel="Stages")(adapt.adapt)
app.command(rich_help_panel="Stages")(evaluate.evaluate)
app.command(rich_help_panel="Stages")(report.report)
app.command(rich_help_panel="Around them")(init.init)
app.command(rich_help_panel="Around them")(run.run)
app.command(rich_help_panel="Around them")(check.check)
app.command(rich_help_panel="Around them")(show.show)
app.command(rich_help_panel="Around them")(predict.predict)
app.command(rich_help_panel="Around them")(count.count)
app.command(rich_help_panel="Around them")(align.align)
app.command(rich_help_panel="Around them")(inspect.inspect)
app.command(rich_help_panel="Around them")(export.export)
app.command("import", rich_help_panel="Around them")(import_.import_)
app.add_typer(grid.app, name="grid", rich_help_panel="Around them")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mhrctl {mhrctl.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Cross-task generalisation with routed adapters."""


def main() -> None:
    """Run the command line: 0 for success, 2 and one line for what the user can mend, a traceback and 1 for a bug."""
    try:
        app()
    except MhrctlError as error:  # of options before the command
        _fail(str(error), 2)


def _end(number: int) -> NoReturn:
    what = "interrupted" if number == signal.SIGINT else "terminated"
    _fail(f"{what}: what was there is as it was, and the same command goes on or begins anew", 128 + number)


def _stop(message: str, typed: list[str], code: int) -> NoReturn:
    """Say where a training has stopped; of several processes, the first says it."""
    if launched_processes() > 1:
        said = f"{message}; the same command goes on from there" if os.environ.get("RANK", "0") == "0" else ""
    else:
        said = f"{message}; `{shlex.join(['mhrctl', *typed])}` goes on from there"
    if said:
        done(said)
    sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)
