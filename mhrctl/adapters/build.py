"""A row of the methods table becomes the adapter that pre-training trains: this is the one reader of the table's columns.

A row names its class; the class says what its adapters can do (see `mhrctl.adapters.adapter`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, Protocol

from torch import nn

from mhrctl.adapters.adapter import Adapter, Shapes
from mhrctl.adapters.config import AdapterConfig, InventoryConfig
from mhrctl.config.methods import METHODS, Method


class AdapterSettings(Protocol):
    """These are the settings of a pre-training that make its adapter."""

    @property
    def skills(self) -> int:
        """LoRAs in the inventory of a routed method."""

    @property
    def rank(self) -> int:
        """The rank of a LoRA."""

    @property
    def alpha(self) -> float:
        """LoRA's alpha."""

    @property
    def dropout(self) -> float:
        """The dropout of a LoRA's input."""

    @property
    def granularity(self) -> str:
        """What shares a routing."""

    @property
    def routing_blocks(self) -> int:
        """How many successive blocks share one, with granularity `block`."""

    @property
    def relaxed_bernoulli(self) -> bool:
        """Whether the routing is sampled while training."""

    @property
    def temperature(self) -> float:
        """The temperature of the relaxed Bernoulli."""

    @property
    def straight_through(self) -> bool:
        """Whether the sampled gates are rounded."""

    @property
    def options(self) -> dict[str, Any]:
        """The method's own settings."""


def adapter_class(row: Method) -> type[Adapter]:
    """Return the class of the adapter that a method pre-trains."""
    chosen: type[Adapter] = resolve_name(f"mhrctl.adapters.{row.adapter}")
    return chosen


def router_over_pool(
    row: Method, pool: Adapter, names: Sequence[str], options: Mapping[str, Any], *, left_out: Sequence[str] = ()
) -> Adapter:
    """Make the adapter that routes over a pool.

    Args:
        row: a method that starts from a pool.
        pool: an adapter a run.
        names: of its adapters.
        options: the method's own settings of adaptation.
        left_out: for each run, the name of an adapter that has no part in it; none is one run for all tasks.

    Raises:
        ParamsError: if an option names no adapter of the pool.
    """
    router: Adapter = _router_class(row).of(pool, names, row.adapt_options.model_validate(options), left_out=left_out)
    return router


def adapter_kinds() -> dict[str, type[Adapter]]:
    """Return {kind, as files name it: class} of all adapters of the methods table."""
    classes = [adapter_class(row) for row in METHODS.values()]
    classes += [_router_class(row) for row in METHODS.values() if row.router]
    return {chosen.kind: chosen for chosen in classes}


def build_adapter(
    row: Method, settings: AdapterSettings, shapes: Shapes, backbone: nn.Module, *, heads: int, tasks: int
) -> Adapter:
    """Make the adapter that a method pre-trains, from torch's random numbers.

    Args:
        row: the method.
        settings: of the pre-training.
        shapes: {layer name: (d_in, d_out)} of the layers to adapt.
        backbone: whose weights full fine-tuning copies.
        heads: H.
        tasks: training tasks, each with a row of the routing; data sets where each has an adapter of its own.

    Raises:
        ValueError: if the heads do not divide a layer.
    """
    together = settings.skills if row.is_matched else 1  # skills in one LoRA, each scaled as it would be alone
    inventory = InventoryConfig(
        heads=heads,
        skills=settings.skills if row.mixes_skills or row.has_experts else 1,
        rank=together * settings.rank,
        alpha=together * settings.alpha,
        routing="random" if row.routing == "random" else "learned",
        granularity=settings.granularity,
        routing_blocks=settings.routing_blocks,
        temperature=settings.temperature if settings.relaxed_bernoulli else None,
        straight_through=settings.straight_through,
        dropout=settings.dropout,
    )
    options = row.options.model_validate(settings.options).model_dump()
    config = AdapterConfig(inventory, tasks=tasks, runs=tasks if row.is_private else 1, options=options)
    return adapter_class(row).build(config, shapes, backbone)


def start_of(row: Method, pretrained: Adapter, settings: AdapterSettings, shapes: Shapes, backbone: nn.Module) -> Adapter:
    """Return the single adapter that adaptation to a new task copies, of the sizes that it will have; its values mean nothing.

    Args:
        row: the method.
        pretrained: what the method has pre-trained.
        settings: of the pre-training.
        shapes: of the layers to adapt.
        backbone: the model.
    """
    if row.adds_lora:
        return build_adapter(METHODS["lora"], settings, shapes, backbone, heads=1, tasks=1)
    if row.router:
        router: Adapter = _router_class(row).like(pretrained, row.adapt_options())
        return router
    if row.needs_index:
        return pretrained.select([0])
    return pretrained.like_average() if row.start_stage == "average" else pretrained


def _router_class(row: Method) -> Any:  # noqa: ANN401 - imported by its name, as adapters are
    return resolve_name(f"mhrctl.adapters.{row.router}")
