"""Scores and logs made by hand for figures, and what a figure says."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mhrctl.report.figures import draw_figure
from mhrctl.report.figures.style import Drawing
from mhrctl.report.results import read_results
from mhrctl.report.trials import Choice
from tests.report.made import both, made_cell

SKILLS, ROUTING, TASKS = 16_000, 100, 5
"""Numbers in an inventory and in one task's routing of one head, and training tasks."""


def sized(method: str, heads: int, seed: int, score: float, adaptation: int, **facts: Any) -> dict[str, Any]:
    return made_cell(method, heads, seed, both(score), **{"parameters": {"multi_task": 9999, "adaptation": adaptation}} | facts)


def routed(
    method: str,
    heads: int,
    seed: int,
    score: float,
    *,
    skills: int = SKILLS,
    routing: int = ROUTING,
    tasks: int = TASKS,
    **facts: Any,
) -> dict[str, Any]:
    """A cell of a method of which a new task has a routing."""
    adaptation = routing if method.endswith("_z") else skills + routing
    parameters = {"multi_task": skills + tasks * routing, "adaptation": adaptation}
    return made_cell(method, heads, seed, both(score), parameters=parameters, **facts)


def cells(**facts: Any) -> dict[str, dict[str, Any]]:
    by_name = {"backbone": made_cell("backbone", None, None, zero_shot=12.5, **facts)}
    block, light = facts | {"granularity": "block"}, facts | {"layout": "light"}
    for seed in (0, 1):
        by_name |= {
            f"lora-s{seed}": sized("lora", 1, seed, 60 + seed, 2000, **facts),
            f"poly-s{seed}": routed("poly", 1, seed, 62 + seed, **facts),
            f"poly-k16-s{seed}": _of_16_skills("poly", seed, 63 + seed, **facts),
            f"mhr-h8-s{seed}": routed("mhr", 8, seed, 65 + seed, routing=800, **facts),
            f"poly_z-s{seed}": routed("poly_z", 1, seed, 58 + seed, **facts),
            f"mhr_z-h8-s{seed}": routed("mhr_z", 8, seed, 61 + seed, routing=800, **facts),
            f"mhr_z-h8-block-s{seed}": routed("mhr_z", 8, seed, 60 + seed, routing=80, variant="block", **block),
            f"mhr_z-h8-light-s{seed}": routed(
                "mhr_z", 8, seed, 59 + seed, skills=SKILLS // 2, routing=90, variant="light", **light
            ),
        }
    return by_name


def _of_16_skills(method: str, seed: int, score: float, **facts: Any) -> dict[str, Any]:
    cell = routed(method, 1, seed, score, skills=2 * SKILLS, routing=2 * ROUTING, variant="k16", **facts)
    return cell | {"skills": 16}


def write_logs(metrics: Path, *, aligned: bool = True) -> Path:
    folder = metrics / "pretrain"
    folder.mkdir(parents=True)
    for name in ("lora-s0", "lora-s1", "poly-s0", "mhr-h8-s0", "mhr-h8-light-s0"):
        extra = [",shared,composed", ",,", ",0.25,0.5"] if aligned else ["", "", ""]
        (folder / f"{name}.csv").write_text(f"step,loss{extra[0]}\n10,2.0{extra[1]}\n20,0.5{extra[2]}\n")
    return metrics


def figure_of(number: int, metrics: Path, trials: Choice = "by_task") -> Drawing:
    """A figure from these scores and logs."""
    return draw_figure(number, read_results(metrics, trials), metrics)


def texts(drawing: Drawing) -> str:
    """What is written in the SVG, which must be well-formed."""
    return " ".join(text for text in ET.fromstring(drawing.rendered("svg")).itertext() if text.strip())  # noqa: S314


def blank() -> Axes:
    """Empty axes, four inches wide and high."""
    return Figure(figsize=(4, 4)).subplots()


def points(line: Line2D) -> list[tuple[float, float]]:
    """What a line of a drawing goes through."""
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
