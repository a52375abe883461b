"""The stage `average` makes the skills of a pre-training cell one ordinary LoRA, their mean (the paper's `mu`)."""

from __future__ import annotations

from pathlib import Path

from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import PretrainFacts
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.artifacts.writing import writing
from mhrctl.config.cells import Cell
from mhrctl.config.methods import AVERAGED
from mhrctl.errors import ParamsError


def average(cell: Cell, *, pretrained: Path, out: Path) -> Card[PretrainFacts]:
    """Write the mean of the skills into `out`: A_bar = mean_k A_k and B_bar = mean_k B_k, for all heads.

    Of a mixture of sparse adapters, the mean over its copies.

    Args:
        cell: the pre-training cell.
        pretrained: output of the pretrain stage.
        out: the output folder.

    Raises:
        ParamsError: if the method has one skill only, or one for each task.
    """
    if not cell.row.has_average:
        raise ParamsError(f"--method {cell.method}: pre-training has no skills to average; use one of {', '.join(AVERAGED)}")
    parent = read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {cell.name}", cell=cell)
    with writing(out) as folder:
        save_adapter(load_adapter(pretrained / ADAPTERS).average(), folder / ADAPTERS)
        card = provenance.of_average(pretrained, parent).card(parent.facts)
        write_card(folder, card)
    return card
