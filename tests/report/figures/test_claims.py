"""The claims as a forest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mhrctl.report.claims import CLAIMS, Judgement, judge
from mhrctl.report.figures.claims import LOOKS, plan_claims
from mhrctl.report.results import NO_SCORES, read_results
from mhrctl.report.tables.claims import title_of
from tests.report.figures.made import points, texts
from tests.report.made import made_cell, write_cells

SHIFTS = {"lora": 0.0, "poly": 0.05, "mhr": 6.0, "lora_big": 9.0}
"""{method: what it is above LoRA}."""


@pytest.fixture
def judgement(tmp_path: Path) -> Judgement:
    drawn = np.random.default_rng(0)
    bases = {(task, seed): float(drawn.normal(60, 5)) for task in "abcdefgh" for seed in range(4)}
    cells = {}
    for method, shift in SHIFTS.items():
        for seed in range(4):
            of_tasks = {task: bases[task, seed] + shift + float(drawn.normal(0, 0.3)) for task in "abcdefgh"}
            heads = 8 if method == "mhr" else 1
            cells[f"{method}{'-h8' * (heads > 1)}-s{seed}"] = made_cell(method, heads, seed, of_tasks)
    return judge(read_results(write_cells(tmp_path, cells)), [], margin=1.0, claims=CLAIMS)


def test_a_row_for_each_claim_with_its_interval_and_its_verdict(judgement: Judgement) -> None:
    findings = {each.claim.number: each.finding for each in judgement.judged}
    assert findings == {"1a": "holds", "1b": "not shown", "1c": "holds", "3a": "fails"}
    drawing = plan_claims(judgement, margin=1.0, metric="ROUGE-L").drawing()
    (axes,) = drawing.figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [title_of(each) for each in judgement.judged]
    markers = {each: (marker, inside) for each, (_, marker, inside) in LOOKS.items()}
    marks = [line for line in axes.lines if line.get_marker() in {"o", "X"}]
    for place, (mark, each) in enumerate(zip(marks, judgement.judged, strict=True)):
        assert points(mark) == [(each.interval.mean, place)]
        assert (mark.get_marker(), mark.get_markerfacecolor()) == markers[each.finding]
    ends = [np.asarray(path.vertices)[:, 0] for bars in axes.collections for path in bars.get_paths()]
    for end, each in zip(ends, judgement.judged, strict=True):
        assert sorted(end) == pytest.approx([each.interval.low, each.interval.high])
    words = texts(drawing)
    assert all(finding in words for finding in ("holds", "fails", "not shown"))
    assert "corrected for 4 claims" in words


def test_no_two_verdicts_look_alike_without_colours() -> None:
    assert len({(marker, inside == colour) for colour, marker, inside in LOOKS.values()}) == len(LOOKS)


def test_without_claims_it_says_so(tmp_path: Path) -> None:
    nothing = judge(read_results(tmp_path), [], margin=1.0)
    assert plan_claims(nothing, margin=1.0, metric="ROUGE-L").all_missing == (NO_SCORES,)
