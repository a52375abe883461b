"""Full disks and read-only projects: one line, and every output is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.disks import PAGE, fill, remount, small_disk
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.readers import READERS
from tests.robustness.workshop import Runner, Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
FREE = (0, PAGE, 4 * PAGE, 12 * PAGE)
"""Bytes that are free."""
FORCED = (
    *("prepare", "backbone", "index", "pretrain lora", "pretrain mhr", "average mhr"),
    *("adapt lora", "adapt soup", "evaluate lora"),
)
OTHERS: tuple[tuple[str, ...], ...] = (
    ("report",),
    ("export", "-m", "lora"),
    ("inspect", "-m", "poly"),
    ("align", "-m", "lora", "--tasks", "2"),
    ("grid", "sync"),
)
COMMANDS = (*((*READERS[name].argv, "--force") for name in FORCED), *OTHERS)
CODES = (1, 2)
READ_ONLY_MEGABYTES = 24


def judged(workshop: Workshop, ended: Ended) -> tuple[Kind, str]:
    """Say how a command ended that cannot write all that it would: nothing that was there may differ, in any case."""
    kind = ended.kind(CODES)
    changed = workshop.changed(but=["data/scratch/"])
    old = [name for name in changed if name in workshop.names]
    if old:
        return ("silent" if kind == "right" else "lost"), f"changed: {old[:3]}"
    if kind == "right" and changed:
        return "silent", f"left: {changed[:3]}"
    return kind, ""


@FORMS
def test_a_full_disk_loses_nothing(runner: Runner, pristine: Path, tmp_path: Path, counting: Counting, form: str) -> None:
    campaign = counting(f"full disks ({form})")
    with small_disk(tmp_path / "disk", READ_ONLY_MEGABYTES) as disk:
        workshop = Workshop(runner, pristine, disk / "project")
        cases = [(argv, free) for free in FREE for argv in COMMANDS]
        for argv, free in sampled(cases, form, 4):
            ballast = fill(disk, free)
            ended = workshop.run(*argv, env={"TMPDIR": str(disk)})
            kind, why = judged(workshop, ended)
            campaign.count(f"{free} bytes free", kind, ended, why)
            ballast.unlink()
            again = workshop.run(*argv)  # when there is room, it goes well
            left = workshop.changed()
            kind = again.kind() if not left else "silent"
            campaign.count(f"{free} bytes free, then all", kind if kind != "refused" else "unexpected", again, f"{left[:3]}")
            workshop.restore()
    campaign.require_clean()


@FORMS
def test_a_read_only_project_is_refused_in_one_line(
    runner: Runner, pristine: Path, tmp_path: Path, counting: Counting, form: str
) -> None:
    """What writes nothing goes well; the rest is refused."""
    campaign = counting(f"read-only projects ({form})")
    with small_disk(tmp_path / "disk", READ_ONLY_MEGABYTES) as disk:
        workshop = Workshop(runner, pristine, disk / "project")
        reading: list[tuple[str, ...]] = [("check",), ("grid", "sync", "--check")]
        reading += [("prepare",), ("adapt", "-m", "lora"), ("grid", "prune")]
        remount(disk, writable=False)
        for argv in sampled([*COMMANDS, *reading], form, 5):
            ended = workshop.run(*argv)
            kind, why = judged(workshop, ended)
            if argv in reading and kind != "right":
                kind, why = "unexpected", ended.err[-200:]
            if argv not in reading and argv != ("grid", "sync") and kind == "right":
                kind, why = "silent", "exit 0, and nothing can have been written"
            campaign.count("read-only", kind, ended, why)
        remount(disk, writable=True)
    campaign.require_clean()
