"""Differences on one scale."""

from __future__ import annotations

from mhrctl.report.bootstrap import Interval
from mhrctl.report.differences import Difference
from mhrctl.report.page.forest import EDGE, WIDTH, forest


def test_marks_are_on_one_scale_about_zero() -> None:
    better = Difference(5, 3, Interval(2.0, 1.0, 4.0, 0.0))
    few = Difference(2, 3, Interval(-4.0, -9.0, 9.0, 0.5))
    drawn = forest({"poly": better, "ia3": few, "apart": None})
    assert drawn is not None
    assert (drawn.end, float(drawn.zero)) == ("4.0", WIDTH / 2)
    assert set(drawn.marks) == {"poly", "ia3"}
    mark = drawn.marks["poly"]
    half = WIDTH / 2 - EDGE
    assert [float(each) for each in (mark.low, mark.place, mark.high)] == [
        WIDTH / 2 + half / 4,
        WIDTH / 2 + half / 2,
        WIDTH - EDGE,
    ]
    assert (mark.kind, mark.says) == ("better", "+2.00, +1.00 to +4.00")
    mark = drawn.marks["ia3"]
    assert float(mark.low) == float(mark.place) == float(mark.high) == EDGE
    assert (mark.kind, mark.says) == ("few", "-4.00, no interval")


def test_nothing_to_compare_and_no_difference_at_all_have_no_scale() -> None:
    assert forest({}) is None
    assert forest({"poly": None}) is None
    assert forest({"poly": Difference(1, 1, Interval(0.0, 0.0, 0.0, 1.0))}) is None
