"""What pre-trainings have learned of routing is measured and drawn, one seed of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mhrctl.artifacts.names import ADAPTERS
from mhrctl.config.methods import METHODS
from mhrctl.errors import ArtifactError
from mhrctl.report.logs import label_of
from mhrctl.report.page.svg import inlined
from mhrctl.report.table import Table

PAGES = {"svg": "none"}
"""{format of the pictures: what is behind them}."""
NAMES = ("gates on", "bits a gate", "even use", "effective\nskills")


@dataclass(frozen=True)
class DrawnRouting:
    """This is the routing of a pre-training, drawn.

    Attributes:
        cell: name.
        similarity: of its tasks, as SVG.
        weights: of its tasks by skill, as SVG.
    """

    cell: str
    similarity: str
    weights: str


@dataclass(frozen=True)
class Routings:
    """These are the routings of all pre-trainings that learn one.

    Attributes:
        measures: a row each.
        drawn: a page of pictures each.
    """

    measures: Table
    drawn: list[DrawnRouting]


def routings(cards: Mapping[str, Any], data: Path) -> Routings | None:
    """Measure and draw the routing of each routed method, of its first seed that is at hand; None where there is none.

    Args:
        cards: {output: its card}.
        data: the project's `data` folder.
    """
    rows, drawn, notes = [], [], []
    for cell, tasks in _routed(cards, data):
        try:
            row, pictures = _look(data / "pretrain" / cell / ADAPTERS, cell, tasks)
        except ArtifactError as error:
            notes.append(f"Not shown: {error}")
            continue
        rows.append(row)
        drawn.append(pictures)
    if not rows and not notes:
        return None
    notes += [
        "Gates on: share of the skills that a task has switched on. Bits a gate: 0 is decided, 1 undecided.",
        "Even use: 1 if all skills are used alike. Effective skills: how many a task mixes, of all that there are.",
    ]
    return Routings(Table("Routing", ("pre-training", *NAMES, "skills", "heads"), rows, notes), drawn)


def _routed(cards: Mapping[str, Any], data: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells that are shown, each with its tasks: one seed of a method, its heads and its variant."""
    first: dict[str, tuple[int, str, list[str]]] = {}
    for name, card in cards.items():
        stage, _, cell = name.partition("/")
        chosen = card.get("params", {}).get("cell") if stage == "pretrain" else None
        method = METHODS.get(chosen.get("method", "")) if isinstance(chosen, dict) else None
        if method and method.learns_routing and (data / name / ADAPTERS).exists():
            place = list(METHODS).index(method.name)
            first.setdefault(label_of(cell), (place, cell, list(card.get("facts", {}).get("tasks", []))))
    yield from (each[1:] for each in sorted(first.values()))


def _look(file: Path, cell: str, tasks: list[str]) -> tuple[list[str], DrawnRouting]:
    """A row of measures, and the pictures."""
    from mhrctl.analysis.heatmaps import Matrix, draw_by_skill, draw_by_task
    from mhrctl.analysis.routing_measures import Inspection, Routing
    from mhrctl.analysis.routing_panels import panels
    from mhrctl.analysis.routing_similarity import routing_similarity, similarity_order

    routing = Routing.read(file, tasks)
    measured = Inspection.of(routing)
    of_all = measured.overall
    numbers = (of_all.sparsity, of_all.discreteness, of_all.efficiency, of_all.effective_skills)
    row = [cell, *(f"{number:.2f}" for number in numbers), str(routing.skills), str(routing.heads)]
    similarity = routing_similarity(routing)
    order = similarity_order(similarity)
    names = [tasks[place] for place in order]
    with TemporaryDirectory() as folder:
        alike, mixed = Path(folder) / "similarity", Path(folder) / "weights"
        matrix = Matrix("by routing", similarity[order][:, order])
        draw_by_task([matrix], names, alike, title=f"Similarity of tasks, {cell}", formats=PAGES)
        chosen = [panel for panel in panels(routing, measured) if not panel.heads] or panels(routing, measured)[:1]
        sorted_panels = [replace(panel, values=panel.values[order]) for panel in chosen]
        draw_by_skill(sorted_panels, names, mixed, title=f"Weights of skills, {cell}", formats=PAGES)
        pictures = [inlined(stem.with_suffix(".svg").read_bytes(), f"{stem.name}-{cell}") for stem in (alike, mixed)]
    return row, DrawnRouting(cell, *pictures)
