"""One bit of an artifact is another: what reads it refuses it, or its results are those of the whole artifact to the byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.readers import READERS, judge, pairs
from tests.robustness.workshop import Workshop, files_of

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
FLIPS = 2100


class Flip(NamedTuple):
    """A flip is a bit of a file that a command reads, and whether the command's outputs are there already."""

    file: str
    reader: str
    bit: int
    absent: bool


def flips(workshop: Workshop) -> Iterator[Flip]:
    """Yield flips without end, always the same: each pair of a file and a command as often as any other."""
    chosen = random.Random(0)
    files = files_of(workshop.root)
    read = pairs([*files])
    while True:
        chosen.shuffle(read)
        for file, reader in read:
            yield Flip(file, reader, chosen.randrange(8 * files[file].stat().st_size), chosen.random() < 0.5)


def flip(workshop: Workshop, case: Flip) -> None:
    """Flip a bit."""
    path = workshop.root / case.file
    content = bytearray(path.read_bytes())
    content[case.bit // 8] ^= 1 << case.bit % 8
    path.write_bytes(content)


def tried(workshop: Workshop, case: Flip, answer: str, **rest: object) -> tuple[Kind, str, Ended]:
    """Flip a bit, run a command, judge it, and put all back."""
    reader = READERS[case.reader]
    if case.absent:
        workshop.remove(*(name for name in reader.writes if case.file != name and not case.file.startswith(f"{name}/")))
    flip(workshop, case)
    ended = workshop.run(*reader.argv, **rest)
    kind, why = judge(workshop, ended, reader, case.file, answer=answer, absent=case.absent)
    workshop.restore()
    return kind, why, ended


@pytest.fixture
def answer(workshop: Workshop) -> str:
    """What `index query` prints in the undamaged project."""
    return workshop.run(*READERS["query"].argv).out


@FORMS
def test_no_flipped_bit_is_used_unseen(workshop: Workshop, counting: Counting, answer: str, form: str) -> None:
    campaign = counting(f"flipped bits ({form})")
    endless = flips(workshop)
    for case in sampled([next(endless) for _ in range(FLIPS)], form, 16):
        kind, why, ended = tried(workshop, case, answer)
        campaign.count(str(case), kind, ended, why)
    campaign.require_clean()
