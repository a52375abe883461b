"""`mhrctl average`: when it makes its output anew, what it prints, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mhrctl.config.cells import Cell
from tests.cli.conftest import Capture, MadeAnew, RefusesEdited, complaint
from tests.conftest import Run


def test_a_result_of_edited_inputs_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("average", "--cell", "mhr-h4-s0", file="data/pretrain/mhr-h4-s0/card.json", old='"stage"', new='"stage" ')


def test_force_makes_it_anew(is_made_anew: MadeAnew) -> None:
    assert is_made_anew("average", "-m", "mhr", "--force")


def test_an_average_is_of_a_pretraining_that_is_there(copy: Path, run: Run, capfd: Capture) -> None:
    shutil.rmtree(copy / "data/pretrain/mhr-h4-s0")
    assert run("average", "-m", "mhr", "-C", copy) == 2
    assert f"run `mhrctl pretrain {Cell(method='mhr', heads=4).name}`" in capfd.readouterr().err


def test_every_method_of_a_pretraining_shares_its_average(copy: Path, run: Run, capfd: Capture) -> None:
    shutil.rmtree(copy / "data/average")
    assert run("average", "-m", "mhr_mu", "-C", copy) == 0
    assert capfd.readouterr().err == f"wrote {copy / 'data/average/mhr-h4-s0'}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "lora"], "--method lora: pre-training has no skills to average; use one of poly, mhr, random_mu"),
        ([], "name the cell, such as mhr-h8-s0, or its --method"),
    ],
)
def test_what_has_no_skills_is_one_line_and_writes_nothing(
    copy: Path, run: Run, capfd: Capture, options: list[str], message: str
) -> None:
    shutil.rmtree(copy / "data/average")
    assert run("average", *options, "-C", copy) == 2
    assert message in complaint(capfd)
    assert not (copy / "data/average").exists()
