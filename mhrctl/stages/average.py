"""average: the skills of a pre-training cell as one ordinary LoRA, their mean (the paper's `mu`)."""

from __future__ import annotations

from pathlib import Path

from mhrctl import artifacts
from mhrctl.adapters.files import load_inventory, save_inventory
from mhrctl.artifacts import Card
from mhrctl.params import Cell


def average(cell: Cell, *, pretrained: Path, out: Path) -> Card:
    """Write the mean of the skills into `out`: A_bar = mean_k A_k and B_bar = mean_k B_k, for all heads.

    Args:
        cell: the pre-training cell.
        pretrained: output of the pretrain stage.
        out: the output folder.
    """
    parent = artifacts.read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {cell.options}")
    with artifacts.writing(out) as folder:
        save_inventory(load_inventory(pretrained / artifacts.ADAPTERS).average(), folder / artifacts.ADAPTERS)
        card = Card.of("average", parent.params, {"pretrain": pretrained / artifacts.ADAPTERS}, **parent.facts)
        artifacts.write_card(folder, card)
    return card
