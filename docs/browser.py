"""Opens every page of the built site in a headless browser, and fails on what a reader would stumble over: `make docs-browser`.

The site is served from here, and whatever a page asks of another host is refused and counts as a fault. Each page is opened in
the widths of `WIDTHS`, in light and dark: nothing may go to the console as an error, be missing, or be wider than the window;
pictures must have loaded and formulas be drawn; words must stand out from what is behind them.

    python docs/browser.py [FOLDER]     # with pictures of every page, into a folder
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Error, Page, sync_playwright

SITE = Path(__file__).parents[1] / "site"
BROWSERS = ("chromium", "google-chrome", "chromium-browser")
WIDTHS = (400, 1280)
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
FAILED = 400
"""A status of HTTP from which on nothing was there."""
SETTLED = 250
"""Milliseconds after which colours have changed."""
LOOKS = """() => {
  const faults = [];
  const width = document.documentElement.scrollWidth;
  if (width > window.innerWidth) {
    const wide = [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > window.innerWidth);
    faults.push(`is ${width} wide: ${[...new Set(wide.map(e => e.tagName))].slice(0, 5)}`);
  }
  for (const image of document.images) {
    if (!(image.complete && image.naturalWidth > 0)) faults.push(`has no picture ${image.src}`);
  }
  for (const formula of document.querySelectorAll('math')) {
    const box = formula.getBoundingClientRect();
    if (box.width < 3 || box.height < 4) faults.push(`does not draw ${formula.textContent.slice(0, 40)}`);
  }
  if (document.querySelector('article').textContent.match(/\\\\(frac|sum|sigma|begin)/)) faults.push('shows a formula as text');
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).map(Number).slice(0, 3);
    const [r, g, b] = parts.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour.startsWith('rgb(')) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  for (const kind of ['p', 'li', 'td', 'th', 'h1', 'h2', 'a', 'code', 'mi']) {
    const element = document.querySelector(`article ${kind}`);
    if (!element) continue;
    const both = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    const contrast = (both[0] + 0.05) / (both[1] + 0.05);
    if (contrast < 3) faults.push(`${kind} hardly stands out: ${contrast.toFixed(1)}`);
  }
  return faults;
}"""
"""What a page finds of itself: its faults, in words."""
SEARCH = "input[role=combobox], input[type=search], input[placeholder*=earch]"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        pass


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def look(browser: Browser, host: str, names: list[str], width: int, shots: Path | None) -> Iterator[str]:
    """Open pages in a window of a width, in light and then in dark, and say what is wrong, a line each."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    said: list[str] = []
    context.route(lambda url: not url.startswith((host, "data:", "blob:")), lambda route: route.abort())
    page = context.new_page()
    page.on("console", lambda message: said.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("requestfailed", lambda request: said.append(f"asks for {request.url}"))
    page.on("response", lambda answer: said.append(f"{answer.status}: {answer.url}") if answer.status >= FAILED else None)
    for name in names:
        page.emulate_media(color_scheme="light")
        page.goto(host + name, wait_until="load")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(SETTLED)
            yield from (f"{name or 'index'} ({width}, {scheme}): {fault}" for fault in (*said, *page.evaluate(LOOKS)))
            said.clear()
            if shots:
                file = f"{name.strip('/').replace('/', '.') or 'index'}-{width}-{scheme}.png"
                page.screenshot(path=shots / file, full_page=True)
    context.close()


def finds(page: Page, host: str) -> str | None:
    """Search the site for a word, as a reader does; returns what is wrong."""
    page.goto(host, wait_until="load")
    page.keyboard.press("/")
    page.locator(SEARCH).first.wait_for(state="visible", timeout=5000)
    page.keyboard.type("granularity")
    results = page.locator("a[href*='methods'], a[href*='settings']").filter(has_text="ranularity")
    try:
        results.first.wait_for(state="visible", timeout=5000)
    except Error as error:
        return f"search finds nothing: {error}"
    return None


def main(shots: Path | None = None) -> int:
    """Look at every page; returns 1 if anything is wrong."""
    browser_path = os.environ.get("BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser_path or not SITE.is_dir():
        sys.stdout.write(f"no {SITE.name}/: run `make docs`\n" if browser_path else f"none of {', '.join(BROWSERS)} is here\n")
        return 1
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    names = sorted(path.parent.relative_to(SITE).as_posix().removeprefix(".") for path in SITE.rglob("index.html"))
    names = [f"{name}/" if name else "" for name in names]
    lines: list[str] = []
    with served(SITE) as host, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for width in WIDTHS:
            lines += look(browser, host, names, width, shots)
        if fault := finds(browser.new_page(), host):
            lines.append(fault)
        browser.close()
    lines.append(f"{len(names)} pages in {len(WIDTHS)} widths, light and dark: {len(lines)} faults")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if len(lines) > 1 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
