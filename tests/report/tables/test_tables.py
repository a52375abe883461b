"""The paper's tables over a few cells, with means, deviations and differences computed by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mhrctl.errors import ParamsError
from mhrctl.report.table import RENDERERS, Table, rich_table
from mhrctl.report.tables import TABLES, build_table
from mhrctl.report.tables.beside import human, named
from tests.report.made import both, made_cell, write_cells

BARE = {"multi_task": 0, "adaptation": 0}
CELLS: dict[str, dict[str, Any]] = {
    "backbone": made_cell("backbone", None, None, zero_shot=10.0, layout=None, parameters=BARE),
    "lora-s0": made_cell("lora", 1, 0, both(60.0)),
    "lora-s1": made_cell("lora", 1, 1, both(62.0)),
    "lora-s2": made_cell("lora", 1, 2, both(67.0)),
    "mhr-h16-s0": made_cell("mhr", 16, 0, both(75.0)),
    "mhr-h8-s0": made_cell("mhr", 8, 0, both(80.0), zero_shot=41.0, exact=66.0),
    "mhr-h8-s1": made_cell("mhr", 8, 1, both(83.0), zero_shot=42.0, exact=68.0),
    "mhr_mu-h8-s0": made_cell("mhr_mu", 8, 0, both(70.0)),
}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """`data/metrics` with the cells above."""
    return write_cells(tmp_path / "metrics", CELLS)


def everywhere(metrics: Path, **facts: Any) -> Path:
    """Say something else of every cell."""
    for file in (metrics / "evaluate").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return metrics


def row(table: Table, label: str) -> list[str]:
    (found,) = [list(row) for row in table.rows if row[0] == label]
    return found


def notes(table: Table) -> str:
    return " ".join(table.notes)


def test_tables_are_the_papers() -> None:
    assert sorted(TABLES) == [1, 2, 3, 4, 5, 6]


def test_an_unknown_table_is_answered_with_the_known_ones(metrics: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown table '7'.*known: 1, 2, 3, 4, 5, 6"):
        build_table(7, metrics, [])


def test_table1_needs_no_scores(tmp_path: Path) -> None:
    table = build_table(1, tmp_path / "missing", [])
    assert row(table, "lora") == ["lora", "d r", "d r", "d r", "2.2M", "2.2M", "2.2M"]
    assert row(table, "poly") == ["poly", "K d r + T K", "K d r + K", "d r", "18.8M", "17.7M", "2.2M"]
    assert row(table, "mhr_z") == ["mhr_z", "K d r + T K H", "K H", "d r", "86.9M", "221.2K", "2.2M"]


def test_table1_says_which_rows_and_counts_are_not_the_papers(tmp_path: Path) -> None:
    assert "poly_mu" in notes(build_table(1, tmp_path, []))
    assert "full_ft" in notes(build_table(1, tmp_path, []))


def test_table2_folds_seeds_and_sets_the_paper_beside_them(metrics: Path) -> None:
    table = build_table(2, metrics, [])
    # 60, 62, 67: mean 63, sample deviation sqrt((9 + 1 + 16) / 2) = 3.61; the paper prints 67.6
    # medians of the two tasks: 57 and 67, mean 62, sample deviation 10 / sqrt(2) = 7.07
    assert row(table, "lora") == ["lora", "3", "40.0±0.0", "63.0±3.6", "62.0±7.1", "50.0±0.0", "67.6±0.8", "-4.6"]
    # 80, 83: mean 81.5, sample deviation 3 / sqrt(2) = 2.12; the paper prints 68.5
    assert row(table, "mhr h8") == ["mhr h8", "2", "41.5±0.7", "81.5±2.1", "81.5±7.1", "67.0±1.4", "68.5±0.3", "+13.0"]


def test_table2_shows_no_deviation_of_one_seed_and_no_number_that_the_paper_lacks(metrics: Path) -> None:
    table = build_table(2, metrics, [])
    assert row(table, "mhr_mu h8") == ["mhr_mu h8", "1", "40.0", "70.0", "70.0±7.1", "50.0", "-", "-"]
    assert row(table, "backbone") == ["backbone", "1", "10.0", "-", "-", "-", "-", "-"]


def test_table2_lists_ours_in_the_order_of_the_methods_and_then_what_only_the_paper_has(metrics: Path) -> None:
    rows = build_table(2, metrics, []).rows
    assert [row[0] for row in rows[:5]] == ["backbone", "lora", "mhr h8", "mhr h16", "mhr_mu h8"]
    assert [row[0] for row in rows[5:]] == ["lora_big", "poly", "poly_z", "mhr_z"]
    assert list(rows[-1]) == ["mhr_z", "0", *["not run"] * 4, "68.0±0.2", "-"]


def test_a_variant_alone_leaves_the_papers_method_not_run(metrics: Path) -> None:
    content = made_cell("poly", 1, 0, both(71.0), variant="light", layout="light")
    table = build_table(2, write_cells(metrics, {"poly-light-s0": content}), [])
    assert row(table, "poly light")[-2:] == ["-", "-"]
    assert row(table, "poly")[1:3] == ["0", "not run"]


def test_the_score_is_each_tasks_own_and_its_name_that_of_the_metric(metrics: Path) -> None:
    mixed = made_cell("poly", 1, 0, both(50.0), metric="mixed")
    mixed["adapted"]["rouge_l"] = 99.0
    write_cells(everywhere(metrics, metric="mixed"), {"poly-s0": mixed})
    table = build_table(2, metrics, [])
    assert table.columns[3] == "adapted\nscore"
    assert row(table, "poly")[3] == "50.0"
    assert row(table, "poly")[-1] == "-"


def test_a_difference_needs_one_metric_and_is_a_reproduction_on_one_suite_and_backbone(metrics: Path) -> None:
    said = notes(build_table(2, metrics, []))
    for part in ("compositional", "scratch-1.2M", "SuperNI", "T5-XL-LM", "Rouge-L", "no reproduction"):
        assert part in said
    everywhere(metrics, suite="superni", backbone="google/t5-xl-lm-adapt")
    assert "no reproduction" not in notes(build_table(2, metrics, []))
    everywhere(metrics, suite="t0", metric="accuracy")
    assert "no difference to take" in notes(build_table(2, metrics, []))
    assert row(build_table(2, metrics, []), "lora")[-2:] == ["67.6±0.8", "-"]


def test_cells_without_scores_are_named_in_every_table_of_scores(metrics: Path) -> None:
    for number in range(2, 7):
        assert build_table(number, metrics, ["lora-s0", "poly-s0", "poly-s1"]).notes[-1] == "No scores yet: poly-s0, poly-s1."
        assert "No scores yet" not in notes(build_table(number, metrics, ["lora-s0"]))


def test_many_names_are_counted() -> None:
    assert named([f"c{number}" for number in range(14)]).endswith("c11 and 2 more")


def test_a_chosen_trial_is_named(metrics: Path) -> None:
    trials = {
        f"poly-t{trial}-s0": made_cell("poly", 1, 0, both(50.0), validation=40.0 + trial, trial=trial, settings={"lr": trial})
        for trial in (1, 2)
    }
    assert "poly: of 2 trials number 2" in notes(build_table(2, write_cells(metrics, trials), []))


def test_a_difference_that_rounds_to_nothing_has_no_minus(metrics: Path) -> None:
    write_cells(metrics, {"poly-s0": made_cell("poly", 1, 0, both(67.77))})
    assert row(build_table(2, metrics, []), "poly")[-2:] == ["67.8±0.8", "+0.0"]


def test_table3_is_the_11b_of_t0(metrics: Path) -> None:
    everywhere(metrics, suite="t0", backbone="bigscience/T0", metric="accuracy")
    table = build_table(3, metrics, [])
    assert row(table, "lora") == ["lora", "3", "40.0±0.0", "63.0±3.6", "62.0±7.1", "72.3±1.0", "-9.3"]
    assert row(table, "tfew") == ["tfew", "0", *["not run"] * 3, "72.5±0.9", "-"]
    assert "no reproduction" not in notes(table)
    everywhere(metrics, backbone="google/t5-xl-lm-adapt")
    assert "no reproduction" in notes(build_table(3, metrics, []))


def test_table4_compares_with_the_block_of_our_metric(metrics: Path) -> None:
    table = build_table(4, metrics, [])
    assert row(table, "lora") == ["lora", "3", "63.0±3.6", "62.0±7.1", "66.0±1.6", "67.6±0.8", "-4.6"]
    assert row(table, "mhr_mu h8")[-3:] == ["69.1±0.9", "68.5±0.8", "+1.5"]
    assert row(table, "adapter_soup") == ["adapter_soup", "0", "not run", "not run", "62.1±1.0", "-", "-"]
    assert row(table, "random_mu")[-3:] == ["66.0", "-", "-"]
    assert "backbone" not in [row[0] for row in table.rows]
    everywhere(metrics, suite="t0", backbone="google/t5-xl-lm-adapt", metric="accuracy")
    table = build_table(4, metrics, [])
    assert row(table, "lora")[-1] == "-3.0"
    assert "vs. paper: T0." in notes(table)
    assert "no reproduction" not in notes(table)


def extra_steps(metrics: Path) -> Path:
    cells = {
        f"lora-x100-s{seed}": made_cell("lora", 1, seed, zero_shot=score, extra_steps=100)
        for seed, score in ((0, 50.0), (1, 54.0))
    }
    return write_cells(metrics, cells)


def test_table5_has_a_column_for_each_number_of_steps_and_names_what_was_not_run(metrics: Path) -> None:
    table = build_table(5, extra_steps(metrics), [])
    assert [column.replace("\n", " ") for column in table.columns[:4]] == ["method", "0 steps", "100 steps", "n"]
    assert row(table, "lora") == ["lora", "40.0±0.0", "52.0±2.8", "2-3", "56.5", "56.0", "56.1", "55.7", "-"]
    assert row(table, "mhr_mu h8") == ["mhr_mu h8", "40.0", "-", "1", "48.0", "58.0", "57.1", "56.3", "-"]
    assert row(table, "poly_mu") == ["poly_mu", "not run", "not run", "0", "46.0", "53.0", "56.8", "56.3", "-"]
    assert row(build_table(2, metrics, []), "lora")[1] == "3"  # cells of extra steps are no seeds of the method


def test_table5_compares_no_extra_steps_with_the_block_of_our_backbone(metrics: Path) -> None:
    everywhere(extra_steps(metrics), suite="t0", backbone="bigscience/T0", metric="accuracy")
    table = build_table(5, metrics, [])
    assert row(table, "lora")[4:] == ["61.2", "61.6", "61.5", "61.5", "-21.2"]
    assert row(table, "backbone")[3:] == ["1", "61.0", "-", "-", "-", "-51.0"]
    assert "T0-11B" in notes(table)
    everywhere(metrics, backbone="google/t5-large-lm-adapt")
    assert row(build_table(5, metrics, []), "lora")[-1] == "-16.5"
    assert "no reproduction" in notes(build_table(5, metrics, []))


def test_table6_sets_layouts_beside_the_papers_and_other_variants_beside_nothing(metrics: Path) -> None:
    for variant in ("light", "block"):
        layout = "light" if variant == "light" else "full"
        content = made_cell("mhr", 8, 0, both(71.0), variant=variant, layout=layout)
        write_cells(metrics, {f"mhr-h8-{variant}-s0": content})
    table = build_table(6, metrics, [])
    assert row(table, "lora") == ["lora", "17,694,720", "3,456", "3", "63.0±3.6", "2.2M", "2.2M", "66.0±1.6", "-"]
    assert row(table, "mhr h8")[-4:] == ["17M", "2.2M", "69.1±1.0", "-"]
    assert row(table, "mhr h8 light")[1:] == ["17,694,720", "3,456", "1", "71.0", "7.5M", "934K", "68.5±0.7", "-"]
    assert row(table, "mhr h8 block")[-4:] == ["-", "-", "-", "-"]
    assert row(table, "backbone") == ["backbone", "0", "0", "1", "10.0", "-", "-", "-", "-"]
    assert row(table, "ia3") == ["ia3", "-", "-", "0", "not run", "540K", "540K", "62.4±0.4", "-"]
    assert row(table, "poly light")[4:8] == ["not run", "7.5M", "934K", "68.0±0.5"]


@pytest.mark.parametrize(
    ("facts", "label", "expected"),
    [
        (
            {"suite": "t0", "backbone": "google/t5-xl-lm-adapt", "metric": "accuracy"},
            "lora",
            ["2.2M", "2.2M", "66.0±1.6", "-3.0"],
        ),
        ({"suite": "t0", "backbone": "bigscience/T0_3B", "metric": "accuracy"}, "lora", ["2.2M", "2.2M", "67.4±0.8", "-4.4"]),
        (
            {"suite": "t0", "backbone": "bigscience/T0_3B", "metric": "accuracy", "layout": "light"},
            "lora",
            ["934K", "934K", "66.2±0.9", "-3.2"],
        ),
        (
            {"suite": "superni", "backbone": "google/t5-xl-lm-adapt", "layout": "light"},
            "lora",
            ["934K", "934K", "67.6±0.8", "-4.6"],
        ),
        ({"suite": "superni", "backbone": "google/t5-xl-lm-adapt", "layout": "full"}, "lora", ["-", "-", "-", "-"]),
    ],
    ids=["T5-XL-LM", "T0-3B", "T0-3B light", "SuperNI light", "SuperNI full, which the paper has not"],
)
def test_table6_takes_the_block_of_our_suite_backbone_and_layout(
    metrics: Path, facts: dict[str, Any], label: str, expected: list[str]
) -> None:
    table = build_table(6, everywhere(metrics, **facts), [])
    assert row(table, label)[-4:] == expected
    assert "no reproduction" not in notes(table)


@pytest.mark.parametrize(("number", "label"), [(2, "lora_big"), (3, "tfew"), (4, "random_mu"), (5, "poly_mu"), (6, "mhr_z")])
def test_without_scores_a_table_has_the_papers_numbers_and_says_what_to_run(tmp_path: Path, number: int, label: str) -> None:
    table = build_table(number, tmp_path / "missing", ["lora-s0"])
    found = row(table, label)
    assert "not run" in found
    assert "0" in found
    assert any(cell[:1].isdigit() and "." in cell for cell in found)
    assert table.notes[0] == "No scores yet; run `dvc repro`, or `mhrctl evaluate` for each cell."


@pytest.mark.parametrize("number", range(1, 7))
def test_every_table_has_whole_rows_in_every_form(metrics: Path, number: int) -> None:
    table = build_table(number, extra_steps(metrics), [])
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert len({row[0] for row in table.rows}) == len(table.rows)
    for render in RENDERERS.values():
        assert table.rows[0][0].split("_")[0] in render(table)


@pytest.mark.parametrize("number", range(1, 7))
def test_every_table_fits_a_terminal(metrics: Path, number: int) -> None:
    for method in ("full_ft_then_lora", "adapter_soup"):
        write_cells(metrics, {f"{method}-s{seed}": made_cell(method, 1, seed, both(50.0 + seed)) for seed in range(3)})
    console = Console(file=io.StringIO(), width=80, color_system=None)
    table = build_table(number, extra_steps(metrics), [])
    with console.capture() as capture:
        console.print(rich_table(table))
    lines = capture.get().splitlines()
    for cells in table.rows:
        assert any(len(line) <= 80 and all(cell in line for cell in cells) for line in lines), cells


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (3456, "3.5K"),
        (17_695, "17.7K"),
        (960_000, "960.0K"),
        (999_949, "999.9K"),
        (999_950, "1.0M"),
        (2_211_840, "2.2M"),
        (2_849_757_184, "2.8B"),
    ],
)
def test_human(count: int, text: str) -> None:
    assert human(count) == text
