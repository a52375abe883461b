"""Heat maps as files: whole, readable, and the same for the same numbers."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mhrctl.analysis.heatmaps import Array, Matrix, Panel, draw_by_skill, draw_by_task
from mhrctl.config.colours import INK

ODD = ['a$b_{c}$ <x> & "q" [red]', "数学 题", "tab\tnull\x00 --> ]]>", "plain"]
SVG = "{http://www.w3.org/2000/svg}"


def numbers(*shape: int) -> Array:
    return np.random.default_rng(0).uniform(0, 0.5, shape)


def panel(tasks: int, heads: int = 1, title: str = "encoder.block.0.layer.0.SelfAttention.q") -> Panel:
    return Panel(title, numbers(tasks, heads, 4), range(1, heads + 1), "skill" if heads == 1 else "head")


def texts(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ET.parse(path).iter(f"{SVG}text")]  # noqa: S314 - our own


@pytest.mark.parametrize("heads", [1, 3])
def test_a_page_is_a_png_and_an_svg_with_every_name(tmp_path: Path, heads: int) -> None:
    draw_by_skill([panel(4, heads)] * 2, ODD, tmp_path / "page", title="of $1 <b>", tests=1)
    with Image.open(tmp_path / "page.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > image.height > 200
    shown = texts(tmp_path / "page.svg")
    for name in (ODD[0], ODD[1], "tab\N{REPLACEMENT CHARACTER}null\N{REPLACEMENT CHARACTER} --> ]]>", "plain", "of $1 <b>"):
        assert shown.count(name) == 1, name
    assert "encoder.block.0.layer.0.SelfAttention.q" in "".join(shown)


def test_the_same_numbers_are_the_same_bytes_whatever_the_users_style(tmp_path: Path) -> None:
    def draw(stem: str) -> list[bytes]:
        draw_by_skill([panel(4)], ODD, tmp_path / stem, title="x")
        draw_by_task([Matrix("by routing", numbers(4, 4))], ODD, tmp_path / f"{stem}-tasks", title="x")
        return [(tmp_path / f"{stem}{rest}").read_bytes() for rest in (".png", ".svg", "-tasks.png", "-tasks.svg")]

    before = draw("one")
    with mpl.rc_context({"font.size": 20, "image.cmap": "gray", "svg.hashsalt": "other", "axes.grid": True}):
        assert draw("two") == before


def test_many_tasks_are_named_in_part_and_the_page_says_so(tmp_path: Path) -> None:
    def named(count: int) -> list[str]:
        draw_by_skill([panel(count)], [f"task {number:03}" for number in range(count)], tmp_path / "page", title="x")
        return [text for text in texts(tmp_path / "page.svg") if text.startswith("task")]

    assert named(120) == [f"task {number:03}" for number in range(120)]
    assert sorted(named(300)) == [*(f"task {number:03}" for number in range(0, 300, 3)), "tasks; one in 3 is named"]


def test_a_long_name_keeps_its_ends(tmp_path: Path) -> None:
    long = "cos_e_v1.11_" + "x" * 80 + "_given_text"
    draw_by_skill([panel(2)], [long, "b"], tmp_path / "page", title="x")
    (shown,) = (text for text in texts(tmp_path / "page.svg") if text.startswith("cos_e"))
    assert shown.endswith("_given_text")
    assert len(shown) <= 40


def test_many_panels_go_on_in_rows_with_names_of_their_own(tmp_path: Path) -> None:
    draw_by_skill([panel(3)] * 20, ["a task", "b", "c"], tmp_path / "page", title="x")
    assert texts(tmp_path / "page.svg").count("a task") == 4


def test_one_task_and_equal_values_are_drawn(tmp_path: Path) -> None:
    draw_by_task([Matrix("by routing", np.ones((1, 1)))], ["alone"], tmp_path / "one", title="x")
    draw_by_task([Matrix("by routing", np.ones((3, 3)))], ["a", "b", "c"], tmp_path / "equal", title="x", tests=1)
    for name in ("one.png", "equal.png"):
        with Image.open(tmp_path / name) as image:
            image.load()


def colours(path: Path) -> list[Array]:
    """The pictures in an SVG, as red, green and blue."""
    images = re.findall(r'xlink:href="data:image/png;base64,\s*([^"]+)"', path.read_text())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"), float) for image in images]


def test_even_weights_are_white_and_others_red_above_and_blue_below(tmp_path: Path) -> None:
    weights = np.array([[[0.25, 0.25, 0.25, 0.25]], [[0.5, 0.25, 0.125, 0.125]]])
    draw_by_skill([Panel("a layer", weights, (1,), "skill")], ["even", "uneven"], tmp_path / "page", title="x")
    picture = colours(tmp_path / "page.svg")[0]
    even, uneven = (picture[row, [0, -1]] for row in (0, -1))
    assert (even > 240).all()
    (red, _, less_blue), (less_red, _, blue) = uneven
    assert red > less_blue
    assert blue > less_red
    shown = texts(tmp_path / "page.svg")
    assert {"half", "even: 0.25", "double"} <= set(shown)
    assert "a quarter" not in shown


def test_the_scale_of_weights_goes_as_far_as_they_do(tmp_path: Path) -> None:
    weights = np.array([[[0.97, 0.01, 0.01, 0.01]]])
    draw_by_skill([Panel("a layer", weights, (1,), "skill")], ["sure"], tmp_path / "page", title="x")
    assert {"a quarter", "half", "even: 0.25", "double", "4 times"} <= set(texts(tmp_path / "page.svg"))


def test_a_cosine_of_0_is_white_and_its_scale_is_symmetrical(tmp_path: Path) -> None:
    alike = np.array([[1, 0, 0.43], [0, 1, -0.2], [0.43, -0.2, 1]])
    draw_by_task([Matrix("by routing", alike)], ["a", "b", "c"], tmp_path / "page", title="x")
    picture = colours(tmp_path / "page.svg")[0]
    assert (picture[0, 1] > 240).all()
    assert picture[0, 2][0] > picture[0, 2][2]  # alike: red
    assert picture[1, 2][2] > picture[1, 2][0]  # avoid each other: blue
    assert np.ptp(picture[1, 2]) < np.ptp(picture[0, 2])
    ticks = [text.replace("\N{MINUS SIGN}", "-") for text in texts(tmp_path / "page.svg")]
    assert {"-0.4", "0.4"} <= set(ticks)


@pytest.mark.parametrize(("count", "both"), [(40, True), (41, False)])
def test_columns_have_names_where_there_is_room(tmp_path: Path, count: int, both: bool) -> None:
    tasks = [f"task {number:02}" for number in range(count)]
    draw_by_task([Matrix("by routing", np.eye(count))], tasks, tmp_path / "page", title="x")
    shown = texts(tmp_path / "page.svg")
    assert [shown.count(task) for task in tasks] == [2 if both else 1] * count
    assert ("rotate(-45" in (tmp_path / "page.svg").read_text()) is both
    assert ("tasks in the order of the rows" in shown) is not both


def test_an_svg_lets_the_page_through(tmp_path: Path) -> None:
    draw_by_task([Matrix("by routing", np.eye(2))], ["a", "b"], tmp_path / "page", title="x")
    text = (tmp_path / "page.svg").read_text()
    assert f"fill: {INK}" in text
    background = re.search(r'<g id="patch_1">.*?</g>', text, re.DOTALL)
    assert background is None or "fill: none" in background[0]
