"""docs/study.md says what the committed scores say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pipelines.tiny import script

ROOT = Path(__file__).parents[2]
STUDY, RATES = ROOT / "pipelines/claims-compositional", ROOT / "pipelines/claims-rates"
PAGE = (ROOT / "docs/study.md").read_text(encoding="utf-8")


def test_the_claims_are_those_that_the_report_prints(
    run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("report", "--claims", "-C", STUDY) == 0
    printed = "\n".join(line.rstrip() for line in capfd.readouterr().out.rstrip().splitlines())
    (shown,) = re.findall(r"^\$ mhrctl report --claims\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown == printed


def test_the_rates_are_those_that_validation_chooses() -> None:
    choose = script(RATES / "choose.py")
    of_method = choose.tried(RATES)
    rows = [
        f"| `{called.replace(' ', '` ', 1) if ' ' in called else called + '`'} |"
        f" {'-' if best.pretrain is None else format(best.pretrain, 'g')} | {best.adapt} | {best.validation:.1f} |"
        f" {min(one.validation for one in of_method[called]):.1f} |"
        for called, best in choose.chosen(of_method).items()
    ]
    assert [row for row in rows if row not in PAGE] == []
