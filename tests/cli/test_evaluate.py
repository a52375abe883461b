"""`mhrctl evaluate`: when it makes its output anew, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import SCORES, MadeAnew, RefusesEdited, assert_of_the_same_run, assert_whole_again

LORA = ("evaluate", "-m", "lora")


def test_a_result_of_edited_inputs_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("evaluate", "--cell", "lora-s0", file="data/adapt/lora-s0/validation.csv", old="swap", new="sweep")


@pytest.mark.parametrize("options", [["--zero-shot"], ["--force"]], ids=" ".join)
def test_other_settings_and_force_make_it_anew(is_made_anew: MadeAnew, options: list[str]) -> None:
    assert is_made_anew(*LORA, *options)


@pytest.mark.parametrize("file", [SCORES, "data/evaluate/lora-s0/predictions.parquet"])
def test_an_output_that_is_not_whole_is_made_anew(copy: Path, is_made_anew: MadeAnew, file: str) -> None:
    assert_whole_again(is_made_anew, copy / file, *LORA)


def test_the_scores_beside_an_output_are_of_the_same_run(copy: Path, is_made_anew: MadeAnew) -> None:
    assert_of_the_same_run(is_made_anew, copy / SCORES, *LORA)
