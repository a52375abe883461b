"""Draws docs/architecture.svg: the rooms of mhrctl as boxes, imports between them as arrows.

The order of the rooms is that of the import contract in pyproject.toml, and the arrows are what the sources import now:
`make architecture` draws both anew. Equal sources give equal bytes.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from random import Random

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as MplPath

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mhrctl"
PICTURE = Path(__file__).with_suffix(".svg")

WORDS = {
    "api": "notebooks,\nservices",
    "cli": "options in, one call,\none line out",
    "tools": "commands that are\nno stages",
    "stages": "folders in,\na folder out",
    "report": "ours beside\nthe paper's",
    "analysis": "gradients, routing",
    "evaluation": "answers and scores",
    "training": "losses, optimizers,\nthe loop",
    "models": "the backbone,\nadapters attached",
    "tracking": "recorders",
    "data": "text to batches",
    "suites": "where tasks\ncome from",
    "interchange": "formats of\nother libraries",
    "adapters": "what is trained",
    "running": "DVC's stages\nin parallel",
    "projects": "templates of\nnew projects",
    "artifacts": "names, cards,\nversions",
    "config": "params.yaml,\nmethods, cells",
    "hub": "what is fetched",
    "errors": "what a user\ncan mend",
    "progress": "long work\ngoes on",
    "garbage": "how often it\nis looked for",
}
"""What is in a room, in a few words."""
EVERYWHERE = frozenset({"errors", "garbage", "progress"})
"""Modules at the bottom that any room may import: arrows to them would hide the others."""

Arrow = tuple[str, str]
Node = tuple[str, ...]
"""A room, or the place where an arrow passes a row: (room,), or (source, target, row)."""
WIDTH, HEIGHT, DOWN = 1.62, 0.78, 1.3
"""Of a box, and from one row to the next, in inches."""
STARTS = 40
"""Settlings of the rows that are tried."""


def rooms_in_order(pyproject: Path = ROOT / "pyproject.toml") -> list[str]:
    """The rooms from top to bottom, as the layers of the import contract have them, without those that are not there yet."""
    contracts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    names = [name.strip(" ()").removeprefix("mhrctl.") for layer in layers for name in layer.replace("|", ":").split(":")]
    return [name for name in names if (PACKAGE / name / "__init__.py").is_file() or (PACKAGE / f"{name}.py").is_file()]


def imports(package: Path = PACKAGE) -> set[Arrow]:
    """Which room imports which, wherever in a module the import is."""
    arrows = set()
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            parts = name.split(".")
            if parts[0] == package.name and len(parts) > 1 and parts[1] != room:
                arrows.add((room, parts[1]))
    return arrows


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def direct(arrows: Iterable[Arrow]) -> set[Arrow]:
    """The arrows that no way over other rooms replaces."""
    arrows = set(arrows)
    below: dict[str, set[str]] = {}
    for source, target in arrows:
        below.setdefault(source, set()).add(target)
    return {
        (source, target)
        for source, target in arrows
        if not any(target in _reached(between, below) for between in below[source] - {target})
    }


def _reached(room: str, below: Mapping[str, set[str]]) -> set[str]:
    """The rooms that a room imports, and those that these import, and so on."""
    reached: set[str] = set()
    ahead = [room]
    while ahead:
        new = below.get(ahead.pop(), set()) - reached
        reached |= new
        ahead += new
    return reached


def rows(rooms: Iterable[str], arrows: Iterable[Arrow]) -> list[list[str]]:
    """The rooms in rows from top to bottom: a room is one row above the highest that it imports."""
    height: dict[str, int] = {}
    rooms = list(rooms)
    below = {room: [target for source, target in arrows if source == room] for room in rooms}
    for room in reversed(rooms):
        if above := [target for target in below[room] if target not in height]:
            raise ValueError(f"{room} imports {above[0]}, which is not below it")
        height[room] = max((height[target] + 1 for target in below[room]), default=0)
    top = max(height.values())
    return [[room for room in rooms if height[room] == level] for level in range(top, -1, -1)]


def laned(table: Sequence[Sequence[str]], arrows: Iterable[Arrow]) -> tuple[list[list[Node]], list[list[Node]]]:
    """The rows with a place for each arrow that passes a row on its way, and the nodes of each arrow from top to bottom."""
    level = {room: number for number, row in enumerate(table) for room in row}
    full: list[list[Node]] = [[(room,) for room in row] for row in table]
    ways: list[list[Node]] = []
    for source, target in sorted(arrows):
        between = [(source, target, str(number)) for number in range(level[source] + 1, level[target])]
        for number, node in enumerate(between, level[source] + 1):
            full[number].append(node)
        ways.append([(source,), *between, (target,)])
    return full, ways


def ordered(full: list[list[Node]], ways: Iterable[list[Node]]) -> list[list[Node]]:
    """The rows, each in an order in which few arrows cross: the best of several settlings, which begin with shuffled rows."""
    links = [link for way in ways for link in pairwise(way)]
    shuffle = Random(0).shuffle
    settled = []
    for _ in range(STARTS):
        rows_now = [sorted(row) for row in full]
        for row in rows_now:
            shuffle(row)
        settled.append(_settled(rows_now, links))
    return min(settled, key=lambda rows_now: (_crossings(rows_now, links), rows_now))


def _settled(full: list[list[Node]], links: Sequence[tuple[Node, Node]]) -> list[list[Node]]:
    """Rows put in order in turns, by the middles of what their nodes are linked to; then neighbours swapped where it helps."""
    for _ in range(8):
        for number in [*range(len(full)), *reversed(range(len(full)))]:
            place = {node: at - (len(row) - 1) / 2 for row in full for at, node in enumerate(row)}
            linked = {node: [place[b if a == node else a] for a, b in links if node in (a, b)] for node in full[number]}
            full[number] = sorted(full[number], key=lambda node: (float(np.mean(linked[node])), place[node]))
    fewest = _crossings(full, links)
    for row in full * 2:
        for at in range(len(row) - 1):
            row[at : at + 2] = reversed(row[at : at + 2])
            crossings = _crossings(full, links)
            if crossings < fewest:
                fewest = crossings
            else:
                row[at : at + 2] = reversed(row[at : at + 2])
    return full


def _crossings(full: Sequence[Sequence[Node]], links: Sequence[tuple[Node, Node]]) -> tuple[int, float]:
    """How many arrows cross, and how far they lean."""
    place = {node: (number, at - (len(row) - 1) / 2) for number, row in enumerate(full) for at, node in enumerate(row)}
    ends = [(place[a][0], place[a][1], place[b][1]) for a, b in links]
    crossed = sum(row == other and (a - c) * (b - d) < 0 for (row, a, b), (other, c, d) in combinations(ends, 2))
    return crossed, round(sum((a - b) ** 2 for _, a, b in ends), 6)


def across(full: Sequence[Sequence[Node]], ways: Iterable[list[Node]]) -> dict[Node, float]:
    """Where each node is across, near what it is linked to, as far from its neighbours as both need."""
    linked: dict[Node, list[Node]] = {}
    for above, below in (link for way in ways for link in pairwise(way)):
        linked.setdefault(above, []).append(below)
        linked.setdefault(below, []).append(above)
    x = {node: 1.4 * (place - (len(row) - 1) / 2) for row in full for place, node in enumerate(row)}
    for _ in range(60):
        for row in full:
            wanted = [
                float(np.average([x[other] for other in linked[node]], weights=[_pull(node, other) for other in linked[node]]))
                for node in row
            ]
            apart = [0.0, *np.cumsum([_gap(left, right) for left, right in pairwise(row)])]
            shifted = _rising([want - offset for want, offset in zip(wanted, apart, strict=True)])
            x |= {node: round(start + offset, 4) for node, start, offset in zip(row, shifted, apart, strict=True)}
    return x


def _pull(node: Node, other: Node) -> float:
    """How strongly two linked nodes want to be above each other: an arrow on its way should go straight down."""
    return 4.0 if len(node) > 1 and len(other) > 1 else 1.0


def _gap(left: Node, right: Node) -> float:
    return {2: WIDTH + 0.3, 1: WIDTH / 2 + 0.3, 0: 0.35}[(len(left) == 1) + (len(right) == 1)]


def _rising(values: Sequence[float]) -> list[float]:
    """The nearest values that never fall: neighbours that would are given their mean."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1].extend(last)
    return [float(np.mean(pool)) for pool in pools for _ in pool]


