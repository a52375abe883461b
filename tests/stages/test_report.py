"""The report over a few cells, with means and deviations computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.metrics import CellMetrics
from mhrctl.paper.table import Table
from mhrctl.stages.report import TABLES, build_table, fold_seeds, human, report


def cell(
    method: str,
    heads: int,
    seed: int,
    adapted: float,
    *,
    zero_shot: float = 40.0,
    exact: float = 50.0,
) -> dict[str, Any]:
    return {
        "method": method,
        "heads": heads,
        "seed": seed,
        "layout": "full",
        "suite": "compositional",
        "backbone": "scratch-1.2M",
        "zero_shot": {"rouge_l": zero_shot, "exact_match": 12.0},
        "adapted": {"rouge_l": adapted, "exact_match": exact},
        "parameters": {"multi_task": 17_694_720, "adaptation": 3456},
        "examples": 1200,
        "tasks": 12,
    }


CELLS: dict[str, dict[str, Any]] = {
    "backbone": cell("backbone", 1, 0, 0.0, zero_shot=10.0)
    | {"heads": None, "seed": None, "adapted": None, "parameters": {"multi_task": 0, "adaptation": 0}},
    "lora-s0": cell("lora", 1, 0, 60.0),
    "lora-s1": cell("lora", 1, 1, 62.0),
    "lora-s2": cell("lora", 1, 2, 67.0),
    "mhr-h16-s0": cell("mhr", 16, 0, 75.0),
    "mhr-h8-s0": cell("mhr", 8, 0, 80.0, zero_shot=41.0, exact=66.0),
    "mhr-h8-s1": cell("mhr", 8, 1, 83.0, zero_shot=42.0, exact=68.0),
    "mhr_mu-h8-s0": cell("mhr_mu", 8, 0, 70.0),
}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """`data/metrics` with the cells above and two pre-training logs."""
    for name, content in CELLS.items():
        file = tmp_path / "metrics" / "evaluate" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    logs = tmp_path / "metrics" / "pretrain"
    logs.mkdir()
    (logs / "mhr-h8-s0.csv").write_text("step,loss,lr,routing_lr,tokens\n10,2.5,0.01,0.1,640\n20,1.25,0.01,0.1,1280\n")
    (logs / "lora-s0.csv").write_text("step,loss,lr,routing_lr,tokens\n10,3.5,0.01,0.0,640\n")
    return tmp_path / "metrics"


def row(table: Table, label: str) -> list[str]:
    (found,) = [list(row) for row in table.rows if row[0] == label]
    return found


def test_tables_are_those_of_the_paper_that_we_have() -> None:
    assert sorted(TABLES) == [1, 2, 5, 6]


def test_an_unknown_table_is_answered_with_the_known_ones(metrics: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown table '3'.*known: 1, 2, 5, 6"):
        build_table(3, metrics, [])


def test_table1_needs_no_scores(tmp_path: Path) -> None:
    table = build_table(1, tmp_path / "missing", [])
    assert row(table, "lora") == ["lora", "d r", "d r", "d r", "2.2M", "2.2M", "2.2M"]
    assert row(table, "poly") == ["poly", "K d r + T K", "K d r + K", "d r", "18.8M", "17.7M", "2.2M"]
    assert row(table, "mhr_z") == ["mhr_z", "K d r + T K H", "K H", "d r", "86.9M", "221.2K", "2.2M"]


def test_table1_says_which_rows_and_counts_are_not_the_papers(tmp_path: Path) -> None:
    notes = " ".join(build_table(1, tmp_path, []).notes)
    assert "poly_mu" in notes
    assert "full_ft" in notes


def test_table2_folds_seeds_and_sets_the_paper_beside_them(metrics: Path) -> None:
    table = build_table(2, metrics, [])
    # 60, 62, 67: mean 63, sample deviation sqrt((9 + 1 + 16) / 2) = 3.61; the paper prints 67.6
    assert row(table, "lora") == [
        "lora",
        "3",
        "40.0±0.0",
        "63.0±3.6",
        "50.0±0.0",
        "17.7M",
        "3.5K",
        "67.6±0.8",
        "-4.6",
    ]
    # 80, 83: mean 81.5, sample deviation 3 / sqrt(2) = 2.12; the paper prints 68.5
    assert row(table, "mhr h8") == [
        "mhr h8",
        "2",
        "41.5±0.7",
        "81.5±2.1",
        "67.0±1.4",
        "17.7M",
        "3.5K",
        "68.5±0.3",
        "+13.0",
    ]


def test_table2_shows_no_deviation_of_one_seed_and_no_number_that_the_paper_lacks(metrics: Path) -> None:
    table = build_table(2, metrics, [])
    assert row(table, "mhr_mu h8") == ["mhr_mu h8", "1", "40.0", "70.0", "50.0", "17.7M", "3.5K", "-", "-"]
    assert row(table, "backbone") == ["backbone", "1", "10.0", "-", "-", "-", "-", "-", "-"]


def test_table2_has_a_line_a_method_and_head_count_in_the_order_of_the_methods(metrics: Path) -> None:
    ours = [row[0] for row in build_table(2, metrics, []).rows if "not run" not in row]
    assert ours == ["backbone", "lora", "mhr h8", "mhr h16", "mhr_mu h8"]


def test_table2_lists_what_the_paper_has_and_we_have_not(metrics: Path) -> None:
    rows = build_table(2, metrics, []).rows
    assert [row[0] for row in rows if "not run" in row] == ["lora_big", "poly_z", "poly", "mhr_z"]
    assert list(rows[-1]) == ["mhr_z", "0", *["not run"] * 5, "68.0±0.2", "-"]
    assert {len(row) for row in rows} == {len(build_table(2, metrics, []).columns)}


def test_table2_says_whose_tasks_and_backbones_these_are(metrics: Path) -> None:
    notes = " ".join(build_table(2, metrics, []).notes)
    for part in ("compositional", "scratch-1.2M", "SuperNI", "T5-XL-LM", "Rouge-L", "no reproduction"):
        assert part in notes


def test_table2_on_superni_may_be_compared(metrics: Path) -> None:
    for file in (metrics / "evaluate").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | {"suite": "superni", "backbone": "google/t5-xl-lm-adapt"}))
    assert "no reproduction" not in " ".join(build_table(2, metrics, []).notes)


def test_table2_names_the_cells_without_scores(metrics: Path) -> None:
    assert build_table(2, metrics, ["lora-s0", "poly-s0", "poly-s1"]).notes[-1] == "No scores yet: poly-s0, poly-s1."
    assert not any("No scores yet" in note for note in build_table(2, metrics, ["lora-s0"]).notes)


def test_a_difference_that_rounds_to_nothing_has_no_minus(metrics: Path) -> None:
    (metrics / "evaluate" / "poly-s0.json").write_text(json.dumps(cell("poly", 1, 0, 67.77)))
    assert row(build_table(2, metrics, []), "poly")[-2:] == ["67.8±0.8", "+0.0"]


def test_variants_are_rows_of_their_own_and_only_layouts_of_the_paper_have_its_numbers(metrics: Path) -> None:
    for variant in ("light", "block"):
        layout = "light" if variant == "light" else "full"
        content = cell("mhr", 8, 0, 71.0) | {"variant": variant, "layout": layout}
        (metrics / "evaluate" / f"mhr-h8-{variant}-s0.json").write_text(json.dumps(content))
    table = build_table(6, metrics, [])
    assert row(table, "mhr h8")[-3:] == ["17M", "2.2M", "69.1"]
    assert row(table, "mhr h8 light") == ["mhr h8 light", "17,694,720", "3,456", "71.0", "7.5M", "934K", "68.5"]
    assert row(table, "mhr h8 block")[-3:] == ["-", "-", "-"]
    assert row(build_table(2, metrics, []), "mhr h8 light")[-2:] == ["-", "-"]


def test_table5_has_a_column_for_each_number_of_steps_and_names_what_was_not_run(metrics: Path) -> None:
    for seed, score in ((0, 50.0), (1, 54.0)):
        content = cell("lora", 1, seed, 0.0, zero_shot=score) | {"extra_steps": 100, "adapted": None}
        (metrics / "evaluate" / f"lora-x100-s{seed}.json").write_text(json.dumps(content))
    table = build_table(5, metrics, [])
    assert [column.replace("\n", " ") for column in table.columns[:3]] == ["method", "0 steps", "100 steps"]
    assert row(table, "lora") == ["lora", "40.0±0.0", "52.0±2.8", "56.5", "56.0", "56.1", "55.7"]
    assert row(table, "mhr_mu h8") == ["mhr_mu h8", "40.0", "-", "48.0", "58.0", "57.1", "56.3"]
    assert row(table, "poly_mu") == ["poly_mu", "not run", "not run", "46.0", "53.0", "56.8", "56.3"]
    assert row(build_table(2, metrics, []), "lora")[1] == "3"  # cells of extra steps are no seeds of the method


def test_seeds_are_folded_by_method_and_heads() -> None:
    groups = fold_seeds({name: CellMetrics.model_validate(content) for name, content in CELLS.items()})
    assert {group.label: len(group.cells) for group in groups} == {
        "backbone": 1,
        "lora": 3,
        "mhr h8": 2,
        "mhr h16": 1,
        "mhr_mu h8": 1,
    }


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


def test_report_writes_its_files(metrics: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    report(metrics, out, tables=[1, 2], expected_cells=[])
    written = ["curves.csv", "scores.csv", "summary.json", "table1.md", "table2.md"]
    assert sorted(path.name for path in out.iterdir()) == written
    assert "| lora | 3 | 40.0±0.0 | 63.0±3.6 |" in (out / "table2.md").read_text()
    scores = (out / "scores.csv").read_text().splitlines()
    assert len(scores) == 1 + 1 + 2 * 7
    assert scores[:3] == [
        "cell,method,heads,variant,extra_steps,seed,phase,rouge_l,exact_match",
        "backbone,backbone,,plain,0,,zero_shot,10.0,12.0",
        "lora-s0,lora,1,plain,0,0,zero_shot,40.0,12.0",
    ]
    assert "mhr-h8-s1,mhr,8,plain,0,1,adapted,83.0,68.0" in scores
    assert (out / "curves.csv").read_text() == "cell,step,loss\nlora-s0,10,3.5\nmhr-h8-s0,10,2.5\nmhr-h8-s0,20,1.25\n"


def test_summary_holds_means_over_seeds(metrics: Path, tmp_path: Path) -> None:
    (metrics / "evaluate" / "lora-s1.json").write_text(json.dumps(cell("lora", 1, 1, 62.01)))
    report(metrics, tmp_path, tables=[], expected_cells=[])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["backbone"] == {"zero_shot_rouge_l": 10.0, "zero_shot_exact_match": 12.0}
    assert summary["lora"]["adapted_rouge_l"] == 63.0  # 63.00333 in two decimals
    assert summary["mhr h8"] == {
        "zero_shot_rouge_l": 41.5,
        "zero_shot_exact_match": 12.0,
        "adapted_rouge_l": 81.5,
        "adapted_exact_match": 67.0,
    }


def test_only_the_tables_asked_for_are_written(metrics: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    report(metrics, out, tables=[2], expected_cells=[])
    assert [path.name for path in out.glob("table*")] == ["table2.md"]


def test_a_report_without_training_logs_has_no_curves(metrics: Path, tmp_path: Path) -> None:
    for file in (metrics / "pretrain").iterdir():
        file.unlink()
    report(metrics, tmp_path, tables=[], expected_cells=[])
    assert (tmp_path / "curves.csv").read_text() == "cell,step,loss\n"


@pytest.mark.parametrize("text", ["step,lr\n10,0.1\n", "step,loss\n10\n", ""], ids=["no loss", "short row", "empty"])
def test_a_broken_training_log_is_named(metrics: Path, tmp_path: Path, text: str) -> None:
    log = metrics / "pretrain" / "lora-s0.csv"
    log.write_text(text)
    with pytest.raises(ArtifactError, match=r"lora-s0\.csv: .*mhrctl pretrain") as error:
        report(metrics, tmp_path, tables=[], expected_cells=[])
    assert "\n" not in str(error.value)


def test_no_scores_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run `dvc repro` or `mhrctl evaluate`"):
        build_table(2, tmp_path, [])
