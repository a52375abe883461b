"""The pictures of concepts are what their script draws, and a page shows each."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from docs import concepts, svg
from mhrctl.config.colours import PAPER

ROOT = Path(__file__).parents[2]
STAGES = {"prepare", "backbone", "pretrain", "average", "index", "adapt", "evaluate", "report"}
RECT, TEXT = "{http://www.w3.org/2000/svg}rect", "{http://www.w3.org/2000/svg}text"


def test_the_pictures_are_current(tmp_path: Path) -> None:
    concepts.draw(tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_bytes() for path in concepts.FOLDER.glob("*.svg")}, "run `make pictures`"


@pytest.mark.parametrize("name", concepts.PICTURES)
def test_the_page_shows_each(name: str) -> None:
    assert f"](images/concepts/{name}.svg)" in (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["concepts", "methods"])
def test_boxes_and_words_begin_on_their_paper(folder: str) -> None:
    for path in (ROOT / "docs" / "images" / folder).glob("*.svg"):
        root = ET.parse(path).getroot()  # noqa: S314 - our own
        paper = root.find(RECT)
        assert paper is not None
        assert paper.get("fill") == PAPER
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        assert width == svg.WIDTH
        for part in [*root.iter(RECT), *root.iter(TEXT)]:
            right = float(part.get("x", 0)) + float(part.get("width", 0))
            below = float(part.get("y", 0)) + float(part.get("height", 0))
            assert right <= width, path.name
            assert below <= height, path.name


def test_the_stages_are_those_that_there_are() -> None:
    assert {name for name, _ in concepts.STAGES} == STAGES == {path.stem for path in (ROOT / "mhrctl/stages").glob("[a-z]*.py")}


def test_words_are_escaped() -> None:
    assert ET.fromstring(svg.sheet("a < b", 10, [svg.text(1, 2, "c & d")]))[2].text == "c & d"  # noqa: S314 - our own
