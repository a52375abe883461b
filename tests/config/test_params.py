"""params.yaml: what is accepted, and how what is not is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mhrctl.config.fields import Closed
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params
from mhrctl.errors import ParamsError

ROOT = Path(__file__).parents[2]


def edited(project: Path, old: str, new: str) -> Path:
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  skills: 2", "  skils: 2", r"params.yaml:12: pretrain.skils: unknown key 'skils'; did you mean 'skills'\? \(known:"),
        ("  skills: 2", "  skills: two", r"params.yaml:12: pretrain.skills: Input should be a valid integer \(got 'two'\)"),
        ("  skills: 2", "  skills: 0", r"params.yaml:12: pretrain.skills: Input should be greater than 0 \(got 0\)"),
        (
            "source: jsonl",
            "source: web",
            r"params.yaml:2: prepare.source: Input should be 'compositional', 'superni', 't0', 'jsonl' or 'hub'",
        ),
        (
            "  skills: 2",
            "  balance: tokens",
            r"params.yaml:12: pretrain.balance: balance tokens needs a window of two or more micro-batches",
        ),
        ("  path: tasks", "", r"params.yaml:1: prepare: source jsonl needs `path`"),
        ("  shots: 3", "", r"params.yaml:20: adapt.shots: is missing"),
        ("    lora:", "    lara:", r"params.yaml:39: grid.methods.lara: unknown method 'lara'; did you mean 'lora'\?"),
        ("mhr: {heads: [4]}", "mhr:", r"params.yaml:41: grid.methods.mhr.heads: mhr needs `heads`"),
        ("    lora:", "    lora: {heads: [2]}", r"params.yaml:39: grid.methods.lora.heads: lora has no `heads`"),
        ("mhr_z: {heads: [4]}", "mhr_z: {heads: [4], pretrain: {lr: 1}}", r"mhr_z shares the pre-training of mhr"),
        ("seeds: [0]", "seeds: [0, 0]", r"params.yaml:37: grid.seeds.1: 0 occurs twice"),
        ("seeds: [0]", "seeds: [0", r"params.yaml:3\d: not valid YAML"),
    ],
)
def test_mistakes_are_rejected_with_file_line_and_key(project: Path, old: str, new: str, message: str) -> None:
    path = edited(project, old, new)
    with pytest.raises(ParamsError, match=message):
        load_params(path)


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


def sections() -> list[tuple[str, str, Any]]:
    fields: list[tuple[str, str, Any]] = []

    def walk(name: str, model: type[BaseModel]) -> None:
        for key, field in model.model_fields.items():
            fields.append((name, key, field))
            if isinstance(field.annotation, type) and issubclass(field.annotation, Closed):
                walk(f"{name}.{key}", field.annotation)

    for name, section in Params.model_fields.items():
        if isinstance(section.annotation, type):
            walk(name, section.annotation)
    return fields


@pytest.mark.parametrize(("section", "key", "field"), sections(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_param_is_described_and_read(section: str, key: str, field: Any) -> None:
    assert field.description, f"{section}.{key} has no description"
    source = "\n".join(path.read_text() for path in (ROOT / "mhrctl").rglob("*.py"))
    assert f".{key}" in source, f"{section}.{key} is read nowhere"
