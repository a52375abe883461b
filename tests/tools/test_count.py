"""Exact counts on T5-XL, without its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BartConfig

from mhrctl.config.methods import METHODS
from mhrctl.models.attach import linear_shapes
from mhrctl.models.backbones import sized_model
from mhrctl.report.printed import printed
from mhrctl.tools.count import Counts, Sizes, count, count_methods, counts_table
from tests.conftest import Run

EXACT = printed()["exact_parameter_counts_t5_xl"]
Counted = dict[tuple[str, str, int | None], Counts]


@pytest.fixture(scope="module")
def xl() -> Counted:
    model = sized_model("t5-xl")
    linears = linear_shapes(model)
    return {
        (layout, row.method, row.heads): row
        for layout in ("full", "light")
        for row in count_methods(linears, model.num_parameters(), layout, Sizes(heads=(1, 8, 64)))
    }


@pytest.mark.parametrize(
    ("name", "layout", "method", "heads", "field"),
    [
        ("lora_rank1_full", "full", "lora", None, "multi_task"),
        ("lora_rank1_full", "full", "lora", None, "adaptation"),
        ("lora_rank16_full", "full", "lora_big", None, "adaptation"),
        ("poly_inventory_8", "full", "poly", None, "multi_task"),
        ("poly_inventory_8", "full", "mhr", 64, "multi_task"),
        ("poly_inventory_8", "full", "random_mu", None, "multi_task"),
        ("adapter_soup_38", "full", "adapter_soup", None, "multi_task"),
        ("lora_rank1_full", "full", "adapter_soup", None, "adaptation"),
        ("lora_rank1_full", "full", "poly_mu", None, "adaptation"),
        ("lora_rank1_full", "full", "mhr_mu", 64, "adaptation"),
        ("lora_rank1_full", "full", "random_mu", None, "adaptation"),
        ("lora_rank1_full", "full", "full_ft_then_lora", None, "adaptation"),
        ("ia3", "full", "ia3", None, "multi_task"),
        ("ia3", "light", "tfew", None, "adaptation"),
        ("z_one_task_heads1", "full", "poly_z", None, "adaptation"),
        ("z_one_task_heads1", "full", "mhr_z", 1, "adaptation"),
        ("z_one_task_heads8", "full", "mhr_z", 8, "adaptation"),
        ("z_one_task_heads64", "full", "mhr_z", 64, "adaptation"),
        ("lora_rank1_light", "light", "lora", None, "multi_task"),
        ("poly_inventory_8_light", "light", "mhr", 8, "multi_task"),
        ("lora_rank16_light", "light", "lora_big", None, "multi_task"),
        ("adapter_soup_38_light", "light", "adapter_soup", None, "multi_task"),
    ],
)
def test_counts_are_the_papers(xl: Counted, name: str, layout: str, method: str, heads: int | None, field: str) -> None:
    assert getattr(xl[layout, method, heads], field) == EXACT[name]


def test_routing_and_what_poly_and_mhr_train_on_a_new_task(xl: Counted) -> None:
    assert xl["full", "mhr", 64].routing == 313 * EXACT["z_one_task_heads64"]
    assert xl["full", "mhr", 64].adaptation == EXACT["poly_inventory_8"] + EXACT["z_one_task_heads64"]
    assert xl["light", "mhr_z", 64].adaptation == 192 * 8 * 64
    assert xl["full", "full_ft", None].multi_task == 2_849_757_184  # with the output layer of LM-adapted checkpoints


def test_the_table_has_every_method_and_the_printed_counts(xl: Counted) -> None:
    table = counts_table("t5-xl", "full", [row for key, row in xl.items() if key[0] == "full"], Sizes())
    shown = {row[0]: row[1:] for row in table.rows}
    assert {label.split()[0] for label in shown} == set(METHODS)
    assert shown["mhr_z h64"] == ["17,694,720", "69,230,592", "221,184", "17M", "220K"]
    assert shown["adapter_soup"][-2:] == ["84M", "2.2M"]
    assert shown["mhr h8"][-2:] == ["-", "-"]  # the paper's has 64 heads
    assert shown["mhr_mu h8"] == ["17,694,720", "8,653,824", "2,211,840", "2.2M", "2.2M"]  # as its text says of averages
    assert shown["tfew"][-2:] == shown["ia3"][-2:] == ["540K", "540K"]


def test_the_block_of_superni_has_each_row_in_its_own_layout() -> None:
    *_, table = count("t5-xl", ["light"], Sizes(heads=(8,)))
    assert table.title == "Parameters on t5-xl: Table 6 of SuperNI, layout light"
    shown = {row[0]: row[1:] for row in table.rows}
    assert shown["lora_big attention"] == ["18,874,368", "-", "18,874,368", "18M", "18M"]
    assert shown["lora"] == ["933,888", "-", "933,888", "934K", "934K"]
    assert shown["mhr_z h64"] == ["7,471,104", f"{756 * 98_304:,}", "98,304", "7.5M", "147K"]
    assert list(shown) == ["lora", "lora_big attention", "poly_z", "poly", "mhr_z h64", "mhr h8"]
    assert "mhr_z's 147K fit the 288 layers q k v o (147,456)" in table.notes[-1]


def test_what_is_not_the_papers_has_no_block_of_it() -> None:
    assert [table.title for table in count("t5-xl", ["light"], Sizes(rank=2))] == ["Parameters on t5-xl, layout light"]
    assert len(count("t5-xl", ["full"], Sizes())) == 1


def test_the_command(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("count", "--backbone", "t5-small", "--layout", "light", "--format", "csv") == 0
    assert 'ia3,"34,816",-,"34,816"' in capfd.readouterr().out
    assert run("count", "--backbone", "t5-small", "--heads", 7) == 2
    assert "--heads: 7 heads do not divide layer encoder.block.0" in capfd.readouterr().err
    assert run("count", "--backbone", "t5-small", "--layout", "nothing") == 2
    assert "no linear layer's name matches 'nothing'" in capfd.readouterr().err
    assert run("count", "--backbone", "t5-nano") == 2
    assert (
        "--backbone (a size: t5-small, t5-base, t5-large, t5-xl, t5-xxl; or a config) 't5-nano': cannot be"
        in capfd.readouterr().err
    )


def test_other_backbones_have_their_own_names_and_none_of_the_papers_numbers(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    BartConfig(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32).save_pretrained(tmp_path)
    options = ("--layout", ".*[qv]_proj", "--heads", 4, "--format", "csv")
    assert run("count", "--backbone", tmp_path, *options) == 0
    lines = dict(line.split(",", 1) for line in capfd.readouterr().out.splitlines())
    assert lines["lora"] == "192,-,192,-,-"  # q and v of three attentions, 16 + 16 numbers each
    assert lines["ia3"] == "96,-,96,-,-"
