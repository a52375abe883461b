"""params.yaml files with one value made wrong: what is read must come out as params, or as one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.errors import MhrctlError, ParamsError

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "params.yaml", *sorted((ROOT / "pipelines").glob("*/params.yaml")))
"""The params files of this repository."""
BAD = (
    *(
        ".nan",
        ".inf",
        "-.inf",
        "1e400",
        "-1",
        "0",
        "0.5",
        "1000000000000",
        "1" + "0" * 23,
        "9" * 5000,
        "2001-99-99",
        "2001-01-01",
    ),
    *(
        '""',
        "''",
        "x",
        '"' + "x" * 100_000 + '"',
        "../x",
        "/etc/passwd",
        "-x",
        ".x",
        '"a\\0b"',
        '"\\ud800"',
        '"\\e[31m"',
        "größe",
    ),
    *("[]", "{}", "null", "true", "yes", "[1, 2]", "[x, x]", "[[[[1]]]]", "{x: 1}", "{1: 2}", "[null]", "[" * 200 + "]" * 200),
    *("!!binary aGk=", "!!python/object:os.system {}", "&a [*a]", "*nothing", "(a+)+$", "'['", "{<<: 1}", "= ", "@", "%"),
)
"""YAML of values that somebody may write by a slip, or to break something; some are right in some places."""
MOST_CELLS = 200
"""So many cells of a file are resolved."""
_HERE = "@here@"

Place = tuple[Any, ...]


def places(tree: Any, place: Place = ()) -> Iterator[Place]:
    """Go through every key and item of a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def mutations(path: Path) -> Iterator[tuple[str, str]]:
    """Make texts of a params file in each of which one value is a bad one, or one key is another.

    Yields:
        What was done, and the text.
    """
    tree = YAML(typ="safe", pure=True).load(path)
    for place in places(tree):
        text = json.dumps(_with(tree, place, _HERE))
        for bad in BAD:
            yield f"{'.'.join(map(str, place))} = {bad[:20]}", text.replace(f'"{_HERE}"', bad)
        if isinstance(place[-1], str):
            yield (
                f"{'.'.join(map(str, place))} as a key that is unknown",
                json.dumps(tree).replace(f'"{place[-1]}":', '"../x":'),
            )


def complaint_of(call: Callable[[], object], kind: type[MhrctlError] = ParamsError) -> str | None:
    """Return what a call is refused with, or None; an exception of another kind is let through."""
    try:
        call()
    except kind as error:
        return str(error)
    return None


def resolve_all(path: Path) -> None:
    """Read a params file and resolve its cells."""
    settings = load_params(path)
    for cell in grid_cells(settings.params)[:MOST_CELLS]:
        resolve_cell(settings, cell)


def _with(tree: Any, place: Place, value: Any) -> Any:
    """A tree in which one value is another."""
    if not place:
        return value
    key, *rest = place
    if isinstance(tree, dict):
        return {each: _with(old, tuple(rest), value) if each == key else old for each, old in tree.items()}
    return [_with(old, tuple(rest), value) if index == key else old for index, old in enumerate(tree)]
