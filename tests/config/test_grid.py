"""The section `grid`: what is accepted, and how what is not is rejected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mhrctl.config.grid import MethodAxes
from mhrctl.config.resolve import load_params
from mhrctl.errors import ParamsError

ROOT = Path(__file__).parents[2]
LIGHT = "  seeds: [0]\n  variants: {light: {pretrain: {targets: light}}, block: {pretrain: {granularity: block}}}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    lora:", "    lora: {variants: [light]}", r"methods.lora.variants: unknown variant 'light' \(known: plain\)"),
        ("  seeds: [0]", "  seeds: [0]\n  variants: {h8: {pretrain: {rank: 2}}}", r"variant 'h8': a name is lower-case"),
        (
            "  seeds: [0]",
            "  seeds: [0]\n  variants: {v: {}}",
            r"v: sets nothing; give it settings of `pretrain`, `adapt` or both",
        ),
        ("    poly:", "    poly: {extra_steps: [5]}", r"poly has no `extra_steps`"),
        ("  skills: 2", "  skills: 2\n  straight_through: true", r"straight_through rounds sampled gates"),
        ("  skills: 2", "  skills: 2\n  routing_blocks: 2", r"routing_blocks 2 needs granularity block"),
        ("  skills: 2", "  skills: 2\n  uniform_steps: 9", r"uniform_steps 9 is more than steps 4"),
        ("mhr: {heads: [4]}", "mhr: {heads: {}}", r":\d+: grid.methods.mhr.heads: mhr needs `heads`"),
        ("mhr: {heads: [4]}", "mhr: {heads: {plain: 4}}", r"mhr.heads.plain: Input should be a valid list \(got 4\)"),
        ("mhr: {heads: [4]}", "mhr: {heads: {plain: [0]}}", r"mhr.heads.plain.0: Input should be greater than 0 \(got 0\)"),
        ("mhr: {heads: [4]}", "mhr: {heads: {plain: [4, 4]}}", r"mhr.heads.plain.1: 4 occurs twice"),
        ("    lora:", "    lora: {heads: {plain: [4]}}", r"grid.methods.lora.heads: lora has no `heads`"),
        ("    poly:", "    poly: {extra_steps: {plain: [5]}}", r"poly has no `extra_steps`"),
        ("recipe: null", "recipe: t5", r"params.yaml:\d+: recipe: Input should be 't0', 'superni' or 'superni_attention'"),
    ],
)
def test_mistakes_of_the_grid_are_rejected(project: Path, old: str, new: str, message: str) -> None:
    text = (project / "params.yaml").read_text()
    assert old in text
    (project / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=message):
        load_params(project / "params.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "mhr: {heads: [4]}",
            "mhr: {variants: [plain, light], heads: {plain: [4]}}",
            "grid.methods.mhr.heads.light: mhr needs `heads` of its variant 'light' too",
        ),
        (
            "mhr: {heads: [4]}",
            "mhr: {variants: [plain, light], heads: {plain: [4], light: []}}",
            "grid.methods.mhr.heads.light: mhr needs `heads` of its variant 'light' too",
        ),
        (
            "mhr: {heads: [4]}",
            "mhr: {variants: [plain, light], heads: {plain: [4], light: [4], lihgt: [4]}}",
            "grid.methods.mhr.heads.lihgt: unknown variant of mhr 'lihgt'; did you mean 'light'?",
        ),
        (
            "    lora:",
            "    lora: {variants: [plain, light], extra_steps: {block: [5]}}",
            "grid.methods.lora.extra_steps.block: unknown variant of lora 'block' (known: plain, light)",
        ),
    ],
)
def test_values_by_variant_are_of_the_methods_variants(project: Path, old: str, new: str, message: str) -> None:
    params = project / "params.yaml"
    text = params.read_text().replace("  seeds: [0]", LIGHT)
    assert old in text
    params.write_text(text.replace(old, new, 1))
    line = 1 + params.read_text().splitlines().index(new if new.startswith(" ") else f"    {new}")
    with pytest.raises(ParamsError, match=re.escape(f"{params}:{line}: {message}")):
        load_params(params)


def test_set_goes_into_values_by_variant(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("mhr: {heads: [4]}", "mhr: {heads: {plain: [4]}}"))
    axes = load_params(params, ["grid.methods.mhr.heads.plain=[2, 8]"]).params.grid.methods["mhr"]
    assert axes.heads_of("plain") == [2, 8]
    with pytest.raises(ParamsError, match=r"^--set grid.methods.mhr.heads.light: unknown variant of mhr 'light'"):
        load_params(params, ["grid.methods.mhr.heads.light=[2]"])


def test_an_axis_has_a_list_for_every_variant_or_one_for_each() -> None:
    axes = MethodAxes(heads=[8, 4], variants=["plain", "light"], extra_steps={"light": [5]})
    assert axes.points() == [(8, "plain"), (8, "light"), (4, "plain"), (4, "light")]
    assert (axes.extra_steps_of("plain"), axes.extra_steps_of("light")) == ([], [5])
    assert axes.count() == 4 + 2
    axes = MethodAxes(heads={"light": [4], "plain": [8, 4]}, variants=["plain", "light"])
    assert axes.points() == [(8, "plain"), (4, "plain"), (4, "light")]
    assert axes.count() == 3
