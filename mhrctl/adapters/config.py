"""What an adapter is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class InventoryConfig:
    """These are the settings of an inventory.

    Attributes:
        heads: H; must divide every d_in and d_out.
        skills: K.
        rank: r of each skill.
        alpha: the scaling of the update is alpha / rank.
        routing: `learned`, or `random`: while training each group of a batch draws a binary allocation of its own, and
            otherwise all skills count alike.
        granularity: which layers share a routing (see `routing_parts`).
        routing_blocks: with granularity `block`, how many blocks share.
        temperature: of the relaxed Bernoulli that routing is sampled from while training; None uses the plain sigmoid.
        straight_through: the sampled gates are rounded to 0 or 1 in the forward pass, and keep their gradient.
        dropout: of the updates' inputs while training.
    """

    heads: int = 1
    skills: int = 1
    rank: int = 1
    alpha: float = 1.0
    routing: Literal["learned", "random"] = "learned"
    granularity: str = "layer"
    routing_blocks: int = 1
    temperature: float | None = None
    straight_through: bool = False
    dropout: float = 0.0


@dataclass(frozen=True)
class AdapterConfig:
    """A method and its settings ask this of the adapter that pre-training trains.

    Attributes:
        inventory: the skills and their routing; other adapters take of it what they have.
        tasks: rows of the routing.
        runs: independent adapters.
        options: the method's own settings.
    """

    inventory: InventoryConfig = InventoryConfig()
    tasks: int = 1
    runs: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
