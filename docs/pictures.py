"""Draws the pictures of docs/images: what mhrctl does, and what came of the demo and of the studies of claims.

`make pictures` draws them anew, from the scores in data/metrics of each and, where the demo has been run here, from the routing
that it has learned; of that, docs/images/similarity.json keeps the numbers. Equal numbers give equal bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.analysis.heatmaps import Matrix, draw_by_task
from mhrctl.analysis.routing_measures import Routing
from mhrctl.analysis.routing_similarity import routing_similarity, similarity_order
from mhrctl.artifacts.names import ADAPTERS, CARD
from mhrctl.config.colours import BLUE, GREEN, INK, ORANGE, PAPER, SKY
from mhrctl.config.resolve import load_params
from mhrctl.report.claims import judge
from mhrctl.report.figures.claims import plan_claims
from mhrctl.report.figures.dots import plan_dots
from mhrctl.report.logs import read_logs
from mhrctl.report.results import read_results

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).parent / "images"
NUMBERS = IMAGES / "similarity.json"
CELL = "mhr-h8-s0"
OVERVIEW, RESULTS, SIMILARITY = "overview.svg", "results.svg", "similarity.svg"
CLAIMS = {
    "claims-compositional.svg": ROOT / "pipelines/claims-compositional",
    "claims-superni.svg": ROOT / "pipelines/claims-superni",
}
"""{picture: the study whose claims it shows}."""
PICTURES = (OVERVIEW, RESULTS, SIMILARITY, *CLAIMS)

TASKS = {
    "summarise the news": (0.55, 0.1, 0.25, 0.1),
    "translate to French": (0.1, 0.6, 0.05, 0.25),
    "name the topic": (0.3, 0.05, 0.6, 0.05),
    "answer a question": (0.25, 0.3, 0.15, 0.3),
}
"""{task: how much it uses of each skill}, made up."""
NEW = ("a new task", (0.15, 0.1, 0.55, 0.2))
SKILLS = (BLUE, ORANGE, GREEN, SKY)
WIDTH, HEIGHT = 720, 424
LEFT, GRID, BAR, MODEL = 28, 222, 440, 610
"""Where its columns begin: tasks, routing, mixed LoRAs, model."""
COLUMN, ROW, TOP = 46, 40, 118
"""A skill's width, a task's height, and where the first task is."""
LINE = "#8a9099"
FONT = 'font-family="Verdana, DejaVu Sans, sans-serif" font-size="15"'
DASHED = f'fill="none" stroke="{INK}" stroke-dasharray="5 4"'


def overview() -> str:
    """The picture of what mhrctl does: many tasks share a few LoRAs, and a routing mixes them for each task."""
    last = TOP + ROW * len(TASKS) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT} fill="{INK}" role="img">',
        "<title>Many tasks share a few LoRAs; a routing mixes them for each task</title>",
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="14" fill="{PAPER}" stroke="{LINE}"/>',
        *_heads(),
        *(line for place, (task, mix) in enumerate(TASKS.items()) for line in _row(TOP + place * ROW, task, mix)),
        *(f'<circle cx="{LEFT + 8}" cy="{last - 24 + 8 * dot}" r="1.8"/>' for dot in range(3)),
        f'<rect x="{LEFT - 10}" y="{last}" width="{BAR + 150 - LEFT}" height="{ROW}" rx="8" {DASHED}/>',
        *_row(last, *NEW),
        *_model(TOP, last + ROW),
        _text(LEFT, last + ROW + 32, "A new task needs a new row, learned from a few examples."),
        _text(LEFT, last + ROW + 56, "MHR has such a table for each head, a slice of the layer."),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{extra}>{escape(text)}</text>'


def _heads() -> Iterator[str]:
    """What the columns are, and the skills."""
    bold = ' font-weight="bold"'
    yield _text(LEFT, 36, "many tasks", bold)
    yield _text(GRID, 36, "a few LoRAs: skills", bold)
    yield _text(BAR, 36, "one LoRA a task", bold)
    for place, colour in enumerate(SKILLS):
        x = GRID + place * COLUMN
        yield f'<rect x="{x + 4}" y="50" width="{COLUMN - 8}" height="38" rx="6" fill="{colour}"/>'
        yield _text(x + COLUMN / 2, 75, str(place + 1), ' text-anchor="middle" font-weight="bold"')
    yield _text(GRID, 107, "routing: how much of each", ' font-size="12"')
    yield _text(BAR, 75, "mixed by its row", ' font-size="12"')


def _row(top: float, task: str, mix: tuple[float, ...]) -> Iterator[str]:
    """A task, its row of the routing, and the LoRA that is mixed by it."""
    yield _text(LEFT, top + ROW / 2 + 5, task)
    at = float(BAR)
    for place, (colour, weight) in enumerate(zip(SKILLS, mix, strict=True)):
        x = GRID + place * COLUMN
        shade = f'fill="{colour}" fill-opacity="{min(1, 1.6 * weight):.2f}"'
        yield f'<rect x="{x + 1}" y="{top + 4:g}" width="{COLUMN - 2}" height="{ROW - 8}" {shade} stroke="{LINE}"/>'
        yield f'<rect x="{at:g}" y="{top + 8:g}" width="{130 * weight:g}" height="{ROW - 16}" fill="{colour}"/>'
        at += 130 * weight
    middle = top + ROW / 2
    yield f'<path d="M{GRID + 4 * COLUMN + 8} {middle:g}h16m-5 -4l5 4l-5 4" fill="none" stroke="{INK}"/>'
    yield f'<path d="M{BAR + 136} {middle:g}h{MODEL - BAR - 142}m-5 -4l5 4l-5 4" fill="none" stroke="{INK}"/>'


def _model(top: float, bottom: float) -> Iterator[str]:
    """The model that all tasks share."""
    yield f'<rect x="{MODEL}" y="{top:g}" width="86" height="{bottom - top:g}" rx="10" fill="#e9edf2" stroke="{LINE}"/>'
    for line, word in enumerate(("frozen", "language", "model")):
        yield _text(MODEL + 43, (top + bottom) / 2 - 14 + 20 * line, word, ' text-anchor="middle"')


def numbers(project: Path = ROOT) -> dict[str, Any] | None:
    """The similarity of the demo's tasks by routing, in hundredths below the diagonal; None where it has not been run."""
    folder = project / "data" / "pretrain" / CELL
    if not (folder / ADAPTERS).is_file():
        return None
    adapter = load_adapter(folder / ADAPTERS)
    if not isinstance(adapter, Inventory):
        raise TypeError(f"{folder}: has no routing")
    tasks = json.loads((folder / CARD).read_bytes())["facts"]["tasks"]
    similarity = routing_similarity(Routing.of(adapter, tasks))
    order = similarity_order(similarity)
    hundredths = np.rint(100 * similarity[np.ix_(order, order)]).astype(int)
    return {
        "tasks": [tasks[place] for place in order],
        "cosines": [row[:place].tolist() for place, row in enumerate(hundredths)],
    }


