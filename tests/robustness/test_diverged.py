"""Trainings that diverge: refused with step and rate, without an output, and old outputs as they were."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.workshop import Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
INF = "1000000000.0"
"""The highest rate that params.yaml takes."""
FAST: tuple[tuple[str, ...], ...] = (
    *(("pretrain", "-m", method, f"pretrain.{key}") for method in ("lora", "poly", "mhr", "full_ft") for key in ("lr",)),
    ("pretrain", "-m", "lora", "pretrain.lr", "pretrain.optimizer=adafactor"),
    ("pretrain", "-m", "lora", "pretrain.lr", "pretrain.weight_decay=0"),
    ("pretrain", "-m", "lora", "pretrain.lr", "pretrain.precision=bf16"),
    ("pretrain", "-m", "lora", "pretrain.lr", "pretrain.loss=example_sum"),
    ("pretrain", "-m", "adapter_soup", "pretrain.lr"),
    ("pretrain", "-m", "ia3", "pretrain.lr"),
    ("adapt", "-m", "lora", "adapt.lr"),
    ("adapt", "-m", "mhr_mu", "adapt.lr"),
    ("adapt", "-m", "lora", "adapt.lr", "adapt.select=loss"),
    ("adapt", "-m", "lora", "adapt.lr", "adapt.optimizer=adafactor"),
)
"""(stage, method, the rate, further settings)"""
STEPS = 60


def judged(ended: Ended, *words: str) -> tuple[Kind, str]:
    """Say how a training ended that diverges: refused, with each of the words."""
    kind = ended.kind()
    if kind == "right":
        return "silent", "a training without a finite number was a success"
    if kind == "refused" and (missing := [word for word in words if not re.search(word, ended.err)]):
        return "unexpected", f"names no {missing}: {ended.errors}"
    return kind, ""


def is_finite(folder: Path) -> bool:
    """Whether all tensors below a folder are finite."""
    return all(
        bool(torch.isfinite(tensor).all()) for path in folder.rglob("*.safetensors") for tensor in load_file(path).values()
    )


@FORMS
def test_rates_that_are_too_high_are_refused_or_stay_finite(workshop: Workshop, counting: Counting, form: str) -> None:
    """Whatever the rate, there is either an output whose tensors and losses are finite, or one line with step and rate."""
    campaign = counting(f"diverged: rates ({form})")
    for stage, _, method, rate, *further in sampled([*FAST], form, 2):
        sets = [f"{rate}={INF}", f"{stage}.steps={STEPS}", f"{stage}.clip_norm=1000000000.0", f"{stage}.warmup=0.0", *further]
        folder = f"data/{stage}/{'mhr_mu-h4' if method == 'mhr_mu' else 'mhr-h4' if method == 'mhr' else method}-s0"
        before = workshop.names & {f"{folder}/card.json"}
        ended = workshop.run(stage, "-m", method, *(word for text in sets for word in ("--set", text)))
        kind, why = ended.kind(), ""
        if kind == "right" and not is_finite(workshop.root / folder):
            kind, why = "silent", "tensors that are not finite"
        elif kind == "refused":
            kind, why = judged(ended, r"step \d+", "rate")
            changed = workshop.changed(but=["data/scratch/"])
            if changed or (not before and (workshop.root / folder).exists()):
                kind, why = "lost", f"{changed[:3]}"
        campaign.count(" ".join((stage, method, *sets)), kind, ended, why)
        workshop.restore()
    campaign.require_clean()


NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}
TENSORS: tuple[tuple[str, str, str], ...] = (
    ("data/backbone/model.safetensors", "pretrain", "lora"),
    ("data/backbone/model.safetensors", "evaluate", "backbone"),
    ("data/pretrain/lora-s0/adapters.safetensors", "adapt", "lora"),
    ("data/pretrain/mhr-h4-s0/adapters.safetensors", "average", "mhr"),
    ("data/average/mhr-h4-s0/adapters.safetensors", "adapt", "mhr_mu"),
    ("data/adapt/lora-s0/adapters.safetensors", "evaluate", "lora"),
    ("data/adapt/lora-s0/adapters.safetensors", "export", "lora"),
)


@FORMS
def test_tensors_that_are_not_finite_are_refused_at_every_border(workshop: Workshop, counting: Counting, form: str) -> None:
    """One number of one tensor is not finite."""
    campaign = counting(f"diverged: tensors ({form})")
    cases = [(*case, number) for case in TENSORS for number in NUMBERS]
    for file, stage, method, number in sampled(cases, form, 3):
        path = workshop.root / file
        tensors = load_file(path)
        name = sorted(tensors)[len(tensors) // 2]
        tensors[name].view(-1)[0] = NUMBERS[number]
        save_file(tensors, path, {"format": "pt"})
        ended = workshop.run(stage, "-m", method, *([] if stage == "export" else ["--force"]))
        kind, why = judged(ended)
        changed = workshop.changed(but=[file])
        campaign.count(
            f"{file}: {name} {number}",
            "lost" if changed and kind == "refused" else kind,
            ended,
            why or (f"{changed[:3]}" if changed else ""),
        )
        workshop.restore()
    campaign.require_clean()


@FORMS
def test_a_local_backbone_that_is_not_finite_is_refused_before_training(
    workshop: Workshop, counting: Counting, form: str
) -> None:
    """A folder of one's own has a NaN or a cut or foreign weight in it."""
    campaign = counting(f"diverged: local backbones ({form})")
    local = workshop.root / "mine"
    local.mkdir()
    for path in (workshop.pristine / "data/backbone").iterdir():
        if path.name != "card.json":
            (local / path.name).write_bytes(path.read_bytes())
    params = workshop.root / "params.yaml"
    text = params.read_text()
    start, end = text.index("backbone:"), text.index("pretrain:")
    params.write_text(f"{text[:start]}backbone: {{source: local, name: mine}}\n{text[end:]}")
    good = load_file(local / "model.safetensors")
    for number, value in sampled([*NUMBERS.items()], form, 2):
        for name in sampled(sorted(good), form, 1):
            changed = {key: tensor.clone() for key, tensor in good.items()}
            changed[name].view(-1)[-1] = value
            save_file(changed, local / "model.safetensors", {"format": "pt"})
            ended = workshop.run("backbone", "--force")
            kind, why = judged(ended, re.escape(name))
            campaign.count(f"mine: {name} {number}", kind, ended, why)
            card = json.loads((workshop.root / "data/backbone/card.json").read_text())
            assert card["facts"]["parameters"] > 0
    campaign.require_clean()