def draw(picture: Path) -> None:
    """Draw the rooms and what they import into a file, whose suffix says in which format."""
    rooms = [room for room in rooms_in_order() if room not in EVERYWHERE]
    arrows = {(source, target) for source, target in imports() if {source, target} <= set(rooms)}
    full, ways = laned(rows(rooms, arrows), direct(arrows))
    full = ordered(full, ways)
    x = across(full, ways)
    y = {node: -number * DOWN for number, row in enumerate(full) for node in row}
    left, right, bottom = min(x.values()) - WIDTH * 0.7, max(x.values()) + WIDTH * 0.7, min(y.values()) - HEIGHT * 0.7
    with mpl.rc_context({"svg.hashsalt": "mhrctl", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(right - left, HEIGHT * 0.7 - bottom))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(left, right), ylim=(bottom, HEIGHT * 0.7))
        axes.set_axis_off()
        for way in ways:
            axes.add_patch(_arrow(way, _points(way, ways, x, y)))
        for room in rooms:
            _box(axes, room, x[(room,)], y[(room,)])
        figure.savefig(picture, metadata={"Date": None, "Creator": None} if picture.suffix == ".svg" else None)


def _points(
    way: list[Node], ways: list[list[Node]], x: Mapping[Node, float], y: Mapping[Node, float]
) -> list[tuple[float, float]]:
    """Where an arrow leaves its box, passes rows, and arrives; arrows of one edge of a box are beside each other."""
    leaving = sorted((x[other[1]], other) for other in ways if other[0] == way[0])
    arriving = sorted((x[other[-2]], other) for other in ways if other[-1] == way[-1])
    first = x[way[0]] + _port([other for _, other in leaving].index(way), len(leaving))
    last = x[way[-1]] + _port([other for _, other in arriving].index(way), len(arriving))
    between = [(x[node], y[node] + side * HEIGHT / 2) for node in way[1:-1] for side in (1, -1)]
    return [(first, y[way[0]] - HEIGHT / 2), *between, (last, y[way[-1]] + HEIGHT / 2)]


