"""Every number that the paper prints is package data (`tables.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from mhrctl.evaluation.scores import FrozenBackbone
from mhrctl.suites.superni.tasks import named_tasks

SUITES = {"T0": "t0", "SuperNI": "superni"}
BACKBONES = {"T5-XL-LM": "google/t5-xl-lm-adapt", "T0-3B": "bigscience/T0_3B", "T0-11B": "bigscience/T0"}
T5_XL, T5_XXL = 2_849_757_184, 11_135_332_352
WEIGHTS = {"T5-XL-LM": T5_XL, "T0-3B": T5_XL, "T0-11B": T5_XXL}
"""Numbers in the weights of each backbone, by which another model of its name is known to be another."""
LISTS = ("few_shot_20", "zero_shot_20")
"""Lists of test tasks that the authors name for Super-NaturalInstructions (docs/recipe.md, section 2.3)."""
METRICS = {"accuracy": "accuracy", "Rouge-L": "rouge_l"}
UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}


class MeanStd(NamedTuple):
    """This is a mean, and a standard deviation (of a sample) where there is one."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.deviation is None else f"{self.mean:.1f}±{self.deviation:.1f}"


@dataclass(frozen=True)
class Setting:
    """A setting says where scores of the paper come from, in its words.

    Attributes:
        suite: benchmark.
        metric: of the scores.
        backbone: frozen model.
    """

    suite: str
    metric: str
    backbone: str

    def has_suite(self, suite: str | None) -> bool:
        """Return whether a suite of ours is this one."""
        return SUITES[self.suite] == suite

    def test_tasks(self) -> list[set[str]]:
        """Return the test tasks of the suite; one list of several, where it is not known which the paper used."""
        if self.suite == "SuperNI":
            return [set(named_tasks([name])) for name in LISTS]
        from mhrctl.suites.t0.held_out import T0_TEST_TASKS

        return [set(T0_TEST_TASKS)]

    def has_weights(self, frozen: FrozenBackbone | None) -> bool:
        """Return whether the weights of a backbone of ours are of the hub, and as many as this one's."""
        return frozen is not None and (frozen.source, frozen.parameters) == ("hub", WEIGHTS[self.backbone])

    def has_backbone(self, backbone: str | None) -> bool:
        """Return whether a backbone of ours is this one."""
        return BACKBONES[self.backbone] == backbone

    def has_metric(self, metric: str | None) -> bool:
        """Return whether scores of ours by this metric can be set against these."""
        return METRICS[self.metric] == metric

    def __str__(self) -> str:
        return f"{self.suite}, {self.backbone}, {self.metric}"


@dataclass(frozen=True)
class PrintedTable(Setting):
    """This is a table of scores in the paper.

    Attributes:
        rows: {method: mean and standard deviation}.
    """

    rows: dict[str, MeanStd]


@dataclass(frozen=True)
class PrintedRow:
    """This is a row of the paper's Table 6.

    Attributes:
        method: row of the methods table.
        heads: of a routing; None where there is none.
        multi_task: parameters kept from pre-training, as printed; the routing of the training tasks is not counted.
        adaptation: parameters of a new task, as printed; of poly and mhr those of the mixed LoRA.
        score: mean and standard deviation, where one is printed.
    """

    method: str
    heads: int | None
    multi_task: str
    adaptation: str
    score: MeanStd

    @property
    def adapted_parameters(self) -> float:
        """`adaptation` as a number: 220K is 220000."""
        return float(self.adaptation[:-1]) * UNITS[self.adaptation[-1]]


@dataclass(frozen=True)
class PrintedBlock(Setting):
    """This is a block of the paper's Table 6.

    Attributes:
        layout: of the adapted layers, `full` or `light`.
        rows: by method.
    """

    layout: str
    rows: dict[str, PrintedRow]


@cache
def printed() -> dict[str, Any]:
    """Return all of `tables.json`."""
    content: dict[str, Any] = json.loads((files("mhrctl.report") / "tables.json").read_text(encoding="utf-8"))
    return content


def printed_table(name: str) -> PrintedTable:
    """Return a table of scores, such as `table2`."""
    table = printed()[name]
    rows = {row["method"]: MeanStd(row["mean"], row["std"]) for row in table["rows"]}
    return PrintedTable(table["suite"], table["metric"], table["backbone"], rows)


def printed_blocks() -> list[PrintedBlock]:
    """Return the blocks of Table 6, in its order."""
    return [
        PrintedBlock(
            block["suite"],
            block.get("metric", "accuracy"),
            block["backbone"],
            block["layout"],
            {
                row["method"]: PrintedRow(
                    row["method"],
                    row["heads"],
                    row["multi_task_params"],
                    row["adaptation_params"],
                    MeanStd(row["mean"], row["std"]),
                )
                for row in block["rows"]
            },
        )
        for block in printed()["table6"]["blocks"]
    ]
