"""Names that stand apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from mhrctl.report.figures.apart import GAP, Named, heights, is_moved, make_room, name_before, spread
from tests.report.figures.made import blank


@pytest.fixture
def axes() -> Axes:
    axes = blank()
    axes.set_xscale("log")
    axes.set_xlim(1e6, 1e8)
    axes.set_ylim(60, 70)
    return axes


def test_what_is_apart_stays_where_it_is() -> None:
    assert spread([0.9, 0.1, 0.5]) == [0.9, 0.1, 0.5]
    assert spread([]) == []


@pytest.mark.parametrize(
    "wanted",
    [[0.5, 0.5, 0.5], [0.3, 0.31, 0.9, 0.32], [0.0, 0.0, 0.0, 0.04], [1.0, 0.99, 1.0], [0.5, 0.46, 0.42, 0.38, 0.2]],
    ids=["equal", "some", "at the bottom", "at the top", "a row"],
)
def test_spread_leaves_a_gap_and_the_order(wanted: list[float]) -> None:
    moved = spread(wanted)
    assert all(upper - lower >= GAP - 1e-9 for lower, upper in pairwise(sorted(moved)))
    assert min(moved) >= GAP / 2 - 1e-9
    assert max(moved) <= 1 - GAP / 2 + 1e-9
    assert all(moved[one] < moved[two] for one, x in enumerate(wanted) for two, y in enumerate(wanted) if x < y)


def test_spread_moves_about_the_middle() -> None:
    assert spread([0.5, 0.5, 0.8]) == pytest.approx([0.5 - GAP / 2, 0.5 + GAP / 2, 0.8])


def test_heights_are_in_the_numbers_of_the_axes(axes: Axes) -> None:
    assert heights(axes, [65, 65]) == pytest.approx([65 - 5 * GAP, 65 + 5 * GAP])
    assert is_moved(axes, 65, 65.3)
    assert not is_moved(axes, 65, 65.1)


def test_names_of_near_points_stand_in_a_column_with_a_line_to_those_that_moved(axes: Axes) -> None:
    name_before(axes, [Named("h1", 2e6, 62), Named("h8", 2.01e6, 65), Named("h64", 2.02e6, 65.01)])
    by_name = {text.get_text(): text for text in axes.texts if isinstance(text, Annotation)}
    assert {text.xyann[0] for text in by_name.values()} == {2e6}
    assert by_name["h64"].xyann[1] - by_name["h8"].xyann[1] == pytest.approx(10 * GAP)
    assert by_name["h1"].xyann[1] == 62
    assert [by_name[name].arrow_patch is not None for name in ("h1", "h8", "h64")] == [False, True, True]


def test_the_name_of_a_lone_point_is_off_the_line_to_it(axes: Axes) -> None:
    name_before(axes, [Named("h1", 2e6, 62), Named("h8", 8e6, 66), Named("h64", 3e7, 64)])
    offsets = [text.xyann[1] - text.xy[1] for text in axes.texts if isinstance(text, Annotation)]
    assert [offset > 0 for offset in offsets] == [True, True, False]


def test_a_height_that_is_given_is_kept(axes: Axes) -> None:
    name_before(axes, [Named("h1", 2e6, 62, 63.5), Named("h8", 2e6, 62, 61)])
    assert [text.xyann[1] for text in axes.texts if isinstance(text, Annotation)] == [63.5, 61]


def test_there_is_room_for_a_long_name_before_the_first_point(axes: Axes) -> None:
    points = [Named("a name that is as long as this one", 1.1e6, 62), Named("h8", 8e6, 66)]
    make_room(axes, points)
    name_before(axes, points)
    axes.figure.draw_without_rendering()
    assert all(Text.get_window_extent(text).x0 >= axes.bbox.x0 for text in axes.texts)
    assert axes.get_xlim()[1] == 1e8


def test_where_there_is_room_none_is_made(axes: Axes) -> None:
    make_room(axes, [Named("h8", 8e6, 66)])
    assert axes.get_xlim() == (1e6, 1e8)
