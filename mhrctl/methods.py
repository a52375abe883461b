"""The methods table: what is pre-trained, what adaptation starts from, and what it trains.

A variant is a row of data. The names are those of the paper and of `mhrctl/paper/tables.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mhrctl.errors import ParamsError, unknown


@dataclass(frozen=True)
class Method:
    """One row of the methods table.

    Attributes:
        name: the row's name.
        pretrain: the method whose pre-training cell this row adapts from (itself, or the one it shares).
        routed: whether pre-training learns a routing over several skills; otherwise there is one skill and no routing.
        multi_head: whether the number of heads is the user's; otherwise it is one.
        start: the stage whose output adaptation starts from.
        trains: what adaptation trains: everything it starts from, or only the routing of the new task.
        summary: one line for tables and help.
    """

    name: str
    pretrain: str
    routed: bool
    multi_head: bool
    start: Literal["pretrain", "average"]
    trains: Literal["adapter", "routing"]
    summary: str


_ROWS = (
    Method(
        "lora",
        "lora",
        False,
        False,
        "pretrain",
        "adapter",
        "one LoRA shared by all tasks, then tuned on each test task",
    ),
    Method("poly", "poly", True, False, "pretrain", "adapter", "whole skills mixed by task; routing and skills tuned"),
    Method("poly_z", "poly", True, False, "pretrain", "routing", "Poly, only the new task's routing tuned"),
    Method("poly_mu", "poly", True, False, "average", "adapter", "Poly's skills averaged into one LoRA, which is tuned"),
    Method("mhr", "mhr", True, True, "pretrain", "adapter", "blocks of skills mixed, one routing a head; all tuned"),
    Method("mhr_z", "mhr", True, True, "pretrain", "routing", "MHR, only the new task's routing tuned"),
    Method("mhr_mu", "mhr", True, True, "average", "adapter", "MHR's skills averaged into one LoRA, which is tuned"),
)
METHODS = {row.name: row for row in _ROWS}

BACKBONE = "backbone"
"""The bare backbone: not a method that trains anything, but evaluated beside them."""


def method(name: str) -> Method:
    """Look up a row of the methods table.

    Raises:
        ParamsError: if there is no such method; names the known ones.
    """
    if name not in METHODS:
        raise ParamsError(unknown("method", name, METHODS))
    return METHODS[name]
