"""The pictures of docs/images are what their script makes of the numbers that there are."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_are_current_to_the_byte(pictures: ModuleType, tmp_path: Path) -> None:
    pinned = re.search(r"^matplotlib==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert pinned is not None
    if mpl.__version__ != pinned[1]:
        pytest.skip(f"drawn with matplotlib {pinned[1]}, here is {mpl.__version__}")
    pictures.draw(tmp_path)
    for name in pictures.PICTURES:
        assert (tmp_path / name).read_bytes() == (IMAGES / name).read_bytes(), f"{name}: run `make pictures`"


def test_the_numbers_are_of_the_routing_that_the_demo_has_learned(pictures: ModuleType) -> None:
    learned = pictures.numbers()
    if learned is None:
        pytest.skip("the demo has not been run here")
    assert json.loads(pictures.NUMBERS.read_text(encoding="utf-8")) == learned, "run `make pictures`"


def test_the_overview_mixes_each_lora_as_its_row_says(pictures: ModuleType) -> None:
    root = ET.fromstring(pictures.overview())  # noqa: S314 - our own
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for task, mix in [*pictures.TASKS.items(), pictures.NEW]:
        assert task in texts
        assert sum(mix) == pytest.approx(1)
        assert len(mix) == len(pictures.SKILLS)


def test_every_picture_is_drawn_by_the_script_and_shown_by_a_page(pictures: ModuleType) -> None:
    assert {path.name for path in IMAGES.glob("*.svg")} == set(pictures.PICTURES)
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"images/([\w-]+\.svg)\)", page.read_text(encoding="utf-8"))}
    assert shown <= set(pictures.PICTURES)
    assert "similarity.svg" in shown


def test_pictures_bring_their_paper(pictures: ModuleType) -> None:
    """A page may be dark, and an image of it cannot know."""
    for name in pictures.PICTURES:
        text = (IMAGES / name).read_text(encoding="utf-8")
        assert re.search(rf"""<(rect|path)[^>]*fill(: |="){pictures.PAPER}""", text), name
