"""`mhrctl adapt`: when it makes its output anew, what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mhrctl.artifacts.facts import AdaptFacts, Parameters
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.cli.adapt import _undecided
from tests.cli.conftest import Capture, MadeAnew, RefusesEdited, assert_whole_again, complaint
from tests.conftest import Run

LORA = ("adapt", "-m", "lora")
KEPT = "so that the first was kept: a, b, c, d, e"


def test_a_result_of_edited_inputs_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("adapt", "--cell", "lora-s0", file="data/pretrain/lora-s0/card.json", old='"stage"', new='"stage" ')


def test_other_settings_make_it_anew(is_made_anew: MadeAnew) -> None:
    assert is_made_anew(*LORA, "--set", "adapt.lr=0.5")


@pytest.mark.parametrize("options", [["--off", "all"], ["--together", "1"], ["--checkpointing"], ["--device", "cpu"]])
def test_how_it_is_computed_does_not(is_made_anew: MadeAnew, options: list[str]) -> None:
    assert not is_made_anew(*LORA, *options)


def test_an_output_that_is_not_whole_is_made_anew(copy: Path, is_made_anew: MadeAnew) -> None:
    assert_whole_again(is_made_anew, copy / "data/adapt/lora-s0/adapters.safetensors", *LORA)


def test_other_versions_of_stage_and_libraries_make_it_anew(
    copy: Path, run: Run, capfd: Capture, is_made_anew: MadeAnew, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = copy / "data/adapt/lora-s0/card.json"
    content = opened(json.loads(card.read_text()))
    sizes = {name: listed["bytes"] for name, listed in content["files"].items()}
    for changed in (
        sealed(content | {"libraries": content["libraries"] | {"torch": "1.0"}}),
        content | {"files": sizes},  # before there were hashes
    ):
        card.write_text(json.dumps(changed))
        assert is_made_anew(*LORA)
        assert opened(json.loads(card.read_text())) == content
    monkeypatch.setattr("mhrctl.artifacts.cards.STAGE_VERSIONS", STAGE_VERSIONS | {"adapt": 7})
    assert is_made_anew(*LORA)
    monkeypatch.setattr("mhrctl.artifacts.cards.STAGE_VERSIONS", STAGE_VERSIONS | {"adapt": 7, "pretrain": 8})
    assert run(*LORA, "-C", copy) == 2
    assert f"lora-s0: made by version {STAGE_VERSIONS['pretrain']} of pretrain" in capfd.readouterr().err


def test_tasks_and_parameters_are_printed(copy: Path, run: Run, capfd: Capture) -> None:
    shutil.rmtree(copy / "data/adapt/poly-s0")
    assert run("adapt", "-m", "poly", "-C", copy) == 0
    facts = json.loads((copy / "data/adapt/poly-s0/card.json").read_text())["facts"]
    mean = sum(facts["validation"].values()) / 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"adapted poly-s0 to 2 tasks in [\d.]+ s: validation ROUGE-L {mean:.1f} \(best steps? \d( to \d)?\),"
        rf" {facts['parameters']:,} parameters a task",
        last.split(";")[0],
    )
    assert (";" in last) == bool(facts["undecided"])


@pytest.mark.parametrize(
    ("undecided", "said"),
    [
        ([], ""),
        (["a"], "; no validation score ever differed in 1 of 8 tasks, so that the first was kept: a"),
        (
            ["b"],
            "; no validation score ever differed in 1 of 8 tasks, and was 0 at every step in 1, so that the first was kept: b",
        ),
        (
            list("abcdefg"),
            f"; no validation score ever differed in 7 of 8 tasks, and was 0 at every step in 6, {KEPT} and 2 more",
        ),
    ],
    ids=["none", "one", "one of 0", "many"],
)
def test_a_tie_is_told(undecided: list[str], said: str) -> None:
    facts = AdaptFacts(
        suite="made",
        tasks=list("abcdefgh"),
        shots={},
        validation=dict.fromkeys("bcdefgh", 0.0) | {"a": 50.0},
        undecided=undecided,
        backbone="none",
        parameters=Parameters(adaptation=1),
    )
    assert _undecided(facts) == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "lora", "--seed", 9], "lora-s9: no finished pretrain output; run `mhrctl pretrain lora-s9`"),
        (["-m", "lora", "--set", "pretrain.lr=1"], "this command reads the section `adapt` only"),
        (["-m", "lora", "--recipe", "none"], "unknown recipe 'none' (known: t0, superni, superni_attention)"),
        (["-m", "mhr_mu", "--seed", 9], "run `mhrctl pretrain mhr-h4-s9`, `mhrctl average mhr-h4-s9`"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    copy: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    before = sorted((copy / "data/adapt").iterdir())
    assert run("adapt", *options, "-C", copy) == 2
    assert message in complaint(capfd)
    assert sorted((copy / "data/adapt").iterdir()) == before
