"""`mhrctl doctor` says how machine and installation are, and what is missing for which command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mhrctl.cli import display
from mhrctl.cli.json_ import JsonOption, print_json
from mhrctl.cli.options import HERE, ProjectOption
from mhrctl.cli.signals import CHECKPOINT_SECONDS
from mhrctl.errors import DataError, counted

if TYPE_CHECKING:
    from mhrctl.tools.doctor import Findings

STYLES = {"ok": "green", "-": "dim", "warning": "yellow", "broken": "bold red"}


def doctor(context: typer.Context, project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Look at versions, devices, caches, disks, and at the project that is here; what a study needs is `mhrctl check`'s.

    Nothing is fetched. The exit code is 1 if something is broken, and 0 if something is only not there.
    """
    from mhrctl.tools.doctor import doctor as look
    from mhrctl.tools.doctor import is_broken
    from mhrctl.tools.installation import State

    if not project.is_dir():
        raise DataError(f"{project}: no such folder")
    display.loading("libraries")
    findings = look(project.resolve(), {*_variables(context.find_root().command), CHECKPOINT_SECONDS})
    broken = is_broken(findings)
    if as_json:
        sections = {heading: [asdict(each) for each in group] for heading, group in findings.items()}
        print_json({"ok": not broken, "sections": sections})
    else:
        display.out.print(_table(findings))
        counts = Counter(each.state for group in findings.values() for each in group)
        said = [f"{counts[State.BROKEN]} broken"] if counts[State.BROKEN] else []
        said += [counted(counts[State.WARNING], "warning")] if counts[State.WARNING] else []
        display.show(", ".join(said) or "ok: nothing to put right")
    if broken:
        raise typer.Exit(1)


def _table(findings: Findings) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for heading, group in findings.items():
        shown.add_row("", Text(heading, style="bold"), "")
        for each in group:
            remedy = f"\n{each.remedy}" if each.remedy else ""
            state = Text(each.state, style=STYLES[each.state])
            shown.add_row(state, display.plain(each.name), display.plain(f"{each.says}{remedy}"))
        shown.add_section()
    return shown


def _variables(command: Any) -> Iterator[str]:  # noqa: ANN401 - typer has its own click
    """The variables of the environment that options of a command, and of those below it, stand for."""
    for param in command.params:
        yield from [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()
    for each in getattr(command, "commands", {}).values():
        yield from _variables(each)
