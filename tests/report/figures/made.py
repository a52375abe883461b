"""Scores and logs made by hand for figures, and what a figure says."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from mhrctl.report.figures.style import Drawing
from tests.report.made import both, made_cell


def sized(method: str, heads: int, seed: int, score: float, adaptation: int, **facts: Any) -> dict[str, Any]:
    return made_cell(method, heads, seed, both(score), parameters={"multi_task": 9999, "adaptation": adaptation}, **facts)


def cells(**facts: Any) -> dict[str, dict[str, Any]]:
    by_name = {"backbone": made_cell("backbone", None, None, zero_shot=12.5, **facts)}
    for seed in (0, 1):
        by_name |= {
            f"lora-s{seed}": sized("lora", 1, seed, 60 + seed, 2000, **facts),
            f"poly-s{seed}": sized("poly", 1, seed, 62 + seed, 16_000, **facts),
            f"poly-k16-s{seed}": sized("poly", 1, seed, 63 + seed, 32_000, variant="k16", **facts | {"skills": 16}),
            f"mhr-h8-s{seed}": sized("mhr", 8, seed, 65 + seed, 17_000, **facts),
            f"poly_z-s{seed}": sized("poly_z", 1, seed, 58 + seed, 100, **facts),
            f"mhr_z-h8-s{seed}": sized("mhr_z", 8, seed, 61 + seed, 800, **facts),
            f"mhr_z-h8-block-s{seed}": sized(
                "mhr_z", 8, seed, 60 + seed, 80, variant="block", **facts | {"granularity": "block"}
            ),
            f"mhr_z-h8-light-s{seed}": sized("mhr_z", 8, seed, 59 + seed, 90, variant="light", **facts | {"layout": "light"}),
        }
    return by_name


def write_logs(metrics: Path, *, aligned: bool = True) -> Path:
    folder = metrics / "pretrain"
    folder.mkdir(parents=True)
    for name in ("lora-s0", "lora-s1", "poly-s0", "mhr-h8-s0", "mhr-h8-light-s0"):
        extra = [",shared,composed", ",,", ",0.25,0.5"] if aligned else ["", "", ""]
        (folder / f"{name}.csv").write_text(f"step,loss{extra[0]}\n10,2.0{extra[1]}\n20,0.5{extra[2]}\n")
    return metrics


def texts(drawing: Drawing) -> str:
    """What is written in the SVG, which must be well-formed."""
    return " ".join(text for text in ET.fromstring(drawing.rendered("svg")).itertext() if text.strip())  # noqa: S314
