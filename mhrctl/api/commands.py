"""A stage that is called from Python is its command: its options, the environment that it reads, its locks, cards and lines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypedDict

import typer
from typer.main import get_command

from mhrctl.errors import ParamsError

Settings = Mapping[str, Any]
"""{setting, such as `pretrain.steps`: its value}, as `--set` has them."""


class DeviceOptions(TypedDict, total=False):
    """These options say where to compute; what is left out is what commands take, from their variables of the environment.

    Attributes:
        device: `auto`, a GPU if there is one, or `cpu`.
        threads: CPU threads, of the whole process; results depend on them in their last digits. One is the default.
    """

    device: str
    threads: int


class LoadOptions(DeviceOptions, total=False):
    """These options say how a backbone with adapters is run, beside those of `DeviceOptions`.

    Attributes:
        device_map: how the backbone's layers are spread over GPUs: `auto`, `balanced`, ..., or a JSON file.
        together: tasks in one batch.
        off: speed options to switch off.
    """

    device_map: str
    together: int
    off: Sequence[str]


class StageOptions(DeviceOptions, total=False):
    """These are options of stages, beside those of `DeviceOptions`.

    Attributes:
        force: run it even if its output is up to date.
    """

    force: bool


class EvaluateOptions(LoadOptions, StageOptions, total=False):
    """These are options of stages that run a backbone with adapters, beside those of `LoadOptions` and `StageOptions`.

    Attributes:
        track: trackers that losses and scores are sent to, such as `tensorboard`.
    """

    track: Sequence[str]


class TrainOptions(EvaluateOptions, total=False):
    """These are options of stages that train adapters, beside those of `EvaluateOptions`.

    Attributes:
        checkpointing: take less memory for more time.
        compile: compile blocks of T5.
    """

    checkpointing: bool
    compile: bool


def options(**values: Any) -> list[str]:  # noqa: ANN401 - of any option
    """Write options as a command line has them; one that is None or False is left out, one of a list is repeated."""
    words = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, (list, tuple)):
            words += [f"{option}={each}" for each in value]
        elif value is True:
            words.append(option)
        elif value is not None and value is not False:
            words.append(f"{option}={value}")
    return words


def overrides(settings: Settings | None) -> list[str]:
    """Write settings as `--set` has them, without the word.

    Raises:
        ParamsError: if a value is none that YAML can hold.
    """
    try:
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in (settings or {}).items()]
    except (TypeError, ValueError) as error:
        raise ParamsError(f"settings: {error}") from None


def run_command(name: str, arguments: Sequence[str], *, quiet: bool = False) -> None:
    """Run a command in this process.

    Args:
        name: of the command.
        arguments: as on its command line.
        quiet: whether it says nothing.

    Raises:
        MhrctlError: what the command line would have printed in a line.
    """
    with _typed(), as_command(quiet=quiet):
        _command(name).main(args=list(arguments), prog_name=f"mhrctl {name}", standalone_mode=False)


def parsed(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return {parameter of a command: its value}, checked, with defaults and what the environment says.

    Args:
        name: of the command.
        arguments: as on its command line.

    Raises:
        ParamsError: what the command line would have printed in a line.
    """
    with _typed():
        values: dict[str, Any] = _command(name).make_context(f"mhrctl {name}", list(arguments)).params
        return values


@contextmanager
def silenced(*, silent: bool = True) -> Iterator[None]:
    """Let commands say nothing until the block ends, if that is wanted."""
    from mhrctl.cli import display

    before = display.out.quiet, display.err.quiet
    display.out.quiet, display.err.quiet = silent or before[0], silent or before[1]
    try:
        yield
    finally:
        display.out.quiet, display.err.quiet = before


@contextmanager
def as_command(*, quiet: bool) -> Iterator[None]:
    """Show what a command shows, and say what is fetched, until the block ends, unless it is to be quiet.

    In a notebook libraries complain, as they are imported, of missing widgets for bars that nobody shows.
    """
    from mhrctl.cli import display
    from mhrctl.hub import heard

    with silenced(silent=quiet), heard(display.done), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        try:
            yield
        finally:
            display.loaded()


@contextmanager
def _typed() -> Iterator[None]:
    """Say of a value that an option does not take what the command line says."""
    from mhrctl.cli.usage import complaint

    try:
        yield
    except typer.TyperException as error:
        raise ParamsError(complaint(error)) from None


@cache
def _commands() -> Mapping[str, Any]:
    from mhrctl.cli.app import app

    commands: Mapping[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return commands


def _command(name: str) -> Any:  # noqa: ANN401 - typer has its own click
    return _commands()[name]
