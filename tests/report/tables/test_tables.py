"""All of the paper's tables over a few cells."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from mhrctl.errors import ParamsError
from mhrctl.evaluation.metrics import METRICS
from mhrctl.report.table import RENDERERS, rich_table
from mhrctl.report.tables import TABLES
from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import built, everywhere, extra_steps, notes, row


def test_tables_are_the_papers() -> None:
    assert list(TABLES) == [1, 2, 3, 4, 5, 6, "pool"]


def test_an_unknown_table_is_reported_with_the_known_ones(metrics: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown table '7'.*known: 1, 2, 3, 4, 5, 6"):
        built(7, metrics)


def test_cells_without_scores_are_named_in_every_table_of_scores(metrics: Path) -> None:
    for number in range(2, 7):
        assert built(number, metrics, ["lora-s0", "poly-s0", "poly-s1"]).notes[-1] == "No scores yet: poly-s0, poly-s1."
        assert "No scores yet" not in notes(built(number, metrics, ["lora-s0"]))


@pytest.mark.parametrize(
    ("number", "label"), [(2, "lora_big"), (3, "tfew"), (4, "random_mu"), (5, "poly_mu"), (6, "mhr_z-h64")]
)
def test_without_scores_a_table_has_the_papers_numbers_and_says_what_to_run(tmp_path: Path, number: int, label: str) -> None:
    table = built(number, tmp_path / "missing", ["lora-s0"])
    cells = row(table, label)
    assert "not run" in cells
    assert "0" in cells
    assert any(cell[:1].isdigit() and "." in cell for cell in cells)
    assert table.notes[0] == "No scores yet; run `dvc repro`, or `mhrctl evaluate` for each cell."


@pytest.mark.parametrize("number", range(1, 7))
def test_every_table_has_whole_rows_in_every_form(metrics: Path, number: int) -> None:
    table = built(number, extra_steps(metrics))
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert len({row[0] for row in table.rows}) == len(table.rows)
    for render in RENDERERS.values():
        assert table.rows[0][0].split("_")[0] in render(table)


@pytest.mark.parametrize("number", range(1, 7))
def test_every_table_fits_a_terminal(metrics: Path, number: int) -> None:
    for method in ("full_ft_then_lora", "adapter_soup"):
        write_cells(metrics, {f"{method}-s{seed}": made_cell(method, 1, seed, both(50.0 + seed)) for seed in range(3)})
    console = Console(file=io.StringIO(), width=80, color_system=None)
    table = built(number, extra_steps(metrics))
    with console.capture() as capture:
        console.print(rich_table(table))
    lines = capture.get().splitlines()
    for cells in table.rows:
        assert any(len(line) <= 80 and all(cell in line for cell in cells) for line in lines), cells


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("number", range(2, 7))
def test_every_metric_is_named_in_every_table_and_fits_a_terminal(metrics: Path, number: int, metric: str) -> None:
    table = built(number, everywhere(extra_steps(metrics), metric=metric))
    assert METRICS[metric].title in f"{table.columns} {table.notes}"
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as capture:
        console.print(rich_table(table))
    lines = capture.get().splitlines()
    for cells in table.rows:
        assert any(len(line) <= 80 and all(cell in line for cell in cells) for line in lines), cells
