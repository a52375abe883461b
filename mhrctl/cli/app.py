"""The `mhrctl` command has its commands put together here. Nothing here imports torch: a command imports what it runs."""

from __future__ import annotations

import sys

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
    prepare,
    pretrain,
    report,
    run,
)
from mhrctl.cli.display import complain
from mhrctl.cli.once import App
from mhrctl.errors import MhrctlError

app = App(
    name="mhrctl",
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
    """Run the command line: 0 for success, 2 and one line for what the user can mend, a traceback and 1 for the rest."""
    try:
        app()
    except MhrctlError as error:
        complain(str(error))
        sys.exit(2)
