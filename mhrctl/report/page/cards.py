"""Cards say what every output was made with: the settings that are no defaults, and where outputs come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mhrctl.artifacts.names import CARD
from mhrctl.config.params import Params
from mhrctl.errors import counted, listed
from mhrctl.report.logs import label_of
from mhrctl.report.results import MISSING
from mhrctl.report.table import Table

STAGES = ("prepare", "backbone", "index", "pretrain", "average", "adapt", "evaluate")
SECTIONS = ("prepare", "backbone", "index", "pretrain", "adapt", "evaluate")
"""Stages that have a section of params.yaml with their name."""
BESIDE_OTHERS = ("pretrain", "adapt", "evaluate")
"""Stages whose cards have the section beside others."""
SEAL = 12
"""Digits of a card's hash that are shown."""


@dataclass(frozen=True)
class ShownCard:
    """This is a card as lines of `key: value`."""

    name: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Setting:
    """A setting has a value that is not its default, in some cells at least.

    Attributes:
        name: such as `adapt.lr`.
        values: one, or several with the cells that have them, the most common first.
        default: what it is if nothing is said; MISSING where something must be.
        description: what it is.
    """

    name: str
    values: Sequence[str]
    default: str
    description: str


def read_cards(data: Path) -> dict[str, Any]:
    """Read the cards of all output folders, by name, in the order of the stages; what is no card is empty."""
    cards: dict[str, Any] = {}
    for stage in STAGES:
        for file in [data / stage / CARD, *sorted((data / stage).glob(f"[!.]*/{CARD}"))]:
            if file.exists():
                cards[file.parent.relative_to(data).as_posix()] = _read(file)
    return cards


def _read(file: Path) -> Any:  # noqa: ANN401 - JSON is any tree
    try:
        card = json.loads(file.read_bytes())
    except ValueError:
        return {}
    return card if isinstance(card, dict) else {}


def shown_cards(cards: Mapping[str, Any]) -> list[ShownCard]:
    """Lay out whole cards; one that is none says so."""
    none = [f"{CARD}: not a card; remove the folder and run its stage again"]
    return [ShownCard(name, list(flat(card)) or none) for name, card in cards.items()]


def flat(value: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON is any tree
    """Flatten a tree into lines of `key: value`."""
    return (f"{name}: {text}" for name, text in _leaves(value, key))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON is any tree
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        yield key, ", ".join(item if isinstance(item, str) else json.dumps(item) for item in value)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)


def changed_settings(cards: Mapping[str, Any]) -> list[Setting]:
    """List what outputs were made with that is not a default, in the order of params.yaml."""
    by_name: dict[str, dict[str, list[str]]] = {}
    for output, card in cards.items():
        stage, _, cell = output.partition("/")
        params = card.get("params")
        section = params.get(stage, {}) if stage in BESIDE_OTHERS and isinstance(params, dict) else params
        if stage in SECTIONS and isinstance(section, dict):
            for name, value in _leaves(section, stage):
                by_name.setdefault(name, {}).setdefault(value, []).append(label_of(cell) if cell else stage)
    known = {name: rest for section in SECTIONS for name, *rest in _defaults(Params.model_fields[section].annotation, section)}
    order = list(known)
    settings = []
    for name in sorted(by_name, key=lambda name: order.index(name) if name in known else len(order)):
        default, description = known.get(name, (MISSING, ""))
        if set(by_name[name]) != {default}:
            settings.append(Setting(name, _values(by_name[name]), default, description))
    return settings


def _values(cells: Mapping[str, Sequence[str]]) -> list[str]:
    """The value of all, or each value with whose it is."""
    if len(cells) == 1:
        return list(cells)
    common = sorted(cells, key=lambda value: -len(cells[value]))
    return [common[0], *(f"{value} ({listed(list(dict.fromkeys(cells[value])))})" for value in common[1:])]


def _defaults(section: Any, key: str) -> Iterator[tuple[str, str, str]]:  # noqa: ANN401 - a type
    """(name, default, description) of each setting of a section, and of the sections in it."""
    for name, field in section.model_fields.items():
        place, description = f"{key}.{name}", field.description or ""
        value = MISSING if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _defaults(type(value), place)
        elif field.is_required():
            yield place, MISSING, description
        else:
            yield from ((leaf, text, description) for leaf, text in _leaves(value, place))


def provenance_table(cards: Mapping[str, Any]) -> Table:
    """Say of each output by which version of its stage it was made, and of all of them with which libraries."""
    libraries: dict[str, list[str]] = {}
    rows = []
    for name, card in cards.items():
        if not card:
            continue
        made = card.get("libraries")
        if isinstance(made, dict):
            libraries.setdefault(", ".join(f"{library} {version}" for library, version in made.items()), []).append(name)
        version, threads, seal = (card.get(key) for key in ("version", "threads", "seal"))
        shown = [MISSING if each is None else str(each) for each in (version, threads, seal)]
        rows.append([name, *shown[:2], shown[2][:SEAL]])
    notes = [f"{counted(len(names), 'output')}: {text}." for text, names in libraries.items()]
    return Table("Outputs", ("output", "version\nof its stage", "CPU\nthreads", "hash of\nits card"), rows, notes)
