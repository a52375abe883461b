"""Draws docs/images/concepts: a layer with an adapter, skills in blocks, the two phases, the stages, the grid.

`make pictures` draws them, from the functions below.
"""

from __future__ import annotations

from pathlib import Path

from docs.svg import BOLD, CENTRE, FROZEN, LINE, SMALL, Drawing, arrow, box, sheet, text
from mhrctl.config.colours import BLUE, GREEN, INK, ORANGE, PAPER, PURPLE, SKY

FOLDER = Path(__file__).parent / "images" / "concepts"


def layer() -> Drawing:
    """A linear layer, and the LoRA beside it."""
    yield text(200, 26, "x, what comes in", CENTRE)
    yield arrow("M200 33v10H110v15", "down") + arrow("M200 43H290v15", "down")
    yield box(50, 60, 120, 120, FROZEN)
    yield text(110, 118, "W", CENTRE + BOLD)
    yield text(110, 138, "frozen", CENTRE)
    yield f'<path d="M230 60h120l-35 44h-50z" fill="{BLUE}" stroke="{LINE}"/>'
    yield f'<path d="M265 136h50l35 44h-120z" fill="{ORANGE}" stroke="{LINE}"/>'
    yield text(290, 86, "A", f'{CENTRE}{BOLD} fill="{PAPER}"')
    yield text(290, 166, "B", CENTRE + BOLD)
    yield text(290, 125, "rank r", CENTRE + SMALL)
    yield arrow("M110 180v36H186", "right") + arrow("M290 180v36H214", "left")
    yield f'<circle cx="200" cy="216" r="13" fill="{PAPER}" stroke="{INK}"/>' + text(200, 221, "+", CENTRE)
    yield text(300, 220, "times alpha / r", SMALL)
    yield arrow("M200 229v22", "down")
    yield text(200, 268, "y, what goes on", CENTRE)


def heads() -> Drawing:
    """Three skills in four blocks, the weights of a task, and the LoRA that is mixed by them."""
    mixes = ((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.2, 0.2, 0.6), (0.4, 0.1, 0.5))
    colours = (BLUE, ORANGE, GREEN)
    for place, colour in enumerate(colours):
        yield text(76 + 66 * place, 28, f"skill {place + 1}", CENTRE)
        for head in range(4):
            yield box(56 + 66 * place, 38 + 46 * head, 40, 40, colour)
    yield text(336, 28, "this task's", CENTRE)
    for head, mix in enumerate(mixes):
        y = 38 + 46 * head
        yield text(14, y + 24, f"h{head + 1}")
        for place, share in enumerate(mix):
            yield text(76 + 66 * place, y + 25, f"{share:g}", f'{CENTRE}{BOLD} fill="{INK if place == 1 else PAPER}"')
        yield arrow(f"M246 {y + 20}h38", "right")
        at = 300.0
        for colour, share in zip(colours, mix, strict=True):
            yield f'<rect x="{at:g}" y="{y}" width="{72 * share:g}" height="40" fill="{colour}"/>'
            at += 72 * share
        yield f'<rect x="300" y="{y}" width="72" height="40" fill="none" stroke="{INK}"/>'
    yield text(14, 246, "Poly has one row of weights for a whole skill;")
    yield text(14, 266, "MHR has one for each head, a block of A's rows")
    yield text(14, 286, "and B's columns.")


def phases() -> Drawing:
    """Which tasks and examples are used when."""
    yield text(16, 28, "training tasks", BOLD)
    for place, colour in enumerate((BLUE, ORANGE, GREEN, SKY, PURPLE)):
        yield box(16 + 74 * place, 38, 64, 30, colour, f' stroke="{LINE}" fill-opacity="0.75"')
    yield arrow("M116 74v24", "down") + text(128, 92, "pretrain: thousands of steps, once", SMALL)
    yield box(16, 104, 368, 34, FROZEN) + text(200, 126, "an adapter that all tasks share", CENTRE)
    yield arrow("M116 144v24", "down") + text(128, 162, "a copy for each test task", SMALL)
    yield text(16, 192, "a test task", BOLD)
    for x, width, name, note in ((16, 74, "shots", "adapt learns"), (98, 96, "validation", "chooses"), (202, 182, "test", "")):
        yield box(x, 202, width, 34, "none" if note else FROZEN) + text(x + width / 2, 224, name, CENTRE)
        yield text(x + width / 2, 252, note or "evaluate scores these", CENTRE + SMALL)


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
        outline = f' stroke="{LINE}"' + (' stroke-dasharray="4 3"' if side else "")
        yield box(16 + 22 * side, y, 96, 32, PAPER if side else FROZEN, outline)
        yield text(64 + 22 * side, y + 21, name, CENTRE + BOLD)
        yield text(148, y + 21, makes)
        if place + 1 < len(STAGES):
            yield arrow(f"M{64 + 11 * side} {y + 34}v10", "down")
    yield text(16, 398, "Broken outlines: for methods that need them.", SMALL)


def grid() -> Drawing:
    """The cells of a small grid, and which share a pre-training."""
    rows = (("lora", "lora"), ("mhr, 8 heads", "mhr-h8"), ("mhr_mu, 8 heads", "mhr_mu-h8"))
    for seed in range(3):
        yield text(180 + 84 * seed, 28, f"seed {seed}", CENTRE)
    for place, (method, name) in enumerate(rows):
        y = 40 + 48 * place
        yield text(14, y + 24, method, SMALL)
        for seed in range(3):
            x = 140 + 84 * seed
            chosen = place == 1 and seed == 0
            yield box(x, y, 80, 38, GREEN if place else BLUE, f' stroke="{LINE}" fill-opacity="{1 if chosen else 0.18}"')
            yield text(x + 40, y + 23, f"{name}-s{seed}", f'{CENTRE} font-size="10" fill="{PAPER if chosen else INK}"')
    yield f'<path d="M132 92v80M132 92h5M132 172h5" fill="none" stroke="{GREEN}" stroke-width="2"/>'
    yield text(14, 208, "Each is a cell, with a name. Cells of one colour and")
    yield text(14, 228, "seed share a pre-training, which runs once.")


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
        (folder / f"{name}.svg").write_text(sheet(title, height, lines()), encoding="utf-8")


if __name__ == "__main__":
    draw()
