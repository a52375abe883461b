"""params.yaml as a whole is one frozen, closed, described model: this and the modules of its sections alone know its keys."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mhrctl.config.fields import Closed
from mhrctl.config.grid import GridParams
from mhrctl.config.sections import (
    AdaptParams,
    BackboneParams,
    EvaluateParams,
    IndexParams,
    PretrainParams,
    ReportParams,
    RunParams,
)
from mhrctl.config.tasks import PrepareParams


class Params(Closed):
    """These params are the whole of params.yaml."""

    recipe: Literal["t0", "superni", "superni_attention"] | None = Field(
        None, description="settings of the paper's experiments, for what this file leaves out (see `mhrctl/config/recipes.py`)"
    )
    prepare: PrepareParams
    backbone: BackboneParams
    pretrain: PretrainParams
    index: IndexParams = IndexParams()
    adapt: AdaptParams
    evaluate: EvaluateParams
    report: ReportParams = ReportParams()
    run: RunParams = RunParams()
    grid: GridParams
