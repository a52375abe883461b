"""`python choose.py` prints the losses that each rate left in validation, and which rates are chosen.

First the rate of pre-training is chosen by validation examples of the training tasks, then, with it, that of adaptation by
those of the test tasks. `python choose.py --stages` names the stages of the second search, on which the first one decides.
What outputs say, which are not in git, is kept in tried.csv.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.writing import write_csv
from mhrctl.config.cells import CellParams, grid_cells
from mhrctl.config.resolve import load_params, resolve_cell

SEARCH = Path(__file__).parent
TRIED = SEARCH / "tried.csv"
UNTRAINED = "untrained"


class Tried(NamedTuple):
    """Rates are tried, and a loss is what they left in validation.

    Attributes:
        stage: whose rate it is.
        method: a row of the methods table, of pre-training or of adaptation.
        pretrain: the rate of its pre-training; none where it has no steps.
        adapt: the setting of adaptation, such as `lr 0.0015`; empty of a pre-training.
        loss: a token, the mean over tasks.
    """

    stage: str
    method: str
    pretrain: float | None
    adapt: str
    loss: float

    @property
    def called(self) -> str:
        """The method, and that it was not pre-trained."""
        return self.method if self.pretrain is not None else f"{self.method} {UNTRAINED}"


def cells(root: Path) -> Mapping[str, CellParams]:
    """Return all cells of the search by name."""
    params = load_params(root / "params.yaml")
    return {cell.name: resolve_cell(params, cell) for cell in grid_cells(params.params)}


def pretrained(root: Path) -> list[Tried]:
    """Return what the rates of pre-training left, as the committed logs say, of those that have been run."""
    of_cell: dict[str, Tried] = {}
    for each in cells(root).values():
        before = each.cell.pretrain_cell
        log = Project(root).metrics / f"pretrain/{before.name}.csv"
        if each.cell.variant == UNTRAINED or before.name in of_cell or not log.is_file():
            continue
        with log.open(encoding="utf-8", newline="") as lines:
            loss = float([row["validation_loss"] for row in csv.DictReader(lines)][-1])
        of_cell[before.name] = Tried("pretrain", before.method, each.pretrain.lr, "", loss)
    return list(of_cell.values())


def to_adapt(root: Path) -> Mapping[str, CellParams]:
    """Return the cells, by name, that adapt from what was pre-trained with the best rates."""
    rates = {method: one.pretrain for method, one in best(pretrained(root)).items()}
    return {
        name: each
        for name, each in cells(root).items()
        if each.cell.variant == UNTRAINED or each.pretrain.lr == rates.get(each.cell.pretrain_cell.method)
    }


def adapted(root: Path) -> list[Tried]:
    """Return what the rates of adaptation left, as the outputs say, of those that are there."""
    trials: list[Tried] = []
    for name, each in to_adapt(root).items():
        folder = Project(root).output("adapt", name)
        if folder.is_dir():
            facts = read_card(folder, stage="adapt", command=f"mhrctl adapt {name}", cell=each.cell).facts
            rate = None if each.cell.variant == UNTRAINED else each.pretrain.lr
            adapt = ", ".join(f"{key} {value:g}" for key, value in each.cell.settings)
            trials.append(Tried("adapt", each.cell.method, rate, adapt, round(-fmean(facts.validation.values()), 4)))
    return trials


def best(trials: Iterable[Tried]) -> Mapping[str, Tried]:
    """Return {method, and that it was not pre-trained: its trial of the least loss}."""
    return {one.called: one for one in sorted(trials, key=lambda one: -one.loss)}


def read_tried(path: Path) -> list[Tried]:
    """Read what `python choose.py` has written."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Tried(
                row["stage"],
                row["method"],
                float(row["pretrain"]) if row["pretrain"] else None,
                row["adapt"],
                float(row["loss"]),
            )
            for row in csv.DictReader(lines)
        ]


def table(trials: Iterable[Tried]) -> Table:
    """Return what was tried of each method in one stage, the best first."""
    shown = Table("method", "pretrain.lr", "adapt", "validation loss")
    for one in sorted(trials, key=lambda one: (one.called, one.loss)):
        shown.add_row(one.called, "-" if one.pretrain is None else f"{one.pretrain:g}", one.adapt or "-", f"{one.loss:.3f}")
    return shown


if __name__ == "__main__":
    if "--stages" in sys.argv:
        sys.stdout.write(" ".join(f"adapt@{name}" for name in to_adapt(SEARCH)) + "\n")
    else:
        if Project(SEARCH).output("adapt").is_dir():
            write_csv(TRIED, Tried._fields, [*pretrained(SEARCH), *adapted(SEARCH)])
        for stage in ("pretrain", "adapt"):
            Console().print(table(one for one in read_tried(TRIED) if one.stage == stage))
