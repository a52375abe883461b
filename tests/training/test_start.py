"""What adaptation starts from: each task has a start of its own, or all copy one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mhrctl.config.methods import METHODS
from mhrctl.config.sections import AdaptParams
from mhrctl.errors import ParamsError
from mhrctl.training.start import Start, candidates, open_index


class Asked:
    """An adapter that says what is asked of it."""

    def select(self, runs: Sequence[int]) -> tuple[str, list[int]]:
        return "select", list(runs)

    def for_new_tasks(self, seeds: Sequence[int], *, train_skills: bool) -> tuple[str, list[int], bool]:
        return "new", list(seeds), train_skills


class Task:
    """A test task by its seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed


def test_a_batch_of_tasks_has_its_part_of_the_start() -> None:
    base, shots = cast("Any", Asked()), cast("Any", [Task(seed) for seed in (5, 6, 7)])
    by_task: Any = Start(base, by_task=True, trains_skills=True).of(shots, 1, 2)
    anew: Any = Start(base, by_task=False, trains_skills=False).of(shots, 1, 2)
    assert by_task == ("select", [1, 2])
    assert anew == ("new", [6, 7], False)


def test_a_soup_needs_the_index() -> None:
    with pytest.raises(ParamsError, match=r"adapter_soup needs the index of training tasks; run `mhrctl index`"):
        open_index(METHODS["adapter_soup"], None, prepared=Path("none"), root=Path(), device="cpu")


@pytest.mark.parametrize(("leave_out", "left"), [("nothing", [0, 1]), ("adapter", [1]), ("examples", [1])])
def test_the_adapter_of_a_tasks_name_may_be_left_out(leave_out: str, left: list[int]) -> None:
    params = AdaptParams.model_validate({"steps": 1, "batch_size": 1, "shots": 1, "evaluate_every": 1, "leave_out": leave_out})
    assert candidates(params, ["new", "other"], "new") == left
