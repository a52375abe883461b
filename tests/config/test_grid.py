"""The section `grid`: what is accepted, and how what is not is rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.resolve import load_params
from mhrctl.errors import ParamsError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    lora:", "    lora: {variants: [light]}", r"methods.lora.variants: unknown variant 'light' \(known: plain\)"),
        ("  seeds: [0]", "  seeds: [0]\n  variants: {h8: {pretrain: {rank: 2}}}", r"variant 'h8': a name is lower-case"),
        ("  seeds: [0]", "  seeds: [0]\n  variants: {v: {adapt: {lr: 1.0}}}", r"grid.variants.v.pretrain: is missing"),
        ("    poly:", "    poly: {extra_steps: [5]}", r"poly has no `extra_steps`"),
        ("  skills: 2", "  skills: 2\n  straight_through: true", r"straight_through rounds sampled gates"),
        ("  skills: 2", "  skills: 2\n  routing_blocks: 2", r"routing_blocks 2 needs granularity block"),
        ("  skills: 2", "  skills: 2\n  uniform_steps: 9", r"uniform_steps 9 is more than steps 4"),
        ("recipe: null", "recipe: t5", r"params.yaml:\d+: recipe: Input should be 't0', 'superni' or 'superni_attention'"),
    ],
)
def test_mistakes_of_the_grid_are_rejected(project: Path, old: str, new: str, message: str) -> None:
    text = (project / "params.yaml").read_text()
    assert old in text
    (project / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=message):
        load_params(project / "params.yaml")
