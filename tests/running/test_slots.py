"""Slots: whole, shared, several."""

from __future__ import annotations

import pytest

from mhrctl.errors import ParamsError
from mhrctl.running.slots import Slots, make_slots


def test_halves_share_a_slot_and_leave_others_whole() -> None:
    slots = make_slots(None, ["0", "1"], None, {"evaluate": 0.5})
    assert slots.limit == 4
    assert slots.take("a", "evaluate") == {"0": 0.5}
    assert slots.take("b", "evaluate") == {"0": 0.5}
    assert slots.take("c", "pretrain") == {"1": 1.0}
    assert slots.take("d", "evaluate") is None
    slots.release("b")
    assert slots.take("e", "pretrain") is None
    assert slots.take("f", "evaluate-backbone") == {"0": 0.5}
    assert slots.environment({"0": 0.5}) == {"CUDA_VISIBLE_DEVICES": "0"}


def test_a_job_can_take_several_slots() -> None:
    slots = make_slots(None, ["2", "3", "5"], None, {"pretrain": 2})
    taken = slots.take("a", "pretrain")
    assert taken == {"2": 1.0, "3": 1.0}
    assert slots.environment(taken) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert slots.take("b", "pretrain") is None
    assert slots.take("c", "adapt") == {"5": 1.0}


def test_thirds_fill_a_slot() -> None:
    slots = Slots(["0"], {"evaluate": 1 / 3})
    assert [bool(slots.take(name, "evaluate")) for name in "abcd"] == [True, True, True, False]
    for name in "abc":
        slots.release(name)
    assert slots.take("e", "pretrain") == {"0": 1.0}


def test_adopted_jobs_keep_their_slots() -> None:
    slots = make_slots(None, ["0", "1"], None, {})
    slots.claim("adopted", {"1": 1.0})
    slots.claim("from another GPU", {"7": 1.0})
    assert slots.take("a", "adapt") is None  # two jobs run already
    slots.release("from another GPU")
    assert slots.take("a", "adapt") == {"0": 1.0}


def test_jobs_alone_ask_for_one_slot_each() -> None:
    slots = make_slots(2, [], None, {"pretrain": 4, "evaluate": 0.1})
    assert slots.take("a", "pretrain")
    assert slots.take("b", "evaluate")
    assert slots.take("c", "evaluate") is None
    assert slots.environment({"0": 1.0}) == {}


def test_jobs_limit_what_shares_a_slot() -> None:
    slots = make_slots(3, [], 2, {"evaluate": 0.25})
    assert [bool(slots.take(name, "evaluate")) for name in "abcd"] == [True, True, True, False]


@pytest.mark.parametrize(
    ("gpus", "slots", "shares", "message"),
    [
        (["0"], None, {"pretrain": 2}, r"run.slots.pretrain: 2 is more than the 1 slots"),
        (["0", "1"], None, {"pretrain": 1.5}, r"run.slots.pretrain: 1.5 is neither a part of a slot nor a whole number"),
        (["0"], 2, {}, r"--gpus and --slots both"),
    ],
)
def test_what_cannot_be_is_refused(gpus: list[str], slots: int | None, shares: dict[str, float], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        make_slots(None, gpus, slots, shares)
