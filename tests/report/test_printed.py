"""The paper's printed numbers, against its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.methods import METHODS
from mhrctl.evaluation.scores import FrozenBackbone
from mhrctl.models.backbones import sized_model
from mhrctl.report.printed import T5_XL, T5_XXL, Setting, printed, printed_blocks, printed_table

PAPER = Path(__file__).parents[3] / "shared/paper/mhr-paper.txt"


def test_table2_as_printed() -> None:
    table = printed_table("table2")
    assert (table.suite, table.metric, table.backbone) == ("SuperNI", "Rouge-L", "T5-XL-LM")
    assert {name: row.score for name, row in table.rows.items()} == {
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
    assert (table.suite, table.backbone, len(table.rows), table.rows["mhr"].score) == (suite, backbone, rows, mhr)


def test_package_data_is_whole() -> None:
    assert {"table5", "table6", "text", "exact_parameter_counts_t5_xl"} < set(printed())


def test_table6_has_every_row_of_the_papers_text() -> None:
    if not PAPER.exists():
        pytest.skip("the paper's text is not at hand")
    text = PAPER.read_text().split("A.1 Additional Results")[1].split("Multi-Task params is")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    in_text = [tuple(line[1:]) for line in lines if len(line) == 4 and line[1] and line[1][0].isdigit()]
    ours = [
        (row.multi_task, row.adaptation, f"{row.score.mean}{'x.x' if row.score.deviation is None else row.score.deviation}")
        for block in printed_blocks()
        for row in block.rows.values()
    ]
    assert sorted(ours) == sorted(in_text)
    assert len(ours) == 30


def test_blocks_of_table6() -> None:
    blocks = [(block.suite, block.metric, block.backbone, block.layout) for block in printed_blocks()]
    assert blocks == [
        ("T0", "accuracy", "T5-XL-LM", "full"),
        ("T0", "accuracy", "T0-3B", "full"),
        ("T0", "accuracy", "T0-3B", "light"),
        ("SuperNI", "Rouge-L", "T5-XL-LM", "light"),
    ]
    assert {method for block in printed_blocks() for method in block.rows} < set(METHODS)


@pytest.mark.parametrize(("method", "parameters"), [("lora", 2.2e6), ("poly_z", 3.5e3), ("mhr_z", 220e3)])
def test_printed_counts_are_numbers_too(method: str, parameters: float) -> None:
    assert printed_blocks()[0].rows[method].adapted_parameters == pytest.approx(parameters)


def test_a_setting_knows_ours() -> None:
    setting = Setting("T0", "accuracy", "T0-3B")
    assert str(setting) == "T0, T0-3B, accuracy"
    assert (setting.has_suite("t0"), setting.has_backbone("bigscience/T0_3B"), setting.has_metric("accuracy")) == (True,) * 3
    assert not any((setting.has_suite("superni"), setting.has_backbone(None), setting.has_metric("mixed")))


def test_a_namesake_of_a_backbone_is_known_by_its_source_and_size() -> None:
    setting = Setting("T0", "accuracy", "T0-11B")
    for source, parameters, same in (("hub", T5_XXL, True), ("local", T5_XXL, False), ("hub", T5_XL, False)):
        assert setting.has_weights(FrozenBackbone(source=source, parameters=parameters, fingerprint="none")) == same
    assert not setting.has_weights(None)


@pytest.mark.parametrize(("size", "count"), [("t5-xl", T5_XL), ("t5-xxl", T5_XXL)])
def test_the_papers_backbones_have_as_many_weights_as_models_of_their_sizes(size: str, count: int) -> None:
    assert sized_model(size).num_parameters() == count


def test_the_papers_test_tasks_are_11_of_t0_and_either_list_of_20_of_superni() -> None:
    assert [len(tasks) for tasks in Setting("T0", "accuracy", "T0-3B").test_tasks()] == [11]
    first, second = Setting("SuperNI", "Rouge-L", "T5-XL-LM").test_tasks()
    assert (len(first), len(second)) == (20, 20)
    assert first != second
