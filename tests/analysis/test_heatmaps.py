"""Heat maps as files: whole, readable, and the same for the same numbers."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mhrctl.analysis.heatmaps import Array, Matrix, Panel, draw_by_skill, draw_by_task

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
    assert texts(tmp_path / "page.svg").count("a task") == 2


def test_one_task_and_equal_values_are_drawn(tmp_path: Path) -> None:
    draw_by_task([Matrix("by routing", np.ones((1, 1)))], ["alone"], tmp_path / "one", title="x")
    draw_by_task([Matrix("by routing", np.ones((3, 3)))], ["a", "b", "c"], tmp_path / "equal", title="x", tests=1)
    for name in ("one.png", "equal.png"):
        with Image.open(tmp_path / name) as image:
            image.load()
