"""Two processes at once in one project: each does its work or says that the other does, and the results are whole."""

from __future__ import annotations

import signal
from typing import NamedTuple

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.readers import READERS, is_output
from tests.robustness.workshop import Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])


class Pair(NamedTuple):
    """A pair is two commands, the second so many seconds later, of which the first may be killed."""

    first: str
    second: str
    later: float
    absent: bool
    kill: float | None = None


STAGES = ("prepare", "backbone", "index", "pretrain lora", "average mhr", "adapt lora", "evaluate lora", "report")
SAME = [Pair(name, name, later, absent) for later in (0.0, 0.05, 0.15) for absent in (True, False) for name in STAGES]
OTHERS = [
    Pair(first, second, later, False)
    for first, second in (
        ("pretrain lora", "pretrain mhr"),
        ("adapt lora", "adapt soup"),
        ("evaluate lora", "evaluate backbone"),
        ("export adapt", "export adapt"),
        ("inspect", "inspect"),
        ("align", "align"),
    )
    for later in (0.0, 0.1)
]
KILLED = [Pair(name, name, 0.05, True, kill) for kill in (0.06, 0.2) for name in STAGES]
FORCED = {"prepare", "backbone", "index", "pretrain", "average", "adapt", "evaluate"}


def judged(workshop: Workshop, pair: Pair, ends: list[Ended]) -> tuple[Kind, str]:
    """Say how a pair ended: each is right or refused, one of them right, and the results are those of one process alone."""
    surviving = ends[1:] if pair.kill else ends
    kinds = [ended.kind() for ended in surviving]
    for bad in ("hangs", "tracebacks", "unexpected"):
        if bad in kinds:
            return bad, surviving[kinds.index(bad)].err[-300:]
    readers = [READERS[pair.first], READERS[pair.second]]
    if pair.kill or "right" not in kinds:  # the killed one's work is done again
        again = [workshop.run(*readers[1].argv)]
        if again[0].kind() != "right":
            return "unexpected", f"afterwards: {again[0].err[-300:]}"
    changed = [name for name in workshop.changed() if not name.rsplit("/", 1)[-1].endswith(".lock")]
    if lost := [name for name in changed if not any(is_output(name, reader) for reader in readers)]:
        return "lost", f"{lost[:3]}"
    return ("silent", f"{changed[:3]}") if changed else ("right", "")


def tried(workshop: Workshop, pair: Pair) -> tuple[Kind, str, Ended]:
    """Run a pair, judge it, and put all back."""
    readers = [READERS[pair.first], READERS[pair.second]]
    if pair.absent:
        workshop.remove(*(name for reader in readers for name in reader.writes))
    force = [["--force"] if reader.argv[0] in FORCED and not pair.absent else [] for reader in readers]
    kill = (signal.SIGKILL, pair.kill) if pair.kill else None
    ends = workshop.runner.together(
        workshop.job(*readers[0].argv, *force[0], kill=kill), workshop.job(*readers[1].argv, *force[1], start=pair.later)
    )
    kind, why = judged(workshop, pair, ends)
    workshop.restore()
    return kind, why, ends[1]


@FORMS
def test_pairs_of_processes_do_no_harm_to_each_other(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"pairs of processes ({form})")
    for pair in sampled([*SAME, *OTHERS, *KILLED], form, 6):
        kind, why, ended = tried(workshop, pair)
        campaign.count(str(pair), kind, ended, why)
    campaign.require_clean()


@pytest.mark.parametrize("stage", ["adapt", "pretrain"])
def test_a_prune_leaves_a_running_stage_its_folder(workshop: Workshop, counting: Counting, stage: str) -> None:
    """Cell lora-s1 has left the grid when it is pruned, while a stage of another cell runs: that one ends right."""
    campaign = counting("a stage and a prune")
    params = workshop.root / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    workshop.run("grid", "sync")
    left = ("data/adapt/lora-s1", "data/pretrain/lora-s1")
    for later in (0.02, 0.1, 0.2):
        ends = workshop.runner.together(
            workshop.job(stage, "-m", "lora", "--seed", "0", "--force"),
            workshop.job("grid", "prune", "--yes", "--also-by-hand", start=later),
        )
        kinds: list[Kind] = [ended.kind() for ended in ends]
        gone = [name for name in workshop.changed() if f"data/{stage}/lora-s0" in name or "tasks/" in name]
        still = [name for name in left if (workshop.root / name).exists() and kinds[1] == "right"]
        bad = [kind for kind in kinds if kind not in {"right", "refused"}]
        kind: Kind = bad[0] if bad else "lost" if gone else "unexpected" if still or kinds[0] != "right" else "right"
        campaign.count(f"{stage} and a prune {later} s later", kind, ends[0 if kinds[0] != "right" else 1], f"{gone[:3]}")
    campaign.require_clean()
