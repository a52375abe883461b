"""A cell is loaded, on a backbone that it shares with others where it can."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import nullcontext
from threading import RLock
from typing import Any

from mhrctl.api.cell import Cell
from mhrctl.artifacts.cards import read_card, try_card
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell as Point
from mhrctl.config.methods import BACKBONE
from mhrctl.config.sections import EvaluateParams
from mhrctl.tools.asking import Asker
from mhrctl.tools.predict import Base, PredictStage, of_cell, open_base
from mhrctl.training.execution import Execution


class SharedBase:
    """A backbone that cells share. It is entered for a call, by one thread at a time."""

    def __init__(self, base: Base) -> None:
        self.base, self._lock = base, RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def load_cell(
    point: Point | None,
    params: EvaluateParams,
    *,
    stage: PredictStage,
    project: Project,
    execution: Execution,
    shared: MutableMapping[Any, Any],
) -> Cell:
    """Load a cell.

    Args:
        point: the cell; None is the bare backbone.
        params: precision, beams and lengths.
        stage: whose adapters answer.
        project: with the outputs.
        execution: how to run.
        shared: the backbones that cells of the project share, to which this one's is added.

    Raises:
        ArtifactError: if an output is missing, or was made from others.
        ParamsError: if the cell has nothing of the stage.
    """
    asker = Asker(project)
    backbone = read_card(project.output("backbone"), stage="backbone", command="mhrctl backbone").facts.fingerprint
    if point and point.row.adds_lora:  # to weights that it has put into the backbone
        base = None
    else:
        key = backbone, params.precision, str(execution.accelerator.device), execution.device_map
        base = shared.get(key) or shared.setdefault(key, SharedBase(open_base(project)))
    with base or nullcontext():
        predictor = of_cell(point, params, stage=stage, project=project, execution=execution, base=base.base if base else None)
    card = try_card(project.output(stage, point.name)) if point else None
    return Cell(
        predictor,
        asker,
        base or RLock(),
        name=point.name if point else BACKBONE,
        method=point.method if point else BACKBONE,
        stage=stage,
        card=dict(vars(card)) if card else {},
    )
