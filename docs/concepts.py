"""Draws docs/images/concepts: a layer with an adapter, skills in blocks, the two phases, the stages, the grid.

`make pictures` draws them. They are narrow, so that a telephone shows their words in a size that can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from mhrctl.config.colours import BLUE, GREEN, INK, ORANGE, PAPER, PURPLE, SKY

FOLDER = Path(__file__).parent / "images" / "concepts"
LINE, FROZEN = "#8a9099", "#e9edf2"
FONT = 'font-family="Verdana, DejaVu Sans, sans-serif" font-size="13"'
WIDTH = 400
CENTRE, BOLD, SMALL = ' text-anchor="middle"', ' font-weight="bold"', ' font-size="11"'

Drawing = Iterator[str]


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{extra}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str, extra: str = "") -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" stroke="{LINE}"{extra}/>'


def _arrow(path: str, head: str) -> str:
    """A line, and where it ends one of the heads `down`, `left`, `right`."""
    ends = {"down": "m-4 -6l4 6l4 -6", "left": "m6 -4l-6 4l6 4", "right": "m-6 -4l6 4l-6 4"}
    return f'<path d="{path}{ends[head]}" fill="none" stroke="{INK}" stroke-width="1.3"/>'


def _svg(title: str, height: int, lines: Drawing) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {FONT}'
        f' fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="10" fill="{PAPER}" stroke="{LINE}"/>',
    ]
    return "\n".join([*head, *lines, "</svg>"]) + "\n"


def layer() -> Drawing:
    """A linear layer, and the LoRA beside it."""
    yield _text(200, 26, "x, what comes in", CENTRE)
    yield _arrow("M200 33v10H110v15", "down") + _arrow("M200 43H290v15", "down")
    yield _box(50, 60, 120, 120, FROZEN)
    yield _text(110, 118, "W", CENTRE + BOLD)
    yield _text(110, 138, "frozen", CENTRE)
    yield f'<path d="M230 60h120l-35 44h-50z" fill="{BLUE}" stroke="{LINE}"/>'
    yield f'<path d="M265 136h50l35 44h-120z" fill="{ORANGE}" stroke="{LINE}"/>'
    yield _text(290, 86, "A", f'{CENTRE}{BOLD} fill="{PAPER}"')
    yield _text(290, 166, "B", CENTRE + BOLD)
    yield _text(290, 125, "rank r", CENTRE + SMALL)
    yield _arrow("M110 180v36H186", "right") + _arrow("M290 180v36H214", "left")
    yield f'<circle cx="200" cy="216" r="13" fill="{PAPER}" stroke="{INK}"/>' + _text(200, 221, "+", CENTRE)
    yield _text(300, 220, "times α / r", SMALL)
    yield _arrow("M200 229v22", "down")
    yield _text(200, 268, "y, what goes on", CENTRE)


def heads() -> Drawing:
    """Three skills in four blocks, the weights of a task, and the LoRA that is mixed by them."""
    mixes = ((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.2, 0.2, 0.6), (0.4, 0.1, 0.5))
    colours = (BLUE, ORANGE, GREEN)
    for place, colour in enumerate(colours):
        yield _text(76 + 66 * place, 28, f"skill {place + 1}", CENTRE)
        for head in range(4):
            yield _box(56 + 66 * place, 38 + 46 * head, 40, 40, colour)
    yield _text(336, 28, "this task's", CENTRE)
    for head, mix in enumerate(mixes):
        y = 38 + 46 * head
        yield _text(14, y + 24, f"h{head + 1}")
        for place, share in enumerate(mix):
            yield _text(76 + 66 * place, y + 25, f"{share:g}", f'{CENTRE}{BOLD} fill="{INK if place == 1 else PAPER}"')
        yield _arrow(f"M246 {y + 20}h38", "right")
        at = 300.0
        for colour, share in zip(colours, mix, strict=True):
            yield f'<rect x="{at:g}" y="{y}" width="{72 * share:g}" height="40" fill="{colour}"/>'
            at += 72 * share
        yield f'<rect x="300" y="{y}" width="72" height="40" fill="none" stroke="{INK}"/>'
    yield _text(14, 246, "Poly has one row of weights for a whole skill;")
    yield _text(14, 266, "MHR has one for each head, a block of A's rows")
    yield _text(14, 286, "and B's columns.")


def phases() -> Drawing:
    """Which tasks and examples are used when."""
    yield _text(16, 28, "training tasks", BOLD)
    for place, colour in enumerate((BLUE, ORANGE, GREEN, SKY, PURPLE)):
        yield _box(16 + 74 * place, 38, 64, 30, colour, ' fill-opacity="0.75"')
    yield _arrow("M116 74v24", "down") + _text(128, 92, "pretrain: thousands of steps, once", SMALL)
    yield _box(16, 104, 368, 34, FROZEN) + _text(200, 126, "an adapter that all tasks share", CENTRE)
    yield _arrow("M116 144v24", "down") + _text(128, 162, "a copy for each test task", SMALL)
    yield _text(16, 192, "a test task", BOLD)
    for x, width, name, note in ((16, 74, "shots", "adapt learns"), (98, 96, "validation", "chooses"), (202, 182, "test", "")):
        yield _box(x, 202, width, 34, "none" if note else FROZEN) + _text(x + width / 2, 224, name, CENTRE)
        yield _text(x + width / 2, 252, note or "evaluate scores these", CENTRE + SMALL)


STAGES = (
    ("prepare", "tasks to tokens, splits, shots"),
    ("backbone", "the frozen model, by its fingerprint"),
    ("pretrain", "adapters on all training tasks"),
    ("average", "the mean of the skills, one LoRA"),
    ("index", "which tasks are alike (adapter_soup)"),
    ("adapt", "to each test task, from a few shots"),
    ("evaluate", "answers and scores"),
    ("report", "tables, comparisons, figures"),
)


def stages() -> Drawing:
    """The stages, in their order, and what each makes."""
    for place, (name, makes) in enumerate(STAGES):
        y = 14 + 46 * place
        side = name in ("average", "index")
        yield _box(16 + 22 * side, y, 96, 32, PAPER if side else FROZEN, ' stroke-dasharray="4 3"' if side else "")
        yield _text(64 + 22 * side, y + 21, name, CENTRE + BOLD)
        yield _text(148, y + 21, makes)
        if place + 1 < len(STAGES):
            yield _arrow(f"M{64 + 11 * side} {y + 34}v10", "down")
    yield _text(16, 398, "Broken outlines: for methods that need them.", SMALL)


def grid() -> Drawing:
    """The cells of a small grid, and which share a pre-training."""
    rows = (("lora", "lora"), ("mhr, 8 heads", "mhr-h8"), ("mhr_mu, 8 heads", "mhr_mu-h8"))
    for seed in range(3):
        yield _text(180 + 84 * seed, 28, f"seed {seed}", CENTRE)
    for place, (method, name) in enumerate(rows):
        y = 40 + 48 * place
        yield _text(14, y + 24, method, SMALL)
        for seed in range(3):
            x = 140 + 84 * seed
            chosen = place == 1 and seed == 0
            yield _box(x, y, 80, 38, GREEN if place else BLUE, f' fill-opacity="{1 if chosen else 0.18}"')
            yield _text(x + 40, y + 23, f"{name}-s{seed}", f'{CENTRE} font-size="10" fill="{PAPER if chosen else INK}"')
    yield f'<path d="M132 92v80M132 92h5M132 172h5" fill="none" stroke="{GREEN}" stroke-width="2"/>'
    yield _text(14, 208, "Each is a cell, with a name. Cells of one colour and")
    yield _text(14, 228, "seed share a pre-training, which runs once.")


PICTURES = {
    "layer": ("A frozen layer with a LoRA beside it", 284, layer),
    "heads": ("Blocks of skills are mixed by the weights of each head", 300, heads),
    "phases": ("Training tasks make a shared adapter; shots of a test task tune a copy", 268, phases),
    "stages": ("Eight stages, and what each makes", 410, stages),
    "grid": ("Methods by seeds are cells", 242, grid),
}
"""{name: title, height, what draws it}."""


def draw(folder: Path = FOLDER) -> None:
    """Draw all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (title, height, lines) in PICTURES.items():
        (folder / f"{name}.svg").write_text(_svg(title, height, lines()), encoding="utf-8")


if __name__ == "__main__":
    draw()
