"""Exact counts on T5-XL, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BartConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen3Config,
)

from mhrctl.config.methods import METHODS
from mhrctl.models.attach import find_layers, linear_shapes
from mhrctl.models.backbones import sized_model
from mhrctl.models.layouts import unreachable_experts
from mhrctl.report.printed import printed
from mhrctl.tools.count import Counts, Sizes, count, count_methods, counts_table
from tests.conftest import Run
from tests.models.families import DECODERS, ENCODER_DECODERS, UNPACKED, decoder, encoder_decoder

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
    assert {label.partition("-")[0] for label in shown} == set(METHODS)
    assert shown["mhr_z-h64"] == ["17,694,720", "69,230,592", "221,184", "17M", "220K"]
    assert shown["adapter_soup"][-2:] == ["84M", "2.2M"]
    assert shown["mhr-h8"][-2:] == ["-", "-"]  # the paper's has 64 heads
    assert shown["mhr_mu-h8"] == ["17,694,720", "8,653,824", "2,211,840", "2.2M", "2.2M"]  # as its text says of averages
    assert shown["tfew"][-2:] == shown["ia3"][-2:] == ["540K", "540K"]


def test_the_block_of_superni_has_each_row_in_its_own_layout() -> None:
    *_, table = count("t5-xl", ["light"], Sizes(heads=(8,)))
    assert table.title == "Parameters on t5-xl: Table 6 of SuperNI, layout light"
    shown = {row[0]: row[1:] for row in table.rows}
    assert shown["lora_big-attention"] == ["18,874,368", "-", "18,874,368", "18M", "18M"]
    assert shown["lora"] == ["933,888", "-", "933,888", "934K", "934K"]
    assert shown["mhr_z-h64"] == ["7,471,104", f"{756 * 98_304:,}", "98,304", "7.5M", "147K"]
    assert list(shown) == ["lora", "lora_big-attention", "poly_z", "poly", "mhr_z-h64", "mhr-h8"]
    assert "mhr_z's 147K fit the 288 layers q k v o (147,456)" in table.notes[-1]


def test_what_is_not_the_papers_has_no_block_of_it() -> None:
    assert [table.title for table in count("t5-xl", ["light"], Sizes(rank=2))] == ["Parameters on t5-xl, layout light"]
    assert len(count("t5-xl", ["full"], Sizes())) == 1


def test_the_command(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("count", "--backbone", "t5-small", "--layout", "light", "--format", "csv") == 0
    assert 'ia3,"34,816",,"34,816"' in capfd.readouterr().out
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
    assert lines["lora"] == "192,,192,,"  # q and v of three attentions, 16 + 16 numbers each
    assert lines["ia3"] == "160,,160,,"  # in the light layout, its own: k and v of three attentions, 16 each, and two fc1 of 32


BESIDE: dict[str, Any] = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("config", "weights", "light", "last"),
    [
        (  # of the sizes of Llama 3.2 1B, whose model card says 1.23 billion
            LlamaConfig(
                hidden_size=2048,
                intermediate_size=8192,
                num_hidden_layers=16,
                num_attention_heads=32,
                num_key_value_heads=8,
                vocab_size=128256,
                tie_word_embeddings=True,
            ),
            1_235_814_400,
            16 * (2 * (2048 + 512) + (2048 + 8192)),
            "Layers: 16 k_proj 2048 x 512, 16 v_proj 2048 x 512, 16 up_proj 2048 x 8192.",
        ),
        (  # Gemma 3 270M
            Gemma3TextConfig(
                hidden_size=640,
                intermediate_size=2048,
                num_hidden_layers=18,
                num_attention_heads=4,
                num_key_value_heads=1,
                head_dim=256,
                vocab_size=262144,
            ),
            268_098_176,
            18 * (2 * (640 + 256) + (640 + 2048)),
            "Layers: 18 k_proj 640 x 256, 18 v_proj 640 x 256, 18 up_proj 640 x 2048.",
        ),
        (  # Qwen 3 0.6B
            Qwen3Config(
                hidden_size=1024,
                intermediate_size=3072,
                num_hidden_layers=28,
                num_attention_heads=16,
                num_key_value_heads=8,
                head_dim=128,
                vocab_size=151936,
                tie_word_embeddings=True,
            ),
            596_049_920,
            28 * (2 * (1024 + 1024) + (1024 + 3072)),
            "Layers: 28 k_proj 1024 x 1024, 28 v_proj 1024 x 1024, 28 up_proj 1024 x 3072.",
        ),
    ],
    ids=["llama", "gemma", "qwen"],
)
def test_decoder_only_backbones_are_counted_by_their_config(
    tmp_path: Path, config: PretrainedConfig, weights: int, light: int, last: str
) -> None:
    config.save_pretrained(tmp_path)
    full, of_light = count(str(tmp_path), [], Sizes(heads=(8,)))
    shown = {row[0]: row[1:] for row in full.rows}
    assert shown["full_ft"] == [f"{weights:,}", "-", f"{weights:,}", "-", "-"]
    assert [part.split()[1] for part in full.notes[-1].removeprefix("Layers: ").split(",")] == [
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    ]
    assert {row[0]: row[1] for row in of_light.rows}["lora"] == f"{light:,}"
    assert of_light.notes[-1] == last


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (
            GPT2Config(n_embd=16, n_layer=2, n_head=4, **BESIDE),
            "Layers: 2 c_attn 16 x 48, 2 c_proj 16 x 16, 2 c_fc 16 x 64, 2 c_proj 64 x 16.",
        ),
        (
            Phi3Config(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                **BESIDE,
            ),
            "Layers: 2 o_proj 16 x 16, 2 qkv_proj 16 x 32, 2 gate_up_proj 16 x 64, 2 down_proj 32 x 16.",
        ),
    ],
    ids=["gpt2", "phi3"],
)
def test_a_backbone_without_a_light_layout_is_counted_in_the_full_one(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], config: PretrainedConfig, layers: str
) -> None:
    config.save_pretrained(tmp_path)
    (table,) = count(str(tmp_path), [], Sizes(heads=(4,)))
    assert table.title.endswith("layout full")
    assert table.notes[-1] == layers
    assert run("count", "--backbone", tmp_path, "--layout", "light", "--heads", 4) == 2
    error = capfd.readouterr().err
    assert "layout light: this model does not have keys, values and a widening layer of their own" in error
    assert error.count("\n") == 1


def test_heads_must_divide_the_narrow_keys_and_values(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=1, **BESIDE
    ).save_pretrained(tmp_path)
    assert run("count", "--backbone", tmp_path, "--heads", 8) == 0
    capfd.readouterr()
    assert run("count", "--backbone", tmp_path, "--heads", 16) == 2  # which divide the width 64 of all others
    error = capfd.readouterr().err
    assert "--heads: 16 heads do not divide layer model.layers.0.self_attn.k_proj of shape 64 x 8" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", [*DECODERS, *UNPACKED, *ENCODER_DECODERS])
def test_every_family_is_counted_by_its_config_alone(kind: str, tmp_path: Path) -> None:
    model = encoder_decoder(kind) if kind in ENCODER_DECODERS else decoder(kind)
    model.config.save_pretrained(tmp_path)
    tables = count(str(tmp_path), [], Sizes(heads=(4,)))
    rows = {row[0]: row[1] for row in tables[0].rows}
    assert rows["full_ft"] == f"{model.num_parameters():,}"
    layouts = [table.title.rpartition(" ")[2] for table in tables]
    assert layouts == ["attention"] if unreachable_experts(model.config, linear_shapes(model)) else layouts[0] == "full"
    shapes = find_layers(linear_shapes(model), layouts[0])
    assert rows["lora"] == f"{sum(map(sum, shapes.values())):,}"


def test_a_layout_that_passes_over_experts_is_not_counted(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    decoder("mixtral").config.save_pretrained(tmp_path)
    assert run("count", "--backbone", tmp_path, "--layout", "full") == 2
    error = capfd.readouterr().err
    assert "layout full: the 3 experts of a layer are no linear layers, so they would be left out; set" in error
    assert error.count("\n") == 1
