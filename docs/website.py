"""Builds the site of these pages into `site/`, and fails on anything that is broken in it: `make docs`.

The pages stay what GitHub shows. For the site they are copied to `build/pages`, with the documents of the root that belong to
them, and links that lead out of `docs/` follow; Zensical makes HTML of them, strictly; and the HTML is looked through.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
DOCS = "docs"
CONFIG = "zensical.toml"
PAGES, SITE = "build/pages", "site"
TAKEN = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""{document of the root: page of the site}."""
LEFT_OUT = {".py", ".txt", ".pyc"}
"""What of docs/ is no part of the site."""
LINK = re.compile(r"\[(?P<words>[^\]]*)\]\((?![a-z]+:|#|/)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
TITLE = re.compile(r"^# (.+)$", flags=re.MULTILINE)
FORMULA = re.compile(r"^```math$", flags=re.MULTILINE)
CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|`[^`\n]+`", flags=re.MULTILINE | re.DOTALL)


def stage(root: Path = ROOT) -> Path:
    """Copy what the site is made of; returns where it lies."""
    pages = root / PAGES
    shutil.rmtree(pages, ignore_errors=True)
    sources = {path.relative_to(root).as_posix(): place for path, place in _documents(root)}
    titles = {source: title[1] for source in sources if (title := _title(root / source))}
    for source, place in sources.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix != ".md":
            shutil.copyfile(root / source, target)
            continue
        text, others = relinked((root / source).read_text(encoding="utf-8"), source, sources, titles)
        target.write_text(text, encoding="utf-8")
        for other in others:
            _take(root, other, pages)
    return pages


def _documents(root: Path) -> Iterator[tuple[Path, str]]:
    """Each document, and its place among the pages."""
    for path in sorted((root / DOCS).rglob("*")):
        if path.is_file() and path.suffix not in LEFT_OUT:
            yield path, path.relative_to(root / DOCS).as_posix()
    for name, place in TAKEN.items():
        yield root / name, place


def _title(page: Path) -> re.Match[str] | None:
    return TITLE.search(page.read_text(encoding="utf-8")) if page.suffix == ".md" else None


def _take(root: Path, name: str, pages: Path) -> None:
    """Copy a file that a page links and that is no document: it keeps its place below the root."""
    target = pages / name
    if (root / name).is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)


def relinked(text: str, source: str, sources: Mapping[str, str], titles: Mapping[str, str]) -> tuple[str, list[str]]:
    """Let the links of a page lead to where documents are among the pages; one that says its file gets its title.

    Args:
        text: of the page.
        source: its path below the root.
        sources: {path below the root: place among the pages} of all documents.
        titles: {path below the root: title} of those that have one.

    Returns:
        The text, and the files outside `docs/` that it links, which are no documents.
    """
    here, others = PurePosixPath(sources[source]), list[str]()

    def follow(link: re.Match[str]) -> str:
        path = os.path.normpath(PurePosixPath(source).parent / link["path"])
        place = sources.get(path, path.removeprefix(f"{DOCS}/"))
        if path not in sources and not path.startswith(f"{DOCS}/"):
            others.append(path)
        is_name = link["words"] in (link["path"], PurePosixPath(path).name)
        words = titles.get(path, link["words"]) if is_name else link["words"]
        return f"[{words}]({os.path.relpath(place, here.parent)}{link['anchor'] or ''})"

    parts, at = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(follow, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, LINK.sub(follow, text[at:])]), others


class Page(HTMLParser):
    """A page is what the site's HTML says: which names it has, what it links, and what it loads.

    Attributes:
        names: anchors.
        links: what `a` leads to.
        loads: what a browser fetches of itself: pictures, scripts, styles.
        headings: how many of the first rank.
        formulas: how many have lines to themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names, self.links, self.loads = set[str](), list[str](), list[str]()
        self.headings, self.formulas = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag has of these."""
        has = {name: value or "" for name, value in attrs}
        self.names |= {has[name] for name in ("id", "name") if name in has}
        self.headings += tag == "h1"
        self.formulas += tag == "div" and has.get("class") == "formula"
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        elif tag == "link" and has.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loads.append(has.get("href", ""))
        elif "src" in has:
            self.loads.append(has["src"])


def faults(site: Path, pages: Path, config: Path) -> list[str]:
    """Whatever is broken in a site, a line each."""
    read = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    lines = list(_nav_faults(pages, tomllib.loads(config.read_text(encoding="utf-8"))["project"]["nav"]))
    for path, page in read.items():
        name = path.relative_to(site).as_posix()
        if name == "404.html":
            continue  # its links begin at the site's root
        lines += [f"{name}: {fault}" for fault in _page_faults(path, page, site, read)]
    asked = sum(len(FORMULA.findall(path.read_text(encoding="utf-8"))) for path in pages.rglob("*.md"))
    if asked != (drawn := sum(page.formulas for page in read.values())):
        lines.append(f"{drawn} formulas of {asked}")
    styles = [path for path in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8"))]
    return lines + [f"{path.relative_to(site)}: loads from elsewhere" for path in styles]


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _nav_faults(pages: Path, nav: object) -> Iterator[str]:
    listed = list(named(nav))
    there = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    yield from (f"{name}: is in the navigation of {CONFIG}, but no page" for name in listed if name not in there)
    yield from (f"{name}: is not in the navigation of {CONFIG}" for name in sorted(there - set(listed)))
    yield from (f"{name}: is in the navigation twice" for name in sorted(set(listed)) if listed.count(name) > 1)


def named(nav: object) -> Iterator[str]:
    """The pages of a navigation, however deep."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from named(list(nav.values()))
    elif isinstance(nav, Iterable):
        for part in nav:
            yield from named(part)


def _page_faults(path: Path, page: Page, site: Path, read: dict[Path, Page]) -> Iterator[str]:
    if page.headings != 1:
        yield f"has {page.headings} headings of the first rank"
    yield from (f"loads {link} from elsewhere" for link in page.loads if urlsplit(link).netloc)
    for link in (*page.links, *page.loads):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_relative_to(site.resolve()) or not target.is_file():
            yield f"{link} leads nowhere"
        elif parts.fragment and target in read and unquote(parts.fragment) not in read[target].names:
            yield f"{link} leads to no such place"


def main() -> int:
    """Build the site; returns 1 if anything is broken."""
    pages, site = stage(), (ROOT / SITE).resolve()
    shutil.rmtree(site, ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    environment = os.environ | {"PYTHONPATH": str(ROOT / DOCS), "NO_COLOR": "1"}
    command = [str(zensical), "build", "--strict", "--clean", "--config-file", str(ROOT / CONFIG)]
    built = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    if not site.is_dir():
        return built or 1
    lines = faults(site, pages, ROOT / CONFIG)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    last = f"{SITE}/: {sum(1 for _ in site.rglob('*.html'))} pages, {size / 1e6:.1f} MB, {len(lines)} faults"
    sys.stdout.write("".join(f"{line}\n" for line in [*lines, last]))
    return 1 if built or lines else 0


if __name__ == "__main__":
    sys.exit(main())
