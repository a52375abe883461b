"""The methods table: what is pre-trained, what adaptation starts from, and what it trains.

A variant is a row of data. The names are those of the paper and of `mhrctl/report/tables.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mhrctl.errors import ParamsError, unknown

Routing = Literal["none", "learned", "random", "private"]


@dataclass(frozen=True)
class Method:
    """One row of the methods table.

    Attributes:
        name: the row's name.
        summary: what it is for, in one line for tables and help.
        pretrain: the method whose pre-training cell this row adapts from (itself, or the one it shares).
        adapter: what pre-training trains: LoRAs, (IA)3 vectors, or all weights of the backbone.
        routing: over the skills of the inventory: `none` (one skill), `learned`, `random` (a draw for each example), or
            `private` (an adapter of its own for each training task).
        multi_head: whether the number of heads is the user's; otherwise it is one.
        start: what adaptation starts from: `pretrain` (what was pre-trained), `average` (the mean of its skills), `soup`
            (the mean of the adapters of the most similar training tasks), or `new_lora` (a new LoRA on the tuned weights).
        trains: what adaptation trains: everything it starts from, or only the routing of the new task.
        settings: {section: settings} that make the row what it is; params.yaml may set them at the method.
    """

    name: str
    summary: str
    pretrain: str
    adapter: Literal["lora", "ia3", "weights"] = "lora"
    routing: Routing = "none"
    multi_head: bool = False
    start: Literal["pretrain", "average", "soup", "new_lora"] = "pretrain"
    trains: Literal["adapter", "routing"] = "adapter"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Whether adaptation starts from one adapter without a routing, which can be trained on."""
        return self.start == "average" or (self.start == "pretrain" and self.routing == "none")

    @property
    def start_stage(self) -> Literal["pretrain", "average"]:
        """The stage whose output adaptation reads."""
        return "average" if self.start == "average" else "pretrain"


_LIGHT: dict[str, dict[str, Any]] = {"pretrain": {"targets": "light"}}
_CHOICE_LOSSES: dict[str, dict[str, Any]] = {"adapt": {"mc_weight": 1.0, "unlikelihood_weight": 1.0}}
_RANK_16 = {"pretrain": {"rank": 16}}

_ROWS = (
    Method("lora", "one LoRA shared by all tasks, then tuned on each: the plain baseline", "lora"),
    Method("lora_big", "LoRA of rank 16: as many parameters as an inventory of skills", "lora_big", settings=_RANK_16),
    Method("ia3", "vectors that scale k, v and wi_1: the fewest parameters", "ia3", "ia3", settings=_LIGHT),
    Method("tfew", "(IA)3 tuned with T-Few's losses over answer choices", "ia3", "ia3", settings=_LIGHT | _CHOICE_LOSSES),
    Method(
        "adapter_soup",
        "a LoRA a training task; the most similar tasks' averaged",
        "adapter_soup",
        "lora",
        "private",
        start="soup",
    ),
    Method("poly", "whole skills mixed by task; routing and skills tuned", "poly", "lora", "learned"),
    Method("poly_z", "Poly, only the new task's routing tuned", "poly", "lora", "learned", trains="routing"),
    Method("poly_mu", "Poly's skills averaged into one LoRA, which is tuned", "poly", "lora", "learned", start="average"),
    Method("mhr", "blocks of skills mixed, one routing a head; all tuned", "mhr", "lora", "learned", multi_head=True),
    Method("mhr_z", "MHR, only the new task's routing tuned", "mhr", "lora", "learned", multi_head=True, trains="routing"),
    Method(
        "mhr_mu",
        "MHR's skills averaged into one LoRA, which is tuned",
        "mhr",
        "lora",
        "learned",
        multi_head=True,
        start="average",
    ),
    Method(
        "random_mu", "skills mixed at random for each example, then averaged", "random_mu", "lora", "random", start="average"
    ),
    Method("full_ft", "all weights tuned, on all tasks and then on each", "full_ft", "weights"),
    Method(
        "full_ft_then_lora", "all weights tuned on all tasks, then a new LoRA on each", "full_ft", "weights", start="new_lora"
    ),
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
