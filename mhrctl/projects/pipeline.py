"""The stages of dvc.yaml depend on the table of each stage's inputs, put here in DVC's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhrctl.artifacts.inputs import OPTIONAL, SETTINGS, Place, dependencies
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import LOWERED, local_loras
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import Params

PROJECT = Project(Path())

PIPELINE: Mapping[str, tuple[str, frozenset[Place]]] = {
    "prepare": ("prepare", frozenset()),
    "backbone": ("backbone", frozenset()),
    "pretrain": ("pretrain", frozenset({"start", "under", "pool"})),
    "pretrain-over": ("pretrain", frozenset({"start", "pool", "loras"})),
    "pretrain-pool": ("pretrain", frozenset({"start", "under", "own", "loras"})),
    "average": ("average", frozenset()),
    "pretrain-extra": ("pretrain", frozenset({"under", "pool", "own", "loras"})),
    "index": ("index", frozenset()),
    "adapt": ("adapt", frozenset({"index", "under"})),
    "adapt-over": ("adapt", frozenset({"index"})),
    "adapt-soup": ("adapt", frozenset({"under"})),
    "evaluate": ("evaluate", frozenset({"under"})),
    "evaluate-over": ("evaluate", frozenset()),
    "evaluate-zero-shot": ("evaluate", frozenset({"adapted", "under"})),
    "evaluate-backbone": ("evaluate", frozenset({"start", "adapted", "under"})),
    "report": ("report", frozenset()),
}
"""{stage of dvc.yaml: the command that it runs, and the places of its inputs that its cells do not have}."""

PLACES: Mapping[Place, Sequence[str]] = {
    "prepare": [str(PROJECT.output("prepare"))],
    "backbone": [str(PROJECT.output("backbone"))],
    "pretrain": [str(PROJECT.output("pretrain", "${key}"))],
    "index": [str(PROJECT.output("index"))],
    "start": [str(PROJECT.data / "${item.start}")],
    "adapted": [str(PROJECT.output("adapt", "${key}"))],
    "under": [str(PROJECT.data / "${item.under}")],
    "pool": [str(PROJECT.data / "${item.pool}")],
    "metrics": [str(PROJECT.metrics)],
}
"""{place: its name in dvc.yaml}; `${...}` is of a cell, which `data/cells/index.yaml` lists."""


OPTIONAL_STAGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "pretrain-over": (("pretrain", "under"),),
    "pretrain-pool": (("pretrain", "pool"),),
    "adapt-over": (("pretrain", "under"), ("adapt", "under")),
    "evaluate-over": (("pretrain", "under"), ("adapt", "under"), ("evaluate", "under")),
}
"""{stage of cells that read what their settings name: the settings of which dvc.yaml has it where one is set}."""
OWN = ("pretrain", "test_tasks")
"""The setting by which pre-training reads the test tasks' own examples."""


def optional_stages(params: Params) -> list[str]:
    """Return which of `OPTIONAL_STAGES` a project has: those that any cell may need."""
    asked = settings_asked(params)
    return [stage for stage, settings in OPTIONAL_STAGES.items() if asked & {*settings}]


def settings_asked(params: Params) -> set[tuple[str, str]]:
    """Return the settings by which a stage reads more than all projects' do, as far as any cell may have them."""
    keys = "under", "pool", OWN[1]
    return {(section, key) for section, settings in _of_any_cell(params) for key in keys if settings.get(key)}


def loras_asked(params: Params) -> list[str]:
    """Return the folders and files of LoRAs that any cell may import, as params.yaml names them."""
    named = [each for _, settings in _of_any_cell(params) for each in settings.get("loras", [])]
    return local_loras(list(dict.fromkeys(named)))


def _of_any_cell(params: Params) -> list[tuple[str, Mapping[str, Any]]]:
    """(section, settings) of all that decides what any cell runs with."""
    grid = params.grid
    parts: list[tuple[str, Mapping[str, Any]]] = [(each, vars(getattr(params, each))) for each in LOWERED]
    for part in (*grid.methods.values(), *grid.variants.values(), *grid.overrides.values()):
        parts += [(each, getattr(part, each, {})) for each in LOWERED]
    return parts + [("adapt", axes.search) for axes in grid.methods.values()]


def stage_dependencies(users: Mapping[Place, Sequence[str]]) -> dict[str, list[str]]:
    """Return {stage of dvc.yaml: the files and folders that it depends on}.

    Args:
        users: the places that are the user's own, as params.yaml names them.
    """
    return {
        name: dependencies(stage, {place: paths for place, paths in {**PLACES, **users}.items() if place not in lacking})
        for name, (stage, lacking) in PIPELINE.items()
    }


def stage_settings() -> dict[str, list[str]]:
    """Return {stage of dvc.yaml: the keys of params files that it depends on, each entry as YAML}."""
    return {name: [*_settings(name, stage), f"{PROJECT.stage_versions}: [{stage}]"] for name, (stage, _) in PIPELINE.items()}


def _settings(name: str, stage: str) -> list[str]:
    keys = SETTINGS[stage]
    if name == f"evaluate-{BACKBONE}":  # which is no cell
        return [f"{PROJECT.cell_file(BACKBONE)}: [{', '.join(key for key in keys if key != 'cell')}]"]
    if "cell" in keys:
        return [f"{PROJECT.cell_file('${key}')}: [{', '.join(keys)}]"]
    written = [key for key in keys if key in OPTIONAL]
    return [key for key in keys if key not in OPTIONAL] + (
        [f"{PROJECT.optional_sections}: [{', '.join(written)}]"] if written else []
    )
