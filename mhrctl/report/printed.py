"""Every number that the paper prints is package data (`tables.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from mhrctl.config.cells import label_of
from mhrctl.config.methods import METHODS
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
AVERAGES = ("poly_mu", "mhr_mu")
"""Methods of which the paper's text tells the parameters (appendix A.1), and its Table 6 nothing."""
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
class PrintedRow:
    """This is a row of a table of the paper.

    Attributes:
        method: row of the methods table.
        heads: of its routing; None where it has none, and for mhr and its kin where the paper does not say how many.
        layout: of the adapted layers; None where the method has none to choose.
        score: mean and standard deviation, where one is printed.
        multi_task: parameters kept from pre-training, as Table 6 prints them; the routing of the training tasks is not counted.
        adaptation: parameters of a new task, as Table 6 prints them; of poly and mhr those of the mixed LoRA.
    """

    method: str
    heads: int | None
    layout: str | None
    score: MeanStd
    multi_task: str = ""
    adaptation: str = ""

    @property
    def has_known_heads(self) -> bool:
        """Whether the paper says how many heads it has, if it can have several."""
        return self.heads is not None or not can_have_heads(self.method)

    @property
    def label(self) -> str:
        """The method, with its heads if it can have several and they are known: `mhr-h64`."""
        return label_of(self.method, self.heads if can_have_heads(self.method) else None)

    @property
    def adapted_parameters(self) -> float:
        """`adaptation` as a number: 220K is 220000."""
        return number_of(self.adaptation)


@dataclass(frozen=True)
class PrintedTable(Setting):
    """This is a table of scores in the paper, or a block of its Table 6.

    Attributes:
        layout: of the adapted layers; a row may have another.
        rows: by method.
        note: what does not fit in it, if anything.
    """

    layout: str
    rows: Mapping[str, PrintedRow]
    note: str = ""

    @property
    def shape(self) -> str:
        """The layout, and the heads of the methods that can have several, in words."""
        several = [row for row in self.rows.values() if can_have_heads(row.method)]
        heads = ", ".join(f"{row.method} {row.heads or 'not said'}" for row in several)
        return f"layout {self.layout}{f', heads {heads}' if heads else ''}"


def number_of(count: str) -> float:
    """Return what a printed count is: 220K is 220000."""
    return float(count[:-1]) * UNITS[count[-1]]


def can_have_heads(method: str) -> bool:
    """Return whether a row of the paper, which may be the bare backbone, is of a method that can have several heads."""
    return method in METHODS and METHODS[method].multi_head


@cache
def printed() -> dict[str, Any]:
    """Return all of `tables.json`."""
    content: dict[str, Any] = json.loads((files("mhrctl.report") / "tables.json").read_text(encoding="utf-8"))
    return content


def printed_table(name: str) -> PrintedTable:
    """Return a table of scores, such as `table2`."""
    return _table(printed()[name])


def printed_blocks() -> list[PrintedTable]:
    """Return the blocks of Table 6, in its order."""
    return [_table(block) for block in printed()["table6"]["blocks"]]


def zero_shot_tables() -> list[tuple[PrintedTable, Mapping[str, Sequence[float]]]]:
    """Return the blocks of Table 5, in its order: the scores without extra steps, and {method: scores by number of steps}."""
    table = printed()["table5"]
    blocks: list[tuple[PrintedTable, Mapping[str, Sequence[float]]]] = []
    for backbone in dict.fromkeys(row["backbone"] for row in table["rows"]):
        rows = [row | {"mean": row["values"][0]} for row in table["rows"] if row["backbone"] == backbone]
        block = _table(table | {"suite": "T0", "backbone": backbone, "rows": rows, "note": ""})
        blocks.append((block, {row["method"]: row["values"] for row in rows}))
    return blocks


def one_adapter(layout: str) -> str | None:
    """Return the parameters of a single adapter as the paper prints them: what an average is, kept and tuned (appendix A.1)."""
    parameters: str | None = printed()["one_adapter"].get(layout)
    return parameters


def _table(table: Mapping[str, Any]) -> PrintedTable:
    rows = {row["method"]: _row(row, table["layout"]) for row in table["rows"]}
    metric = table.get("metric", "accuracy")
    return PrintedTable(table["suite"], metric, table["backbone"], table["layout"], rows, table.get("note", ""))


def _row(row: Mapping[str, Any], layout: str) -> PrintedRow:
    return PrintedRow(
        row["method"],
        row.get("heads"),
        row.get("layout", layout),
        MeanStd(row["mean"], row.get("std")),
        row.get("multi_task_params", ""),
        row.get("adaptation_params", ""),
    )
