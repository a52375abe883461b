"""What adaptation starts from: each task has a start of its own, or all copy one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.experts import Arrow
from mhrctl.adapters.files import save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import AdaptParams
from mhrctl.errors import ParamsError
from mhrctl.models.attach import inject
from mhrctl.training.start import Start, candidates, open_index, start_of


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


def test_a_router_over_a_pool_leaves_out_the_adapter_of_each_tasks_name(
    tmp_path: Path, tiny_t5: T5ForConditionalGeneration
) -> None:
    pool = Inventory(inject(tiny_t5, ["q"]), runs=2)
    save_adapter(pool, tmp_path / "adapters.safetensors")
    card: Any = SimpleNamespace(facts=SimpleNamespace(tasks=["new", "other"]))
    for leave_out, left in (("nothing", ()), ("adapter", (0, None)), ("examples", (0, None))):
        said = {"steps": 1, "batch_size": 1, "shots": 1, "evaluate_every": 1, "leave_out": leave_out}
        params = AdaptParams.model_validate(said)
        file = tmp_path / "adapters.safetensors"
        start = start_of(Cell(method="arrow"), params, tiny_t5, file, card, None, ["new", "newer"])
        assert isinstance(start.base, Arrow)
        assert start.base.left_out == left
        assert start.by_task == bool(left)