def _port(place: int, count: int) -> float:
    return (place - (count - 1) / 2) * min(0.45, WIDTH * 0.8 / count)


def _arrow(way: list[Node], points: list[tuple[float, float]]) -> FancyArrowPatch:
    """Straight past a row, and a curve between rows."""
    corners, codes = [points[0]], [MplPath.MOVETO]
    for (from_x, from_y), (to_x, to_y) in pairwise(points):
        middle = (from_y + to_y) / 2
        corners += [(from_x, middle), (to_x, middle), (to_x, to_y)]
        codes += [MplPath.CURVE4] * 3
    patch = FancyArrowPatch(path=MplPath(corners, codes), arrowstyle="-|>", mutation_scale=11, shrinkA=0, shrinkB=0)
    patch.set(color="#2f4b6e", linewidth=1.2, zorder=2, gid=f"{way[0][0]}-imports-{way[-1][0]}", joinstyle="round")
    return patch


def _box(axes: Axes, room: str, x: float, y: float) -> None:
    box = FancyBboxPatch((x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.1")
    box.set(facecolor="#f3f6fa", edgecolor="#2f4b6e", linewidth=1.1, zorder=3, gid=f"room-{room}")
    axes.add_patch(box)
    axes.text(x, y + 0.2, room, ha="center", va="center", fontsize=11, weight="bold", color="#14273d", zorder=4)
    axes.text(x, y + 0.04, WORDS.get(room, ""), ha="center", va="top", fontsize=8, color="#3c4a5a", zorder=4)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
