"""The paper's printed numbers, against its text (Figure 2 and Tables 2 to 4)."""

from __future__ import annotations

import pytest

from mhrctl.paper.printed import printed, printed_table


def test_table2_as_printed() -> None:
    table = printed_table("table2")
    assert (table.suite, table.metric, table.backbone) == ("SuperNI", "Rouge-L", "T5-XL-LM")
    assert table.rows == {
        "lora": (67.6, 0.8),
        "lora_big": (67.2, 0.7),
        "poly_z": (64.6, 0.3),
        "poly": (67.8, 0.8),
        "mhr_z": (68.0, 0.2),
        "mhr": (68.5, 0.3),
    }


@pytest.mark.parametrize(
    ("name", "suite", "backbone", "rows", "mhr"),
    [
        ("figure2_t5xl", "T0", "T5-XL-LM", 8, (69.1, 1.0)),
        ("figure2_t03b", "T0", "T0-3B", 7, (69.3, 1.2)),
        ("table3", "T0", "T0-11B", 6, (74.7, 0.6)),
        ("table4_t0", "T0", "T5-XL-LM", 6, (69.1, 1.1)),
        ("table4_superni", "SuperNI", "T5-XL-LM", 5, (68.5, 0.6)),
    ],
)
def test_other_tables_of_scores(name: str, suite: str, backbone: str, rows: int, mhr: tuple[float, float]) -> None:
    table = printed_table(name)
    assert (table.suite, table.backbone, len(table.rows), table.rows["mhr"]) == (suite, backbone, rows, mhr)


def test_package_data_is_whole() -> None:
    assert {"table5", "table6", "text", "exact_parameter_counts_t5_xl"} < set(printed())
