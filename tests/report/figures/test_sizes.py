"""Series of cells that differ in one thing."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures.sizes import coarser, more_heads, more_skills
from mhrctl.report.results import read_results
from tests.report.figures.made import cells, routed
from tests.report.made import write_cells


def test_series_differ_in_one_thing_only(metrics: Path) -> None:
    results = read_results(metrics)
    heads = more_heads(results, "poly", "mhr")
    assert ([group.label for group in heads.groups], heads.names) == (["poly", "mhr-h8"], ["h1", "h8"])
    (skills,) = more_skills(results, "poly", "mhr")
    assert ([group.label for group in skills.groups], skills.names) == (["poly", "poly-k16"], ["8 skills", "16 skills"])
    routings = {series.groups[0].method: series.names for series in coarser(results, "poly_z", "mhr_z")}
    assert routings == {"poly_z": ["h1 layer"], "mhr_z": ["h8 block", "h8 layer"]}  # by parameters; not the light one


def test_a_head_count_that_has_no_plain_cell_has_its_granularities_too(tmp_path: Path) -> None:
    of_64_heads = {
        f"mhr_z-h64-{name}-s0": routed("mhr_z", 64, 0, 60, routing=routing, variant=name, granularity=name)
        for name, routing in (("block", 640), ("coder", 64))
    }
    results = read_results(write_cells(tmp_path, cells() | of_64_heads))
    assert [series.names for series in coarser(results, "mhr_z")] == [["h8 block", "h8 layer"], ["h64 coder", "h64 block"]]
