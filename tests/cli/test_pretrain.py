"""`mhrctl pretrain`: when it makes its output anew, what it prints, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from tests.cli.conftest import (
    LOG,
    Capture,
    MadeAnew,
    RefusesEdited,
    assert_of_the_same_run,
    assert_whole_again,
    complaint,
    editing,
)
from tests.conftest import Run

LORA = ("pretrain", "-m", "lora")


def test_a_result_of_edited_settings_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited(
        "pretrain", "--cell", "lora-s0", file="data/cells/lora-s0.json", old='"batch_size": 4', new='"batch_size": 3'
    )


def test_edits_beside_what_a_stage_reads_do_not_matter(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    params = copy / "params.yaml"

    def edit() -> None:
        text = params.read_text().replace("evaluate_every: 2", "evaluate_every: 1")
        params.write_text(text.replace("seeds: [0]", "seeds: [0, 4]"))
        (copy / "data/prepare/test_tasks.parquet").touch()
        (copy / "data/backbone/card.json").touch()  # the same bytes

    editing(monkeypatch, edit)
    assert run("pretrain", "--method", "lora", "--force", "-C", copy) == 0


def test_force_makes_it_anew(is_made_anew: MadeAnew) -> None:
    assert is_made_anew(*LORA, "--force")


@pytest.mark.parametrize("file", [LOG, "data/pretrain/lora-s0/validation.csv"])
def test_an_output_that_is_not_whole_is_made_anew(copy: Path, is_made_anew: MadeAnew, file: str) -> None:
    assert_whole_again(is_made_anew, copy / file, *LORA)


def test_the_log_beside_an_output_is_of_the_same_run(copy: Path, is_made_anew: MadeAnew) -> None:
    assert_of_the_same_run(is_made_anew, copy / LOG, *LORA)


def test_a_run_that_was_cut_short_leaves_all_as_it_was(
    copy: Path, run: Run, is_made_anew: MadeAnew, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / LOG).read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mhrctl.stages.pretrain.write_card", killed)
        assert run("pretrain", "-m", "lora", "--set", "pretrain.lr=0.5", "-C", copy) == 130
    assert (copy / LOG).read_bytes() == before  # folder and log are put in place together
    assert not is_made_anew(*LORA)
    assert not list((copy / "data").rglob("*.partial"))


def test_its_parameters_are_printed(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("pretrain", "-m", "mhr", "--force", "-C", copy) == 0
    counts = json.loads((copy / "data/pretrain/mhr-h4-s0/card.json").read_text())["facts"]["parameters"]
    assert counts["routing"] > 0
    log = [json.loads(line) for line in (copy / "data/pretrain/mhr-h4-s0/log.jsonl").read_text().splitlines()]
    with (copy / "data/pretrain/mhr-h4-s0/validation.csv").open() as stream:
        validation = fmean(float(row["loss"]) for row in csv.DictReader(stream))
    reached = f"loss {log[0]['loss']:.3g} -> {log[-1]['loss']:.3g}, validation {validation:.3g}"
    sizes = f"{counts['multi_task']:,} adapter and {counts['routing']:,} routing parameters"
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"pre-trained mhr-h4-s0 in [\d.]+ s: {re.escape(reached)}, {sizes}", last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "lora", "--set", "adapt.lr=1"], "--set adapt.lr=1: this command reads the section `pretrain` only"),
        (["-m", "lora", "--off", "everything"], "--off: unknown speed option 'everything' (known: forward,"),
        (["-m", "mhr", "--extra-steps", "3"], "--extra-steps: mhr is no single adapter; use lora, poly_mu, mhr_mu"),
        (["-m", "mhr", "--heads", "3"], "cell mhr-h3-s0: 3 heads do not divide layer encoder.block.0"),
        (["-m", "lora", "--variant", "light"], "--variant: unknown variant 'light'"),
        (["--cell", "lora-s0", "--set", "pretrain.lr=1"], "--cell takes all settings from the cell's file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    copy: Path, run: Run, capfd: Capture, options: list[str], message: str
) -> None:
    before = sorted((copy / "data/pretrain").iterdir())
    assert run("pretrain", *options, "-C", copy) == 2
    assert message in complaint(capfd)
    assert [path for path in sorted((copy / "data/pretrain").iterdir()) if not path.name.startswith(".")] == before
