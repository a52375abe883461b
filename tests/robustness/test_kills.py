"""Stages that are killed at any moment: nothing that was there is lost, and a rerun ends with the same bytes."""

from __future__ import annotations

import random
import signal

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.readers import READERS, Reader, is_output
from tests.robustness.workshop import SIGNALS, Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
STAGES = (
    "prepare",
    "backbone",
    "index",
    "pretrain lora",
    "pretrain mhr",
    "average mhr",
    "adapt lora",
    "adapt soup",
    "evaluate lora",
    "report",
)
CHECKPOINTS = (("mhrctl.evaluation.pretraining", "CHECKPOINT_EVERY", 1),)
"""A pre-training of four steps writes checkpoints, too."""
PASSING = ("data/scratch/",)
"""Checkpoints may be left behind by a kill."""
KILLS = 5
"""So many times is each stage killed by each signal."""


def judged(workshop: Workshop, ended: Ended, again: Ended, reader: Reader, lost: list[str]) -> tuple[Kind, str]:
    """Say how a killed command and its rerun ended."""
    if ended.hung or again.hung:
        return "hangs", ""
    if lost:
        return "lost", f"after the kill: {lost[:3]}"
    if "Traceback" in ended.err:
        return "tracebacks", ended.err[-300:]
    if ended.code == 2:
        return "unexpected", ended.err[-300:]
    kind = again.kind()
    if kind != "right":
        return ("unexpected" if kind == "refused" else kind), f"the rerun: {again.err[-300:]}"
    # A stage that is killed when its output is in place leaves the file of its lock, which holds nothing.
    changed = [name for name in workshop.changed() if not name.endswith(".lock")]
    others = [name for name in changed if not is_output(name, reader)]
    return ("lost", f"{others[:3]}") if others else ("silent", f"{changed[:3]}") if changed else ("right", "")


def killed(workshop: Workshop, reader: Reader, number: int, after: float, *, absent: bool) -> tuple[Kind, str, Ended]:
    """Kill a command, look at what is left, run it again, and put all back."""
    force = [] if absent or reader.argv[0] == "report" else ["--force"]
    if absent:
        workshop.remove(*reader.writes)
    ended = workshop.run(*reader.argv, *force, kill=(number, after), patches=CHECKPOINTS)
    changed = workshop.changed(but=PASSING)
    lost = [name for name in changed if not is_output(name, reader) and not _is_aside(name)]
    if not absent:  # an output is the old one or the new one, which are equal, at any moment
        lost += [name for name in changed if is_output(name, reader)]
    again = workshop.run(*reader.argv, *force, patches=CHECKPOINTS)
    kind, why = judged(workshop, ended, again, reader, lost)
    workshop.restore()
    return kind, why, ended


def _is_aside(name: str) -> bool:
    """Whether a path is one that a killed process writes aside, or its lock: a hidden name."""
    return any(part.startswith(".") for part in name.split("/"))


@FORMS
def test_killed_stages_lose_nothing_and_end_with_the_same_bytes(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"kills ({form})")
    chosen = random.Random(0)
    took: dict[str, float] = {"report": 0.2}
    cases = [(name, number, turn) for turn in range(KILLS) for name in STAGES for number in SIGNALS]
    for name, number, turn in sampled(cases, form, 5):
        if name not in took:
            took[name] = workshop.run(*READERS[name].argv, "--force").seconds
            workshop.restore()
        after = chosen.random() * took[name] * 1.05
        kind, why, ended = killed(workshop, READERS[name], number, after, absent=turn % 2 == 1)
        campaign.count(f"{name}, {signal.Signals(number).name} after {after:.3f} s, turn {turn}", kind, ended, why)
    campaign.require_clean()
