"""Options say how a stage computes what it computes: none changes results beyond rounding, and no stage's key holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mhrctl.errors import ParamsError, unknown

DEVICE_MAPS = ("auto", "balanced", "sequential")
"""Names of maps that are worked out from what the GPUs have free: `auto` is `balanced`, for accelerate as here."""


@dataclass(frozen=True)
class Speed:
    """Options of speed say what is on, and what is off.

    Attributes:
        forward: run T5 by `mhrctl.models.t5` where that can (see its `model.unsupported_reason`), not by transformers' forward.
        packing: with that forward, leave padding out of all products where it pays.
        fused: let AdamW update all parameters in one kernel.
        folding: in evaluation, add an adapter that all tasks share to the weights of an fp32 backbone.
        together: tasks trained, or evaluated, in one batch.
        checkpointing: with that forward, keep the inputs of blocks alone and compute them again in backward.
        compile: with that forward, compile blocks: whole ones where rows are equally long, else what is between attentions.
    """

    forward: bool = True
    packing: bool = True
    fused: bool = True
    folding: bool = True
    together: int = 32
    checkpointing: bool = False
    compile: bool = False

    @property
    def needs_forward(self) -> str | None:
        """An option that is on and that transformers' forward has not."""
        return "checkpointing" if self.checkpointing else "compile" if self.compile else None

    def without(self, names: Iterable[str]) -> Speed:
        """Return the same with some options of `OFF` switched off.

        Raises:
            ParamsError: if there is no such option.
        """
        changed = self
        for name in names:
            if name not in OFF:
                raise ParamsError(f"--off: {unknown('speed option', name, OFF)}")
            changed = replace(changed, **OFF[name])
        return changed


@dataclass(frozen=True)
class Sharding:
    """A sharding says how the frozen weights of a backbone are divided among processes.

    Attributes:
        reshards: whether a block's weights are let go of between its forward and its backward.
        offloads: whether each process keeps its part in the memory of the CPU, not on its GPU.
    """

    reshards: bool = True
    offloads: bool = False


OFF: dict[str, dict[str, Any]] = {
    "forward": {"forward": False},
    "packing": {"packing": False},
    "fused": {"fused": False},
    "folding": {"folding": False},
    "together": {"together": 1},
    "all": {"forward": False, "packing": False, "fused": False, "folding": False, "together": 1},
}
"""{what can be switched off: the settings that do it}."""
