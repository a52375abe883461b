"""docs/study.md says what the committed scores say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pipelines.tiny import script

ROOT = Path(__file__).parents[2]
STUDIES = ("pipelines/claims-compositional", "pipelines/claims-superni")
RATES, GEMMA_RATES = ROOT / "pipelines/claims-rates", ROOT / "pipelines/claims-superni-rates"
PAGE = (ROOT / "docs/study.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("study", STUDIES)
def test_the_claims_are_those_that_the_report_prints(
    study: str, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("report", "--claims", "-C", ROOT / study) == 0
    printed = "\n".join(line.rstrip() for line in capfd.readouterr().out.rstrip().splitlines())
    blocks = re.findall(r"^```console\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    (shown,) = [block for block in blocks if block.startswith(f"$ cd {study}\n")]
    assert shown.partition("\n$ mhrctl report --claims\n")[2] == printed


@pytest.mark.parametrize("study", STUDIES)
def test_the_scores_are_those_that_the_report_has_written(study: str) -> None:
    lines = (ROOT / study / "data/report/results.md").read_text(encoding="utf-8").splitlines()
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    shown = [header.index(column) for column in ("adapted ROUGE-L", "zero-shot ROUGE-L", "trained per task")]
    assert rows[0][0] == "backbone"
    missing = [row for row in rows[1:] if f"| `{row[0]}` | {' | '.join(row[column] for column in shown)} |" not in PAGE]
    assert missing == []


def said(called: str) -> str:
    """A method, and that it was not pre-trained, as the page has it."""
    return f"`{called.replace(' ', '` ')}" if " " in called else f"`{called}`"


def test_the_rates_are_those_that_validation_chooses() -> None:
    choose = script(RATES / "choose.py")
    of_method = choose.tried(RATES)
    rows = [
        f"| {said(called)} |"
        f" {'-' if best.pretrain is None else format(best.pretrain, 'g')} | {best.adapt} | {best.validation:.1f} |"
        f" {min(one.validation for one in of_method[called]):.1f} |"
        for called, best in choose.chosen(of_method).items()
    ]
    assert [row for row in rows if row not in PAGE] == []


def test_the_rates_on_gemma_are_those_of_the_least_loss() -> None:
    choose = script(GEMMA_RATES / "choose.py")
    trials = choose.read_tried(choose.TRIED)
    rows = []
    for stage in ("pretrain", "adapt"):
        of_stage = [one for one in trials if one.stage == stage]
        for called, best in choose.best(of_stage).items():
            worst = max(one.loss for one in of_stage if one.called == called)
            rate = f"{best.pretrain:g}" if stage == "pretrain" else best.adapt
            rows.append(f"| {said(called)} | {rate} | {best.loss:.3f} | {worst:.3f} |")
    assert [row for row in rows if row not in PAGE] == []
