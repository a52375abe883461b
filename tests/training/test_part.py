"""A part of a pre-training: what its log counts, and what there is to go on from when it diverges."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from mhrctl.progress import unrecorded
from mhrctl.training.log import LOG_COLUMNS
from mhrctl.training.part import Part, left_by


class Numbered:
    """Batches of which each has ten times its number of tokens."""

    def tokens(self, micro: int) -> int:
        return 10 * micro


def test_a_step_has_the_tokens_of_its_micro_batches() -> None:
    part = Part(cast("Any", None), cast("Any", Numbered()), 4, Path("none"), "k")
    log = part.log(LOG_COLUMNS, unrecorded, rows=[], first=0, micro_batches=3)
    for step in (1, 2):
        log.count(step)
    with log.row(2, 1.0, [0.5]):
        pass
    assert log.rows == [[2, 1.0, 0.5, 0.0, 10 * (0 + 1 + 2 + 3 + 4 + 5)]]


def test_what_is_left_is_the_last_checkpoint() -> None:
    assert left_by([0]) == "it has no checkpoint yet"
    assert left_by([0, 3, 6]) == "its checkpoint of step 6 is kept"
