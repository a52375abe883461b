"""Damaged checkpoints of a training that was stopped: whatever is done with them, it ends with the same bytes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import sampled
from tests.robustness.readers import READERS, is_output
from tests.robustness.test_corruptions import cut, emptied, garbled, lengthened, missing, zeroed
from tests.robustness.workshop import Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
EVERY = ("mhrctl.evaluation.pretraining", "CHECKPOINT_EVERY", 1)
FULL = ("mhrctl.stages.pretrain", "write_csv", {"raises": "the training is stopped when its last checkpoint is written"})
SCRATCH = "data/scratch"
FLIPS = 200
TRAININGS = ("pretrain lora", "pretrain mhr", "pretrain soup")
DAMAGES: tuple[Callable[[Path], None], ...] = (cut, emptied, garbled, lengthened, missing, zeroed)


def flipped(number: int) -> Callable[[Path], None]:
    """Return what flips a bit of a file."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        bit = random.Random(number).randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)

    flip.__name__ = f"flipped {number}"
    return flip


@FORMS
def test_damaged_checkpoints_end_in_the_same_bytes(workshop: Workshop, counting: Counting, tmp_path: Path, form: str) -> None:
    campaign = counting(f"checkpoints ({form})")
    for training in sampled([*TRAININGS], form, 1):
        reader = READERS[training]
        workshop.remove(*reader.writes)
        stopped = workshop.run(*reader.argv, patches=(EVERY, FULL))
        assert "the training is stopped" in stopped.err
        kept = Path(shutil.copytree(workshop.root / SCRATCH, tmp_path / training))
        files = [path.relative_to(kept) for path in sorted(kept.rglob("*")) if path.is_file()]
        assert files
        flips = [flipped(number) for number in range(FLIPS // len(TRAININGS) // len(files))]
        cases = [(file, damage) for file in files for damage in (*DAMAGES, *flips)]
        for file, damage in sampled(cases, form, 6):
            workshop.restore()
            workshop.remove(*reader.writes, SCRATCH)
            shutil.copytree(kept, workshop.root / SCRATCH)
            damage(workshop.root / SCRATCH / file)
            ended = workshop.run(*reader.argv, patches=(EVERY,))
            kind = ended.kind()
            changed = workshop.changed(but=[f"{SCRATCH}/"])
            others = [name for name in changed if not is_output(name, reader)]
            kind = "lost" if others else "silent" if kind == "right" and changed else kind
            kind = "unexpected" if kind == "refused" else kind  # a training must not be stopped for good
            campaign.count(f"{training}: {file} {damage.__name__}", kind, ended, f"{changed[:3]}" if changed else "")
        workshop.restore()
    campaign.require_clean()
