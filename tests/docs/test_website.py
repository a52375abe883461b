"""The site is made of the pages that GitHub shows, and what is broken in it is seen."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from docs import website

ROOT = Path(__file__).parents[2]
READY = ROOT / ".venv-docs" / "ready"
SOURCES = {"docs/a.md": "a.md", "docs/methods/b.md": "methods/b.md", "docs/c.svg": "c.svg", "CHANGELOG.md": "changelog.md"}
TITLES = {"docs/a.md": "The letter A", "docs/methods/b.md": "B"}
CONFIG = '[project]\nnav = [{ "A" = "a.md" }, { "More" = [{ "B" = "methods/b.md" }] }]\n'


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("docs/a.md", "[x](methods/b.md#y)", "[x](methods/b.md#y)"),
        ("docs/a.md", "[b.md](methods/b.md#y)", "[B](methods/b.md#y)"),
        ("docs/methods/b.md", "[up](../a.md), ![p](../c.svg)", "[up](../a.md), ![p](../c.svg)"),
        ("docs/methods/b.md", "[log](../../CHANGELOG.md)", "[log](../changelog.md)"),
        ("CHANGELOG.md", "[a](docs/a.md), [docs/a.md](docs/a.md)", "[a](a.md), [The letter A](a.md)"),
        ("docs/a.md", "[x](https://x.org/a.md), [y](#z)", "[x](https://x.org/a.md), [y](#z)"),
        ("docs/methods/b.md", "`[a](../a.md)`", "`[a](../a.md)`"),
        ("CHANGELOG.md", "```\n[a](docs/a.md)\n```\n[a](docs/a.md)", "```\n[a](docs/a.md)\n```\n[a](a.md)"),
    ],
)
def test_links_follow_their_pages(source: str, text: str, expected: str) -> None:
    assert website.relinked(text, source, SOURCES, TITLES) == (expected, [])


def test_files_outside_are_taken_along() -> None:
    said = website.relinked("[r](../../benchmarks/r.json)", "docs/methods/b.md", SOURCES, TITLES)
    assert said == ("[r](../benchmarks/r.json)", ["benchmarks/r.json"])


def test_pages_are_staged(tmp_path: Path) -> None:
    for name, text in {
        "docs/a.md": "# A\n[r](../benchmarks/r.json) [changes](../CHANGELOG.md)",
        "docs/draw.py": "",
        "docs/c.svg": "<svg/>",
        "benchmarks/r.json": "{}",
        "CHANGELOG.md": "# Changes\n[a](docs/a.md)",
        "CONTRIBUTING.md": "# How",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    pages = website.stage(tmp_path)
    there = {path.relative_to(pages).as_posix() for path in pages.rglob("*") if path.is_file()}
    assert there == {"a.md", "c.svg", "benchmarks/r.json", "changelog.md", "contributing.md"}
    assert (pages / "a.md").read_text() == "# A\n[r](benchmarks/r.json) [changes](changelog.md)"
    assert (pages / "changelog.md").read_text() == "# Changes\n[a](a.md)"


def write_site(folder: Path, body: str, *, page: str = "# A\n") -> tuple[Path, Path, Path]:
    """A site of two pages, of which the first has a body."""
    site, pages, config = folder / "site", folder / "pages", folder / "zensical.toml"
    for name, text in {
        site / "a/index.html": f"<h1 id='a'>A</h1>{body}",
        site / "methods/b/index.html": "<h1 id='b'>B</h1>",
        site / "404.html": "<a href='/nowhere'>not here</a>",
        site / "p.png": "x",
        pages / "a.md": page,
        pages / "methods/b.md": "# B\n",
        config: CONFIG,
    }.items():
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(text)
    return site, pages, config


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<a href='../methods/b/#b'>B</a> <a href='#a'>A</a> <img src='../p.png'> <a href='https://x.org'>x</a>", None),
        ("<a href='../methods/'>B</a>", "../methods/ leads nowhere"),
        ("<a href='../methods/b/#c'>C</a>", "../methods/b/#c leads to no such place"),
        ("<a href='../../pages/a.md'>outside</a>", "../../pages/a.md leads nowhere"),
        ("<img src='../q.png'>", "../q.png leads nowhere"),
        ("<script src='https://x.org/x.js'></script>", "loads https://x.org/x.js from elsewhere"),
        ("<link rel='stylesheet' href='//x.org/x.css'>", "loads //x.org/x.css from elsewhere"),
        ("<h1>again</h1>", "has 2 headings of the first rank"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, body: str, fault: str | None) -> None:
    expected = [f"a/index.html: {fault}"] if fault else []
    assert website.faults(*write_site(tmp_path, body)) == expected


def test_formulas_that_are_lost_are_counted(tmp_path: Path) -> None:
    formula = "# A\n\n```math\nx\n```\n"
    assert website.faults(*write_site(tmp_path, "<p>x</p>", page=formula)) == ["0 formulas of 1"]
    assert website.faults(*write_site(tmp_path, "<div class='formula'>x</div>", page=formula)) == []


def test_the_navigation_has_each_page_once(tmp_path: Path) -> None:
    site, pages, config = write_site(tmp_path, "")
    (pages / "methods/b.md").rename(pages / "c.md")
    config.write_text(CONFIG.replace("nav = [", 'nav = ["a.md", '))
    assert website.faults(site, pages, config) == [
        "methods/b.md: is in the navigation of zensical.toml, but no page",
        "c.md: is not in the navigation of zensical.toml",
        "a.md: is in the navigation twice",
    ]


def test_styles_that_ask_elsewhere_are_seen(tmp_path: Path) -> None:
    site, pages, config = write_site(tmp_path, "")
    (site / "x.css").write_text("@font-face { src: url(https://x.org/f.woff2) }")
    assert website.faults(site, pages, config) == ["x.css: loads from elsewhere"]


@pytest.mark.slow
def test_the_site_is_built() -> None:
    if not READY.is_file():
        pytest.skip("no .venv-docs here: `make docs` makes it")
    command = [READY.parent / "bin" / "python", ROOT / "docs" / "website.py"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stdout.endswith(" 0 faults\n")
    page = (ROOT / "site" / "methods" / "mhr" / "index.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "\\frac" not in page