def _draw_similarity(folder: Path) -> None:
    known = json.loads(NUMBERS.read_text(encoding="utf-8"))
    cosines = np.eye(len(known["tasks"]))
    for place, row in enumerate(known["cosines"]):
        cosines[place, :place] = cosines[:place, place] = np.array(row) / 100
    stem = folder / SIMILARITY.removesuffix(".svg")
    title = f"Similarity of tasks, {CELL} after pre-training"
    draw_by_task([Matrix("by routing", cosines)], known["tasks"], stem, title=title, formats={"svg": PAPER})


def _draw_claims(study: Path, path: Path) -> None:
    metrics = study / "data" / "metrics"
    results, margin = read_results(metrics), load_params(study / "params.yaml").params.report.margin
    judgement = judge(results, read_logs(metrics / "pretrain"), margin=margin)
    plan = plan_claims(judgement, margin=margin, metric=results.metric_name)
    path.write_bytes(plan.drawing().rendered("svg", behind=PAPER))


def draw(folder: Path, project: Path = ROOT) -> None:
    """Draw all pictures into a folder."""
    (folder / OVERVIEW).write_text(overview(), encoding="utf-8")
    results = read_results(project / "data" / "metrics")
    (folder / RESULTS).write_bytes(plan_dots(results).drawing().rendered("svg", behind=PAPER))
    _draw_similarity(folder)
    for picture, study in CLAIMS.items():
        _draw_claims(study, folder / picture)


if __name__ == "__main__":
    if learned := numbers():
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in learned["cosines"])
        NUMBERS.write_text(f'{{"tasks": {json.dumps(learned["tasks"])},\n"cosines": [\n{rows}]}}\n', encoding="utf-8")
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
