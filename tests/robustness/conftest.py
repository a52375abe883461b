"""What all campaigns share: a server of forks, a walked project of two seeds, and a counter that is printed at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import write_tasks
from tests.robustness.outcomes import Campaign
from tests.robustness.workshop import Runner, Workshop

PARAMS = """\
recipe: null
prepare: {source: jsonl, path: tasks, tokenizer: word, examples: 4, max_input_tokens: 32, max_target_tokens: 8}
backbone:
  source: scratch
  scratch: {d_model: 16, d_ff: 32, d_kv: 4, attention_heads: 4, layers: 1, steps: 30, batch_size: 8, lr: 0.02}
pretrain: {skills: 2, steps: 4, batch_size: 4, lr: 0.05, log_every: 2}
index: {encoder: tfidf, examples: 9}
adapt: {shots: 3, validation: 3, steps: 4, batch_size: 2, lr: 0.05, evaluate_every: 2, max_new_tokens: 4}
evaluate: {max_new_tokens: 4}
report: {tables: [1, 2]}
grid:
  seeds: [0, 1]
  methods:
    lora:
    poly:
    mhr: {heads: [4]}
    mhr_mu: {heads: [4]}
    adapter_soup:
"""
STAGES = [
    ("grid", "sync"),
    ("prepare",),
    ("backbone",),
    ("index",),
    *(("pretrain", "-m", method, "--seed", seed) for method in ("lora", "mhr", "adapter_soup") for seed in "01"),
    ("pretrain", "-m", "poly"),
    *(("average", "-m", "mhr", "--seed", seed) for seed in "01"),
    *((stage, "-m", "lora", "--seed", seed) for stage in ("adapt", "evaluate") for seed in "01"),
    *((stage, "-m", method) for method in ("mhr_mu", "adapter_soup") for stage in ("adapt", "evaluate")),
    ("evaluate", "-m", "backbone"),
    ("report",),
    ("inspect", "-m", "poly"),
    ("align", "-m", "lora", "--tasks", "2"),
]


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """A server of forks."""
    opened = Runner()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def pristine(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run, never to be changed."""
    folder = tmp_path_factory.mktemp("pristine") / "project"
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    write_tasks(folder / "tasks")
    choose(folder / "tasks/test/twice.jsonl")
    for step in STAGES:
        ended = runner.run(*step, "-C", folder)
        assert ended.code == 0, (step, ended.err)
    return folder


def choose(path: Path) -> None:
    """Give the examples of a task answer choices."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"choices": ["ant", "bee", "cat", "dog", "elk", "fox"]}) + "\n" for row in rows))


@pytest.fixture(scope="session")
def only_workshop(runner: Runner, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The copy of the walked project that tests damage one after the other."""
    return Workshop(runner, pristine, tmp_path_factory.mktemp("workshop") / "project")


@pytest.fixture
def workshop(only_workshop: Workshop) -> Iterator[Workshop]:
    """A copy of the walked project, to be damaged."""
    yield only_workshop
    only_workshop.restore()


Counting = Callable[[str], Campaign]


@pytest.fixture
def counting(record_property: Callable[[str, object], None]) -> Iterator[Counting]:
    """Makes a campaign whose counts are printed at the end of the run."""
    campaigns: list[Campaign] = []

    def make(name: str) -> Campaign:
        campaigns.append(Campaign(name))
        return campaigns[-1]

    yield make
    for campaign in campaigns:
        record_property("campaign", {"name": campaign.name, **campaign.counts, "failures": campaign.failures})
