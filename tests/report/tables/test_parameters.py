"""Tables 1 and 6: formulas, counts and layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.made import both, made_cell, write_cells
from tests.report.tables.made import as_paper, built, notes, row


def test_table1_needs_no_scores(tmp_path: Path) -> None:
    table = built(1, tmp_path / "missing")
    assert row(table, "lora") == ["lora", "d r", "d r", "d r", "2.2M", "2.2M", "2.2M"]
    assert row(table, "poly") == ["poly", "K d r + T K", "K d r + K", "d r", "18.8M", "17.7M", "2.2M"]
    assert row(table, "mhr_z") == ["mhr_z", "K d r + T K H", "K H", "d r", "86.9M", "221.2K", "2.2M"]


def test_table1_says_which_rows_and_counts_are_not_the_papers(tmp_path: Path) -> None:
    assert "poly_mu" in notes(built(1, tmp_path))
    assert "full_ft" in notes(built(1, tmp_path))


def test_table6_sets_layouts_beside_the_papers_and_other_variants_beside_nothing(metrics: Path) -> None:
    for variant in ("light", "block"):
        layout = "light" if variant == "light" else "full"
        content = made_cell("mhr", 8, 0, both(71.0), variant=variant, layout=layout)
        write_cells(metrics, {f"mhr-h8-{variant}-s0": content})
    as_paper(metrics, "T0", "T0-3B", layout=None)
    for file in (metrics / "evaluate").iterdir():
        write_cells(
            metrics, {file.stem: json.loads(file.read_text()) | {"layout": "light" if "light" in file.stem else "full"}}
        )
    table = built(6, metrics)
    assert row(table, "lora") == ["lora", "17,694,720", "3,456", "3", "62.0±3.6", "2.2M", "2.2M", "67.4±0.8", "-5.4"]
    assert row(table, "mhr-h8")[-4:] == ["17M", "2.2M", "69.3±1.2", "+12.2"]
    assert row(table, "mhr-h16")[-4:] == ["-", "-", "-", "-"]  # the paper's has 8 heads
    assert row(table, "mhr-h8-light")[1:] == ["17,694,720", "3,456", "1", "71.0", "7.5M", "934K", "68.5±0.7", "+2.5"]
    assert row(table, "mhr-h8-block")[-4:] == ["-", "-", "-", "-"]
    assert row(table, "mhr_mu-h8")[-4:] == ["2.2M", "2.2M", "-", "-"]  # of its text
    assert row(table, "backbone") == ["backbone", "0", "0", "1", "10.0", "-", "-", "-", "-"]
    assert row(table, "tfew") == ["tfew", "-", "-", "0", "not run", "540K", "540K", "66.2±0.5", "-"]
    assert row(table, "mhr_z-h64")[4:8] == ["not run", "17M", "220K", "68.4±1.2"]
    assert row(table, "mhr_z-h32 (light)")[4:8] == ["not run", "7.5M", "74K", "66.8±1.1"]
    assert row(table, "poly (light)")[4:8] == ["not run", "7.5M", "934K", "68.0±0.5"]
    assert "mhr_z's 74K fit the 288 layers q k v o (73,728), not the 192 of the light layout (49,152)" in notes(table)


def test_table6_sets_the_papers_lora_big_of_superni_beside_its_fork(metrics: Path) -> None:
    cells = {f"lora_big{name}-s0": made_cell("lora_big", 1, 0, both(68.0)) for name in ("", "-attention")}
    cells["lora_big-attention-s0"]["variant"] = "attention"
    as_paper(write_cells(metrics, cells), "SuperNI", "T5-XL-LM")
    alone = built(6, metrics)
    assert row(alone, "lora_big")[-1] == "-"
    assert row(alone, "lora_big-attention")[-4:] == ["-", "-", "-", "-"]  # so called, but of the light layout
    fork = json.loads((metrics / "evaluate/lora_big-attention-s0.json").read_text())
    table = built(6, write_cells(metrics, {"lora_big-attention-s0": fork | {"layout": "attention"}}))
    assert row(table, "lora_big")[-2:] == ["-", "-"]
    assert row(table, "lora_big-attention")[-4:] == ["18M", "18M", "67.2±0.7", "+0.8"]
    assert "rank 16 on q k v o (18,874,368), not the light layout (14,942,208)" in notes(table)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (("T0", "T5-XL-LM", "full"), ["2.2M", "2.2M", "66.0±1.6", "-4.0"]),
        (("T0", "T0-3B", "full"), ["2.2M", "2.2M", "67.4±0.8", "-5.4"]),
        (("T0", "T0-3B", "light"), ["934K", "934K", "66.2±0.9", "-4.2"]),
        (("SuperNI", "T5-XL-LM", "light"), ["934K", "934K", "67.6±0.8", "-4.6"]),
        (("SuperNI", "T5-XL-LM", "full"), ["-", "-", "-", "-"]),
    ],
    ids=["T5-XL-LM", "T0-3B", "T0-3B light", "SuperNI light", "SuperNI full, which the paper has not"],
)
def test_table6_takes_the_block_of_our_suite_backbone_and_layout(
    metrics: Path, setting: tuple[str, str, str], expected: list[str]
) -> None:
    suite, backbone, layout = setting
    table = built(6, as_paper(metrics, suite, backbone, layout=layout))
    assert row(table, "lora")[-4:] == expected
    assert "No difference" not in notes(table)
