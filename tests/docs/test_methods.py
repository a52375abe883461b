"""Every method has its page, whose picture and numbers are those of the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from docs import method_pages, schemes
from mhrctl.config.methods import METHODS
from mhrctl.tools.count import Counts

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "methods"
PARTS = ("Formula", "When to use it, and when not", "What is trained", "Settings and commands", "Source")


@pytest.fixture(scope="module")
def counts() -> Mapping[str, list[Counts]]:
    return method_pages.counted()


def sections(page: str) -> dict[str, str]:
    """{heading: what stands below it} of a page."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def missing(name: str, page: str) -> list[str]:
    """What a page of a method lacks."""
    parts = sections(page)
    lacks = [part for part in PARTS if not parts.get(part, "").strip()]
    wanted = {
        "title": page.startswith(f"# `{name}`\n\n"),
        "picture": f"](../images/methods/{name}.svg)" in page.partition("\n## ")[0],
        "formula": "```math\n" in parts.get("Formula", ""),
        "when": "**Take it**" in parts.get(PARTS[1], "") and "**Take another**" in parts.get(PARTS[1], ""),
        "numbers": "trained for a new task, T5-XL" in parts.get("What is trained", ""),
        "grid": f"    {name}:" in parts.get("Settings and commands", ""),
        "command": f"--method {name}" in parts.get("Settings and commands", ""),
        "source": "](" in parts.get("Source", ""),
    }
    return [*lacks, *(part for part, there in wanted.items() if not there)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_all_parts(name: str) -> None:
    assert missing(name, (FOLDER / f"{name}.md").read_text(encoding="utf-8")) == []


def test_every_page_is_of_a_method_and_in_the_navigation() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(METHODS)
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    (methods,) = (part["Methods"] for part in nav if "Methods" in part)
    assert methods[1:] == [{name: f"methods/{name}.md"} for name in METHODS]


def test_the_overview_links_every_page() -> None:
    overview = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"| [`{name}`](methods/{name}.md) |" not in overview] == []


@pytest.mark.parametrize("name", METHODS)
def test_what_the_page_says_of_the_table_is_current(name: str, counts: Mapping[str, list[Counts]]) -> None:
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert page == method_pages.written(page, METHODS[name], counts), "run `make reference`"


def test_the_schemes_are_current(tmp_path: Path) -> None:
    assert set(schemes.SCHEMES) == set(METHODS)
    schemes.draw(tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_bytes() for path in schemes.FOLDER.glob("*.svg")}, "run `make pictures`"


def test_a_scheme_trains_what_the_method_trains() -> None:
    """Where the routing alone is trained, or nothing, the skills are kept; only whole weights have no sign before them."""
    for name, scheme in schemes.SCHEMES.items():
        row = METHODS[name]
        assert bool(scheme.kept) == (row.trains != "adapter"), name
        assert (scheme.sign == "") == row.adapter.startswith("weights:"), name
        assert (schemes.average in scheme.after) == (row.start == "average" and row.mixes_skills), name


def test_pages_without_a_part_are_seen(counts: Mapping[str, list[Counts]]) -> None:
    page = (FOLDER / "mhr.md").read_text(encoding="utf-8")
    assert missing("mhr", page.replace("## Source", "## Sauce")) == ["Source", "source"]
    assert missing("mhr", page.replace("```math", "```text")) == ["formula"]
    assert missing("poly", page) == ["title", "picture", "grid", "command"]
    old = page.replace("17,694,720", "17,000,000")
    assert old != page
    assert method_pages.written(old, METHODS["mhr"], counts) == page


def test_a_page_without_the_place_is_left_as_it_is(counts: Mapping[str, list[Counts]]) -> None:
    assert method_pages.written("# x\n", METHODS["mhr"], counts) == "# x\n"
