"""Tables 2, 3 and 4 over a few cells, with means, deviations and differences computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import as_paper, built, everywhere, notes, row


def test_table2_folds_seeds_and_sets_the_paper_beside_them(metrics: Path) -> None:
    table = built(2, as_paper(metrics, "SuperNI", "T5-XL-LM"))
    # 60, 62, 67: mean 63, sample deviation sqrt((9 + 1 + 16) / 2) = 3.61; the paper prints 67.6
    assert row(table, "lora") == ["lora", "3", "40.0±0.0", "63.0±3.6", "50.0±0.0", "67.6±0.8", "-4.6"]
    # 80, 83: mean 81.5, and no deviation of two seeds; the paper prints 68.5
    assert row(table, "mhr-h8") == ["mhr-h8", "2", "41.5", "81.5", "67.0", "68.5±0.3", "+13.0"]
    assert "median" not in f"{table.columns} {table.notes}"


def test_table2_shows_no_deviation_of_one_seed_and_no_number_that_the_paper_lacks(metrics: Path) -> None:
    table = built(2, metrics)
    assert row(table, "mhr_mu-h8") == ["mhr_mu-h8", "1", "40.0", "70.0", "50.0", "-", "-"]
    assert row(table, "backbone") == ["backbone", "1", "10.0", "-", "-", "-", "-"]


def test_table2_lists_ours_in_the_order_of_the_methods_and_then_what_only_the_paper_has(metrics: Path) -> None:
    rows = built(2, metrics).rows
    assert [row[0] for row in rows[:5]] == ["backbone", "lora", "mhr-h8", "mhr-h16", "mhr_mu-h8"]
    assert [row[0] for row in rows[5:]] == ["lora_big", "poly", "poly_z", "mhr_z-h64"]
    assert list(rows[-1]) == ["mhr_z-h64", "0", *["not run"] * 3, "68.0±0.2", "-"]


def test_table3_is_the_11b_of_t0(metrics: Path) -> None:
    table = built(3, as_paper(metrics, "T0", "T0-11B"))
    # medians of 5 tasks each and of one between: 57, 67 and 62; each task deviates by 3.61 over seeds. Means beside them
    assert row(table, "lora") == ["lora", "3", "40.0±0.0", "62.0±3.6", "63.0±3.6", "72.3±1.0", "-10.3"]
    assert row(table, "tfew") == ["tfew", "0", *["not run"] * 3, "72.5±0.9", "-"]
    assert "No difference" not in notes(table)
    # the heads of mhr are not known: it stands beside any, without a difference
    assert row(table, "mhr-h8")[-2:] == row(table, "mhr-h16")[-2:] == ["74.7±0.6", "-"]
    assert "The paper does not say how many heads mhr has there: no difference is taken." in table.notes
    table = built(3, as_paper(metrics, "T0", "T5-XL-LM"))
    assert {cells[1] for cells in table.rows} == {"0"}  # ours are not in it
    assert row(table, "lora")[-2:] == ["72.3±1.0", "-"]
    assert "No difference is taken: ours are of backbone google/t5-xl-lm-adapt, not T0-11B." in notes(table)
    assert "Ours are not of T0-11B: they stand in the other tables." in table.notes


def test_table4_compares_with_the_block_of_our_metric(metrics: Path) -> None:
    table = built(4, as_paper(metrics, "SuperNI", "T5-XL-LM"))
    assert row(table, "lora") == ["lora", "3", "63.0±3.6", "66.0±1.6", "67.6±0.8", "-4.6"]
    assert row(table, "mhr_mu-h8")[-3:] == ["-", "68.5±0.8", "+1.5"]
    assert row(table, "poly")[1:] == ["0", "not run", "68.0±0.8", "67.8±0.8", "-"]
    assert not {"mhr_mu-h64", "adapter_soup", "random_mu"} & {cells[0] for cells in table.rows}  # which T0 alone has
    assert "backbone" not in [row[0] for row in table.rows]
    assert "No difference" not in notes(table)


def test_table4_compares_t0_by_medians(metrics: Path) -> None:
    table = built(4, as_paper(metrics, "T0", "T5-XL-LM"))
    assert [column.replace("\n", " ") for column in table.columns[2:4]] == ["adapted accuracy", "mean of seeds"]
    assert "Mean of seeds: mean over n seeds of the mean over tasks" in table.notes[0]
    assert row(table, "lora")[2:] == ["62.0±3.6", "63.0±3.6", "66.0±1.6", "67.6±0.8", "-4.0"]
    assert row(table, "mhr_mu-h8")[-3:] == ["-", "68.5±0.8", "-"]
    assert row(table, "mhr_mu-h64")[1:] == ["0", "not run", "not run", "69.1±0.9", "-", "-"]
    assert row(table, "adapter_soup") == ["adapter_soup", "0", "not run", "not run", "62.1±1.0", "-", "-"]
    assert row(table, "random_mu")[-3:] == ["66.0", "-", "-"]
    assert "vs. paper: T0." in notes(table)
    assert "No difference" not in notes(table)
    table = built(4, as_paper(metrics, "T0", "T0-3B"))
    assert {cells[-1] for cells in table.rows} == {"-"}
    assert "No difference is taken: ours are of backbone bigscience/T0_3B, not T5-XL-LM." in notes(table)


def test_table4_of_another_suite_has_all_of_the_papers(metrics: Path) -> None:
    table = built(4, metrics)
    assert row(table, "mhr_mu-h64")[1:] == ["0", "not run", "69.1±0.9", "-", "-"]
    assert row(table, "mhr_mu-h8")[-3:] == ["-", "68.5±0.8", "-"]


def test_a_variant_alone_leaves_the_papers_method_not_run(metrics: Path) -> None:
    content = made_cell("poly", 1, 0, both(71.0), variant="light", layout="light")
    table = built(2, write_cells(metrics, {"poly-light-s0": content}))
    assert row(table, "poly-light")[-2:] == ["-", "-"]
    assert row(table, "poly")[1:3] == ["0", "not run"]


def test_the_score_is_each_tasks_own_and_its_name_that_of_the_metric(metrics: Path) -> None:
    mixed = made_cell("poly", 1, 0, both(50.0), metric="mixed")
    mixed["adapted"]["rouge_l"] = 99.0
    write_cells(everywhere(metrics, metric="mixed"), {"poly-s0": mixed})
    table = built(2, metrics)
    assert table.columns[3] == "adapted\nscore"
    assert row(table, "poly")[3] == "50.0"
    assert row(table, "poly")[-1] == "-"


@pytest.mark.parametrize(
    ("metric", "title", "exact"),
    [("rouge_l", "ROUGE-L", True), ("f1", "F1", True), ("mixed", "score", True), ("accuracy", "accuracy", False)],
)
def test_exact_match_is_left_out_where_answers_are_chosen(metrics: Path, metric: str, title: str, exact: bool) -> None:
    table = built(2, everywhere(as_paper(metrics, "SuperNI", "T5-XL-LM"), metric=metric))
    assert f"adapted\n{title}" in table.columns
    assert ("adapted\nEM" in table.columns) == exact
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert (row(table, "lora")[-1] == "-") == (metric != "rouge_l")  # the paper's own metric alone can be compared
