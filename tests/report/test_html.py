"""The HTML report: whole, self-contained, and safe with any name."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mhrctl.report.html import breakable, html_report, prose
from mhrctl.report.results import NO_SCORES
from tests.report.made import made_cell, write_cells
from tests.report.page.made import write_answers, write_examples

VOID = {"meta", "br", "wbr"}
EVIL = "<script>alert('x')</script>&amp;"


class Page(HTMLParser):
    """Tags that must close, texts, and attributes that load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.unfolded: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "data", "action")
        self.sources += [value or "" for name, value in attrs if name in names]
        if tag == "details" and ("open", None) in attrs:
            self.unfolded.append(self.words[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A `data` folder with scores, a log, answers and some cards."""
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
        "facts": {"tasks": [EVIL, "b"], "counts": [1, 2], "shots": {"b": [32, 8]}},
    }
    for name, text in {
        "adapt/lora-s0": json.dumps(card),
        "evaluate/lora-s0": "{",
        "adapt/.mhr-h8-s0.partial": "{}",
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "card.json").write_text(text)
    examples = write_examples(tmp_path, {EVIL: [f"what is {EVIL}?"], "b": ["why?"]})
    write_answers(tmp_path, "mhr-h8-s0", {EVIL: [(EVIL, 20.0)], "b": [("", 0.0)]}, examples=examples)
    return tmp_path


def test_the_page_is_whole_and_loads_nothing(data: Path) -> None:
    text = html_report(data, ["lora-s0"])
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert page.sources
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in page.sources)
    assert not set(re.findall(r"https?://[^\"' <]*", text)) - {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r"url\(([^)]*)\)", text)} <= {f"#{name}" for name in ids}


def test_the_page_begins_with_what_can_be_said_and_goes_on_with_what_it_is_from(data: Path) -> None:
    page = Page(html_report(data, ["lora-s0", "poly-s0"]))
    parts = (
        "Compositions of list operations on scratch-1.2M",
        "Too few to say which method is better: 2 test tasks of at least 5 and 1 seed of at least 3.",
        "Highest mean: mhr-h8, ROUGE-L 61.2, +1.00 over lora.",
        "4 test tasks, 32 examples of each to adapt with, 2 methods, seed 0.",
        "+1.00",
        "No scores yet: poly-s0.",
        "Scores by task",
        "Blue is above lora, orange below",
        "Wrong answers of mhr-h8-s0",
        "1 of 1 answers not wholly right",
        f"what is {EVIL}?",
        "(nothing)",
        "training loss of a step",
        "The paper",
        *(f"Table {number}:" for number in range(1, 7)),
        "Figure 2",
        "Settings that are not defaults",
        "0.005",
        "Provenance",
        "params.adapt.beams: null",
        "facts.counts: 1, 2",
    )
    place = 0
    for part in parts:
        assert part in page.text[place:], part
        place = page.text.index(part, place)
    assert "Differences to lora" not in page.text  # which the results have


def test_no_sentence_of_a_note_is_said_twice(data: Path) -> None:
    text = html_report(data, ["lora-s0", "poly-s0"])
    said = re.findall(r'<p class="(?:note|verdict)">(.*?)</p>', text)
    assert len(said) > 10
    assert len(said) == len(set(said))
    assert "`" not in "".join(said)


def test_the_paper_is_folded_unless_the_suite_is_one_of_its_own(data: Path) -> None:
    assert Page(html_report(data, [])).unfolded == []
    for file in (data / "metrics/evaluate").iterdir():
        file.write_text(json.dumps(json.loads(file.read_text()) | {"suite": "superni"}))
    assert len(Page(html_report(data, [])).unfolded) == 1


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
    assert "Not here: backbone, pretrain/lora-s0, adapt/mhr-h8-s0, evaluate/backbone." in page.text
    assert "card.json: not a card; remove the folder and run its stage again" in page.text


def test_before_any_scores_the_page_has_the_training(data: Path) -> None:
    for file in (data / "metrics/evaluate").iterdir():
        file.unlink()
    text = html_report(data, [])
    page = Page(text)
    assert str(prose(NO_SCORES)) in text
    for part in ("training loss of a step", "69.1±1.0", "not run"):
        assert part in page.text
    assert "Scores by task" not in page.text


def test_equal_input_makes_an_equal_page(data: Path) -> None:
    assert html_report(data, []) == html_report(data, [])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run `dvc repro`, or `x<y`", "run <code>dvc repro</code>, or <code>x&lt;y</code>"),
        ("a ` alone", "a ` alone"),
        ("`a` and ` alone", "<code>a</code> and ` alone"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_prose_shows_code(text: str, shown: str) -> None:
    assert str(prose(text)) == shown


def test_long_names_may_break_within() -> None:
    assert str(breakable("sort_then_<b>.x")) == "sort_<wbr>then_&lt;b&gt;.<wbr>x"
