"""Wrong options of every command: refused in one line (or by the option parser, with the usage), none taken in silence."""

from __future__ import annotations

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import sampled
from tests.robustness.workshop import Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
CELL_COMMANDS = ("pretrain", "average", "adapt", "evaluate", "align", "inspect", "export", "count")
WRONG_CELLS: tuple[tuple[str, ...], ...] = (
    ("-m", "nope"),
    ("-m", ""),
    ("-m", "../lora"),
    ("-m", "lora", "--seed", "-1"),
    ("-m", "lora", "--seed", "x"),
    ("-m", "lora", "--seed", str(2**31)),
    ("-m", "lora", "--seed", "1.5"),
    ("-m", "lora", "--variant", "nope"),
    ("-m", "lora", "--variant", "../x"),
    ("-m", "lora", "--heads", "0"),
    ("-m", "mhr", "--heads", "3"),
    ("-m", "mhr", "--heads", "1000000"),
    ("--no-such-option",),
    ("-m",),
)
WRONG_FILES: tuple[tuple[str, ...], ...] = (
    ("--cell", "nope"),
    ("--cell", "../../params"),
    ("--cell", "/etc/passwd"),
    ("--cell", "lora-s0", "-m", "lora"),
    ("--cell", "lora-s0", "--seed", "0"),
    ("--cell", ""),
    ("--cell", "index"),
    ("--cell", "versions"),
)
WRONG_SETS = (
    "",
    "x",
    "=",
    "lr=1",
    "adapt",
    "adapt.lr",
    "adapt.=1",
    ".lr=1",
    "adapt.nope=1",
    "nope.lr=1",
    "adapt.lr=[",
    "adapt.lr=\udcff",
    "adapt.lr=" + "[" * 3000,
    "adapt.lr=" + "9" * 5000,
    "adapt.lr=!!python/name:os.system",
    "adapt.lr=*a",
    "adapt=1",
    "adapt.lr.x=1",
    "adapt.lr=a: b: c",
    "adapt.lr=1\n2",
)
OTHERS: tuple[tuple[str, ...], ...] = (
    ("nope",),
    ("adapt", "-m", "lora", "--device", "nope"),
    ("adapt", "-m", "lora", "--device", "cuda:99"),
    ("adapt", "-m", "lora", "--off", "nope"),
    ("adapt", "-m", "lora", "--track", "nope"),
    ("adapt", "-m", "lora", "--together", "0"),
    ("adapt", "-m", "lora", "--recipe", "nope"),
    ("adapt", "-m", "lora", "--set", "pretrain.lr=0.1"),
    ("adapt", "-m", "lora", "--set", "prepare.seed=1"),
    ("pretrain", "-m", "lora", "--set", "adapt.lr=0.1"),
    ("pretrain", "-m", "lora", "--extra-steps", "0"),
    ("pretrain", "-m", "poly", "--extra-steps", "5"),
    ("prepare", "--set", "adapt.lr=0.1"),
    ("backbone", "--set", "pretrain.lr=0.1"),
    ("index", "--set", "pretrain.lr=0.1"),
    ("index", "query", "--task", "nope"),
    ("index", "query", "--task", "swap", "--top", "0"),
    ("report", "--table", "99"),
    ("report", "--table", "x"),
    ("report", "--format", "nope"),
    ("align", "-m", "lora", "--tasks", "1"),
    ("align", "-m", "lora", "--at", "nope"),
    ("align", "-m", "lora", "--at", "checkpoint"),
    ("export", "-m", "lora", "--task", "nope"),
    ("export", "-m", "lora", "--stage", "nope"),
    ("export", "-m", "lora", "--to", "nope"),
    ("export", "-m", "lora", "--out", "/proc/nope"),
    ("inspect", "-m", "lora"),
    ("import", "nowhere"),
    ("import", "/dev/null"),
    ("import", "params.yaml"),
    ("run", "--jobs", "0"),
    ("run", "--jobs", "x"),
    ("run", "--gpus", "nope,-3"),
    ("run", "--cell", "a", "--cell", "b"),
    ("run", "no-such-stage"),
    ("grid", "nope"),
    ("check", "--no-such"),
    ("report", "--json", "--format", "csv"),
    ("count", "--json", "--format", "latex"),
    ("doctor", "extra"),
    ("doctor", "--no-such"),
)


def cases() -> list[tuple[str, ...]]:
    """Return the words of all wrong commands."""
    cells = [(command, *wrong) for command in CELL_COMMANDS for wrong in WRONG_CELLS]
    files = [(command, *wrong) for command in ("pretrain", "average", "adapt", "evaluate") for wrong in WRONG_FILES]
    sets = [(*command, "--set", wrong) for command in (("adapt", "-m", "lora"), ("check",)) for wrong in WRONG_SETS]
    return [*cells, *files, *sets, *OTHERS]


@FORMS
def test_wrong_options_are_refused(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"bad options ({form})")
    for argv in sampled(cases(), form, 15):
        ended = workshop.run(*argv)
        kind = ended.kind()
        changed = workshop.changed()
        if kind == "right":
            kind = "silent"
        elif kind == "refused" and changed:
            kind = "lost"
        campaign.count(" ".join(argv)[:120], kind, ended, f"changed: {changed[:3]}" if changed else "")
        workshop.restore()
    campaign.require_clean()
