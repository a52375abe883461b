"""What holds, as the page shows it."""

from __future__ import annotations

from mhrctl.report.claims import Judgement
from mhrctl.report.page.claims import claims_shown
from tests.report.tables.test_claims import ALIGNED, EQUAL, GAIN


def test_claims_about_scores_have_one_scale_and_alignment_none() -> None:
    shown = claims_shown(Judgement([GAIN, ALIGNED, EQUAL], {}), margin=1, metric="ROUGE-L")
    assert shown
    assert len(shown.table.rows) == 3
    assert shown.forest
    assert {label: mark.kind for label, mark in shown.forest.marks.items()} == {
        "1a mhr-h8 > poly": "better",
        "4a mhr_mu-h8 = mhr-h8": "open",
    }
    assert shown.forest.end == "2.0"
    assert shown.forest.marks["1a mhr-h8 > poly"].says == "+1.23, +0.50 to +2.00, holds"
    assert shown.kinds["fails"] == "worse"


def test_where_nothing_can_be_judged_there_is_no_section() -> None:
    assert claims_shown(Judgement([], {}), margin=1, metric="score") is None
