"""The HTML report: whole, self-contained, and safe with any name."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mhrctl.report.html import html_report, read_cards
from tests.report.made import made_cell, write_cells

VOID = {"meta", "br", "img"}
EVIL = "<script>alert('x')</script>&amp;"


class Page(HTMLParser):
    """Tags that must close, texts, and attributes that load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A `data` folder with scores, a log and some cards."""
    cells = {
        "backbone": made_cell("backbone", None, None),
        "lora-s0": made_cell("lora", 1, 0, {EVIL: 55.5, "b": 65.0}, validation=61.0),
        "mhr-h8-s0": made_cell("mhr", 8, 0, {EVIL: 56.5, "b": 66.0}),
    }
    write_cells(tmp_path / "metrics", cells)
    (tmp_path / "metrics/pretrain").mkdir()
    (tmp_path / "metrics/pretrain/lora-s0.csv").write_text("step,loss\n10,2.0\n20,1.0\n")
    card = {
        "stage": "adapt",
        "params": {"adapt": {"lr": 0.005, "beams": None}},
        "facts": {"tasks": [EVIL, "b"], "counts": [1, 2]},
    }
    for name, text in {
        "adapt/lora-s0": json.dumps(card),
        "evaluate/lora-s0": "{",
        "prepare": "{}",
        "adapt/.mhr-h8-s0.partial": "{}",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "card.json").write_text(text)
    return tmp_path


def test_the_page_is_whole_and_loads_nothing(data: Path) -> None:
    text = html_report(data, ["lora-s0"])
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.sources
    assert all(source.startswith(("#", "data:image/svg+xml;base64,")) for source in page.sources)
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_tables_differences_figures_scores_and_cards(data: Path) -> None:
    page = Page(html_report(data, ["lora-s0", "poly-s0"]))
    for part in (
        "Suite compositional: 2 test tasks, ROUGE-L. Backbone scratch-1.2M.",
        "2 cells of 2 methods and variants, seeds 0.",
        "No scores yet: poly-s0.",
        "Results: compositional on scratch-1.2M",
        *(f"Table {number}:" for number in range(1, 7)),
        "Differences to lora",
        "+1.00 to +1.00",
        "No cells of T0 on T0-3B yet.",
        "55.5",
        "adapt/lora-s0",
        "params.adapt.lr: 0.005",
        "params.adapt.beams: null",
        "facts.counts: 1, 2",
    ):
        assert part in page.text
    images = [source for source in page.sources if source.startswith("data:")]
    assert len(images) == 4
    for image in images:
        assert base64.b64decode(image.split(",")[1]).lstrip().startswith(b"<?xml")
    assert page.tags.count("details") == 3 + 3  # scores of three cells, three cards


def test_names_are_text_and_no_markup(data: Path) -> None:
    text = html_report(data, [EVIL])
    assert "<script" not in text
    assert EVIL in Page(text).text


def test_codes_of_a_terminal_are_shown_and_lines_of_cards_kept(data: Path) -> None:
    card = {"stage": "adapt", "facts": {"tasks": ["a\x1b[2J", "\u202eb"]}, "params": {"x": "one"}}
    (data / "adapt/lora-s0/card.json").write_text(json.dumps(card))
    text = html_report(data, ["c\x00d"])
    assert not set(text) & {"\x1b", "\x00", "\u202e"}
    assert r"c\x00d" in text
    assert "stage: adapt\nfacts.tasks: a\\x1b[2J, \\u202eb\nparams.x: one" in text


def test_missing_and_broken_cards_are_named(data: Path) -> None:
    page = Page(html_report(data, []))
    assert "Not here: backbone, pretrain/lora-s0, adapt/mhr-h8-s0, evaluate/backbone, evaluate/mhr-h8-s0." in page.text
    assert [card.name for card in read_cards(data)] == ["prepare", "adapt/lora-s0", "evaluate/lora-s0"]
    assert "card.json: not a card; remove the folder and run its stage again" in page.text


def test_without_results_the_page_has_the_papers_numbers(tmp_path: Path) -> None:
    page = Page(html_report(tmp_path, []))
    for part in ("No scores yet; run `dvc repro`", "69.1±1.0", "not run", "No gradient alignment of lora, poly, mhr yet"):
        assert part in page.text


def test_equal_input_makes_an_equal_page(data: Path) -> None:
    assert html_report(data, []) == html_report(data, [])
