"""Series of cells that differ in one thing."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures.sizes import coarser, more_heads, more_skills
from mhrctl.report.results import read_results


def test_series_differ_in_one_thing_only(metrics: Path) -> None:
    results = read_results(metrics)
    heads = more_heads(results, "poly", "mhr")
    assert ([group.label for group in heads.groups], heads.names) == (["poly", "mhr h8"], ["h1", "h8"])
    (skills,) = more_skills(results, "poly", "mhr")
    assert ([group.label for group in skills.groups], skills.names) == (["poly", "poly k16"], ["8 skills", "16 skills"])
    routings = {series.groups[0].method: series.names for series in coarser(results, "poly_z", "mhr_z")}
    assert routings == {"poly_z": ["h1 layer"], "mhr_z": ["h8 block", "h8 layer"]}  # by parameters; not the light one
