"""The `mhrctl` command has its commands put together here. Nothing here imports torch: a command imports what it runs."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
    doctor,
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
    pull,
    push,
    report,
    run,
    show,
)
from mhrctl.cli.completion import is_completing
from mhrctl.cli.display import complain, done, loaded
from mhrctl.cli.failures import reason_of
from mhrctl.cli.help import examples, write_commands
from mhrctl.cli.once import App, OnceGroup
from mhrctl.cli.options import launched_processes
from mhrctl.cli.signals import TerminatedError, asked_to_end, raising_signals
from mhrctl.cli.usage import complaint
from mhrctl.errors import MhrctlError, StoppedError
from mhrctl.hub import heard

TYPED = "mhrctl.typed"


@dataclass(frozen=True)
class Entry:
    """A command as the help names it.

    Attributes:
        command: the function, or the commands below it.
        line: what it is for, in a line of the help of all, or a line of each command below it; a stage has none.
        examples: command lines, for its own help.
    """

    command: Callable[..., None] | App
    line: str | Mapping[str, str]
    examples: Sequence[str] = ()


SECTIONS: dict[str, dict[str, Entry]] = {
    "Start": {
        "init": Entry(
            init.init,
            "Make a project for your own tasks, or for a study of the paper.",
            ["mhrctl init study --path my-tasks --backbone google/flan-t5-base", "mhrctl init t0-study --suite t0"],
        ),
        "check": Entry(
            check.check,
            "Look at settings, files, memory and time before anything runs.",
            ["mhrctl check", "mhrctl check mhr-h8-s0", "mhrctl check --time", "mhrctl check --deep"],
        ),
        "run": Entry(
            run.run,
            "Run what is not up to date; --jobs N runs N stages at once.",
            ["mhrctl run", "mhrctl run --dry", "mhrctl run --jobs 2 evaluate@mhr-h8-s0", "mhrctl run --gpus 0,1"],
        ),
        "report": Entry(
            report.report,
            "Tables, comparisons, figures, one HTML page.",
            ["mhrctl report", "mhrctl report --compare mhr --compare poly", "mhrctl report --html"],
        ),
    },
    "Single stages, in their order": {
        "prepare": Entry(prepare.prepare, "", ["mhrctl prepare", "mhrctl prepare --set prepare.path=my-tasks"]),
        "backbone": Entry(
            backbone.backbone, "", ["mhrctl backbone", "mhrctl backbone --set backbone.name=google/flan-t5-base"]
        ),
        "pretrain": Entry(
            pretrain.pretrain,
            "",
            ["mhrctl pretrain mhr-h8-s0", "mhrctl pretrain --method lora --seed 1 --set pretrain.lr=0.001"],
        ),
        "average": Entry(average.average, "", ["mhrctl average mhr-h8-s0"]),
        "index": Entry(index.app, "", ["mhrctl index", "mhrctl index query --task capital --top 3"]),
        "adapt": Entry(adapt.adapt, "", ["mhrctl adapt mhr-h8-s0", "mhrctl adapt --method mhr_mu --set adapt.shots=8"]),
        "evaluate": Entry(
            evaluate.evaluate,
            "",
            ["mhrctl evaluate mhr-h8-s0", "mhrctl evaluate lora-s0 --zero-shot", "mhrctl evaluate backbone"],
        ),
    },
    "Look inside": {
        "show": Entry(
            show.show,
            "A task's prompts and answers, as the model reads them.",
            ["mhrctl show --task capital -n 5", "mhrctl show --task capital --tokens"],
        ),
        "predict": Entry(
            predict.predict,
            "Answer new inputs, JSON Lines in and out.",
            [
                "mhrctl predict questions.jsonl --task capital --cell mhr-h8-s0",
                "mhrctl predict < questions.jsonl --cell lora-s0",
            ],
        ),
        "count": Entry(
            count.count,
            "How many parameters each method trains, without its weights.",
            ["mhrctl count --backbone t5-base --heads 8", "mhrctl count --format csv"],
        ),
        "inspect": Entry(
            inspect.inspect,
            "Which tasks share which skills: numbers and heat maps.",
            ["mhrctl inspect mhr-h8-s0", "mhrctl inspect mhr-h8-s0 --stage adapt"],
        ),
        "align": Entry(
            align.align,
            "Whether tasks pull adapters the same way: cosines of gradients.",
            ["mhrctl align mhr-h8-s0", "mhrctl align poly-s0 --at start"],
        ),
    },
    "Exchange": {
        "export": Entry(
            export.export,
            "Write PEFT folders or merged models.",
            ["mhrctl export mhr_mu-h8-s0 --task capital", "mhrctl export lora-s0 --merge --out models"],
        ),
        "import": Entry(
            import_.import_,
            "Start from an adapter of PEFT, T-Few or the paper's authors.",
            ["mhrctl import my-lora --cell lora-s100"],
        ),
        "push": Entry(
            push.push,
            "Send an export to the Hugging Face hub.",
            ["mhrctl push data/export/adapt/lora-s0 me/my-tasks --license apache-2.0 --dry-run"],
        ),
        "pull": Entry(
            pull.pull,
            "Bring an adapter, a pool or a model from the hub.",
            ["mhrctl pull me/my-tasks", "mhrctl pull me/my-tasks --revision COMMIT"],
        ),
    },
    "Grid": {
        "grid": Entry(
            grid.app,
            {
                "grid sync": "Write the grid into data/cells, after an edit of params.yaml.",
                "grid prune": "Remove outputs of cells that have left the grid.",
            },
            ["mhrctl grid sync", "mhrctl grid prune", "mhrctl grid prune --yes"],
        ),
    },
    "Machine": {
        "doctor": Entry(
            doctor.doctor,
            "Versions, devices, caches, disks; what is missing for which command.",
            ["mhrctl doctor", "mhrctl doctor --json", "mhrctl doctor -C study"],
        ),
    },
}
"""{heading: {command: its entry}}, in the order of the help."""
FIRST_STEPS = "mhrctl init study && cd study && mhrctl run && mhrctl report"


class Commands(OnceGroup):
    """The commands, of which each ends with an exit code and a line, or with a traceback if it has met a bug."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer's own
        """Parse the command line, and keep what was typed."""
        ctx.meta[TYPED] = list(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Show what there is, on one screen."""
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS]")
        formatter.write_paragraph()
        formatter.write_text(str(self.help))
        for heading, entries in SECTIONS.items():
            lines = [{name: entry.line} if isinstance(entry.line, str) else entry.line for name, entry in entries.items()]
            write_commands(formatter, heading, ChainMap(*map(dict, reversed(lines))))
        formatter.write_paragraph()
        formatter.write_text("`mhrctl COMMAND -h` says what a command can do. Others here: --version, --install-completion.")
        formatter.write_paragraph()
        formatter.write_text(f"First steps:  {FIRST_STEPS}")

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own
        """Run a command: 2 for what the user can fix, 1 for what the environment does not give, 128 + N for a signal."""
        try:
            with raising_signals(), heard(_say_of_one):
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
    help="Train adapters on many tasks, then learn new tasks from a few examples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, entry in (pair for of in SECTIONS.values() for pair in of.items()):
    if isinstance(entry.command, App):
        app.add_typer(entry.command, name=name, epilog=examples(entry.examples))
    else:
        line = entry.line if isinstance(entry.line, str) else ""
        app.command(name, epilog=examples(entry.examples), short_help=line or None)(entry.command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mhrctl {mhrctl.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Train adapters on many tasks, then learn new tasks from a few examples."""


def main() -> None:
    """Run the command line: 0 for success, 2 and one line for what the user can fix, a traceback and 1 for a bug."""
    if is_completing():
        with suppress(Exception):  # of a half-typed line there is nothing to complain: it completes to nothing
            app(prog_name="mhrctl", standalone_mode=False)
        sys.exit(0)
    try:
        sys.exit(app(prog_name="mhrctl", standalone_mode=False))  # what typer cannot parse is said below, as all that is wrong
    except typer.Abort:
        _fail("aborted", 1)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), nl=False)  # a group's help, where rich has not shown it
            sys.exit(error.exit_code)
        _fail(complaint(error), error.exit_code)
    except MhrctlError as error:  # of options before the command
        _fail(str(error), 2)


def _end(number: int) -> NoReturn:
    what = "interrupted" if number == signal.SIGINT else "terminated"
    _fail(f"{what}: what was there is as it was, and the same command goes on or begins again", 128 + number)


def _stop(message: str, typed: list[str], code: int) -> NoReturn:
    """Say where a training has stopped; of several processes, the first says it."""
    if launched_processes() > 1:
        said = f"{message}; the same command goes on from there" if os.environ.get("RANK", "0") == "0" else ""
    else:
        said = f"{message}; `{shlex.join(['mhrctl', *typed])}` goes on from there"
    if said:
        done(said)
    sys.exit(code)


def _say_of_one(message: str) -> None:
    """Say what is fetched; of several processes, the first says it."""
    if os.environ.get("RANK", "0") == "0":
        done(message)


def _fail(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)
