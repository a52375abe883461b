"""Table 5: zero-shot after extra steps."""

from __future__ import annotations

from pathlib import Path

from tests.report.tables.made import as_paper, built, everywhere, extra_steps, notes, row


def test_table5_has_a_column_for_each_number_of_steps_and_names_what_was_not_run(metrics: Path) -> None:
    table = built(5, extra_steps(metrics))
    assert [column.replace("\n", " ") for column in table.columns[:4]] == ["method", "0 steps", "100 steps", "n"]
    assert row(table, "lora") == ["lora", "40.0±0.0", "52.0", "2-3", "56.5", "56.0", "56.1", "55.7", "-"]
    assert row(table, "mhr_mu-h8") == ["mhr_mu-h8", "40.0", "-", "1", "-", "-", "-", "-", "-"]
    assert row(table, "mhr_mu-h64")[4:] == ["48.0", "58.0", "57.1", "56.3", "-"]
    assert row(table, "poly_mu") == ["poly_mu", "not run", "not run", "0", "46.0", "53.0", "56.8", "56.3", "-"]
    assert row(built(2, metrics), "lora")[1] == "3"  # cells of extra steps are no seeds of the method


def test_table5_compares_no_extra_steps_with_the_block_of_our_backbone(metrics: Path) -> None:
    as_paper(extra_steps(metrics), "T0", "T0-11B")
    table = built(5, metrics)
    assert row(table, "lora")[4:] == ["61.2", "61.6", "61.5", "61.5", "-21.2"]
    assert row(table, "backbone")[3:] == ["1", "61.0", "-", "-", "-", "-51.0"]
    assert "T0-11B" in notes(table)
    everywhere(metrics, backbone="google/t5-large-lm-adapt")
    assert row(built(5, metrics), "lora")[-2:] == ["55.7", "-"]
    assert "ours are of backbone google/t5-large-lm-adapt, not T5-XL-LM." in notes(built(5, metrics))
    as_paper(metrics, "T0", "T5-XL-LM")
    assert row(built(5, metrics), "lora")[-1] == "-16.5"
