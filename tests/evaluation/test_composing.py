"""LoraHub: a search for the weights of a pool's adapters finds better ones, the same again for a seed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.config.options import HubOptions
from mhrctl.evaluation import composing
from mhrctl.evaluation.composing import Search
from tests.conftest import Run

TARGET = np.array([0.4, -0.3, 0.9])


def searched(options: HubOptions, seed: str = "0") -> tuple[list[float], list[np.ndarray]]:
    search, asked = Search(len(TARGET), options, seed), []
    for _ in range(options.evaluations):
        candidate = search.ask()
        asked.append(candidate.value)
        search.tell(candidate, float(((candidate.value - TARGET) ** 2).sum()))
    return search.best(), asked


def test_a_search_begins_at_nothing_and_ends_near_the_least_loss() -> None:
    best, asked = searched(HubOptions(evaluations=60, penalty=0.0))
    assert not asked[0].any()
    assert np.abs(np.stack(asked)).max() <= 1.5
    assert ((best - TARGET) ** 2).sum() < 0.1 * (TARGET**2).sum()


def test_a_penalty_keeps_weights_small() -> None:
    free, _ = searched(HubOptions(evaluations=60, penalty=0.0))
    held, _ = searched(HubOptions(evaluations=60, penalty=10.0))
    assert np.abs(held).mean() < 0.5 * np.abs(free).mean()


def test_a_search_is_the_same_again() -> None:
    first, again = searched(HubOptions()), searched(HubOptions())
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])


def test_a_composed_lora_is_the_sums_by_the_weights_that_are_noted(copy_of_all: Path, run: Run) -> None:
    settings = ["--set", "adapt.options.evaluations=6", "--set", "adapt.soup_size=3", "--set", "adapt.soup_min_cosine=-1.0"]
    assert run("adapt", "-m", "lora_hub", "-C", copy_of_all, "--force", *settings) == 0
    folder = copy_of_all / "data/adapt/lora_hub-s0"
    with (folder / "soup.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    pretrained = copy_of_all / "data/pretrain/adapter_soup-s0"
    pool, composed = load_adapter(pretrained / "adapters.safetensors"), load_adapter(folder / "soup.safetensors")
    assert isinstance(pool, Inventory)
    names = json.loads((pretrained / "card.json").read_text())["facts"]["tasks"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for run_, task in enumerate(tasks):
        weights = torch.zeros(pool.runs)
        for row in rows:
            if row["task"] == task:
                weights[names.index(row["training_task"])] = float(row["weight"])
        for bank, mixed in zip(pool.skill_parameters(), composed.skill_parameters(), strict=True):
            torch.testing.assert_close(mixed[run_], torch.tensordot(weights, bank, 1), rtol=0, atol=2e-3)


def test_without_nevergrad_it_is_said(
    copy_of_all: Path, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "find_spec", lambda _: None)
    assert run("adapt", "-m", "lora_hub", "-C", copy_of_all, "--force") == 2
    assert "run `pip install 'mhrctl[lora_hub]'`" in capfd.readouterr().err
