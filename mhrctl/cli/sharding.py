"""A pre-training divides the frozen weights among its processes where an option or accelerate's launcher says so."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mhrctl.cli.help import SPEED
from mhrctl.cli.options import launched_processes
from mhrctl.errors import ParamsError
from mhrctl.models.speed import Sharding

USES = "ACCELERATE_USE_FSDP"
"""What `accelerate launch --use_fsdp` sets; accelerate and transformers read it too."""
ShardOption = Annotated[
    bool,
    typer.Option(
        "--shard",
        help="Less memory a GPU: divide the frozen weights among the processes of `accelerate launch` (FSDP 2).",
        envvar="MHRCTL_SHARD",
        rich_help_panel=SPEED,
    ),
]


def take_sharding(shard: bool) -> Sharding | None:
    """Decide how weights are divided among processes, if at all, and leave nothing of that for accelerate to do.

    Accelerate would divide what is trained too, and transformers would load no weights in processes but the first.

    Args:
        shard: of `--shard`.

    Raises:
        ParamsError: if there is one process, or accelerate is configured for what is not done here.
    """
    launched = _is_set(USES)
    os.environ.pop(USES, None)
    if not (shard or launched):
        return None
    asked = "accelerate launch --use_fsdp" if launched else "--shard"
    if launched_processes() == 1:
        raise ParamsError(
            f"{asked}: weights are divided among processes, and this is one; start several:"
            " accelerate launch --num_processes 2 -m mhrctl pretrain --shard"
        )
    if not launched:
        return Sharding()
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ParamsError(f"{asked}: version {version} of FSDP; weights are divided by version 2 (--fsdp_version 2)")
    if _is_set("FSDP_ACTIVATION_CHECKPOINTING"):
        raise ParamsError(
            f"{asked}: fsdp_activation_checkpointing is accelerate's; leave it out (for T5 there is --checkpointing)"
        )
    return Sharding(reshards=_is_set("FSDP_RESHARD_AFTER_FORWARD", default="true"), offloads=_is_set("FSDP_OFFLOAD_PARAMS"))


def _is_set(variable: str, *, default: str = "false") -> bool:
    return os.environ.get(variable, default).lower() in ("true", "1", "yes")
