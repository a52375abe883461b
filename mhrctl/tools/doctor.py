"""`mhrctl doctor` looks at the machine and the installation; what a study needs of them is `mhrctl check`'s.

It computes nothing, asks no network, and imports torch only where there may be a GPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import Settings, load_params
from mhrctl.errors import MhrctlError, counted, listed, nearest
from mhrctl.progress import PROGRESS_SECONDS
from mhrctl.running.forked import FORKSERVER
from mhrctl.tools.estimate import human_size
from mhrctl.tools.grid import differences, expand, named_outputs, out_of_date
from mhrctl.tools.installation import Finding, State, extras, versions
from mhrctl.tools.machine import abilities, devices, storage
from mhrctl.tools.prune import find_leftovers

PREFIX = "MHRCTL_"
INTERNAL = (FORKSERVER, PROGRESS_SECONDS)
"""Variables that no option stands for, and commands of a run are given."""
NETWORK = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
"""Variables that say where things come from."""
Findings = Mapping[str, Sequence[Finding]]
"""{heading: what was looked at}."""


def doctor(folder: Path, variables: Collection[str]) -> Findings:
    """Look at the machine, at what is installed, and at the project if there is one.

    Args:
        folder: of a project, or where one would be made.
        variables: of the environment that options have.
    """
    findings = {
        "versions": list(versions()),
        "only for some commands": list(extras()),
        "devices": list(devices()),
        "storage": list(storage(folder)),
        "what stages rely on": list(abilities(folder)),
        "environment": list(environment({*variables, *INTERNAL})),
    }
    return findings | ({"project": list(project(Project(folder)))} if Project(folder).params.exists() else {})


def is_broken(findings: Findings) -> bool:
    """Return whether anything is there that does not work; what is not there is not broken."""
    return any(each.state is State.BROKEN for group in findings.values() for each in group)


def environment(known: Collection[str]) -> Iterator[Finding]:
    """Look at the variables that commands go by, and at those that look so and are none.

    Args:
        known: mhrctl's variables.
    """
    network = {name: os.environ[name] for name in NETWORK if os.environ.get(name)}
    token = any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    said = listed([f"{name}={_without_password(value)}" for name, value in network.items()]) or "as the libraries have it"
    offline = "nothing is fetched; " if network.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"} else ""
    facts: dict[str, object] = {"variables": {name: _without_password(value) for name, value in network.items()}}
    yield Finding("network", f"{offline}{said}{'; HF_TOKEN is set' if token else ''}", facts={**facts, "has_token": token})
    mine = {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIX)}
    if mine:
        yield Finding("options", listed([f"{name}={value}" for name, value in mine.items()]), facts={"variables": mine})
    for name in mine:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"there are {listed(sorted(known))}"
            yield Finding(name, "is no variable of mhrctl, and has no effect", State.WARNING, hint, {"nearest": close})


def _without_password(value: str) -> str:
    """A proxy's address without who asks it."""
    scheme, _, rest = value.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else value


def project(where: Project) -> Iterator[Finding]:
    """Look at whether a project can be worked on here: its params, its grid, the versions of its stages, what is left over."""
    try:
        settings = load_params(where.params)
    except MhrctlError as error:
        yield Finding("params.yaml", str(error), State.BROKEN, "`mhrctl check` says all that is wrong", {"error": str(error)})
        return
    cells = grid_cells(settings.params)
    yield Finding("params.yaml", f"can be read: {counted(len(cells), 'cell')}", facts={"cells": len(cells)})
    yield from _pipeline(where)
    yield from _grid(settings, where)
    left = find_leftovers(cells, where, named_outputs(settings))
    size = sum(map(left.size, left.cells))
    facts = {"cells": left.cells, "bytes": size}
    if left.cells:
        said = f"{human_size(size)} of {counted(len(left.cells), 'cell')} that the grid has not"
        yield Finding("left over", said, State.WARNING, "`mhrctl grid prune` lists them", facts)
    else:
        yield Finding("left over", "nothing", facts=facts)


def _pipeline(where: Project) -> Iterator[Finding]:
    missing = [name for name in (".dvc", "dvc.yaml") if not (where.root / name).exists()]
    if missing:
        yield Finding(
            "pipeline",
            f"no {listed(missing)}: single commands work, `mhrctl run` does not",
            State.WARNING,
            "`mhrctl init` makes projects with both",
            {"missing": missing},
        )
    else:
        yield Finding("pipeline", "dvc.yaml, under DVC", facts={"missing": []})


def _grid(settings: Settings, where: Project) -> Iterator[Finding]:
    """Whether data/cells is of params.yaml and of this mhrctl."""
    try:
        changes = differences(expand(settings, where), where)
    except MhrctlError as error:
        yield Finding("grid", str(error), State.WARNING, "`mhrctl check` says more", {"error": str(error)})
        return
    raised = _raised(where)
    facts = {"changes": changes, "stages_of_another_version": raised}
    if raised:
        said = f"of another mhrctl: {listed(raised)} would run again"
        yield Finding("grid", said, State.WARNING, "`mhrctl grid sync`, then `mhrctl run`", facts)
    elif changes:
        yield Finding("grid", out_of_date(changes, where), State.WARNING, facts=facts)
    else:
        yield Finding("grid", "up to date", facts=facts)


def _raised(where: Project) -> list[str]:
    """The stages whose version is another than when data/cells was written."""
    try:
        before = json.loads(where.stage_versions.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [
        stage for stage, number in STAGE_VERSIONS.items() if isinstance(before, dict) and before.get(stage, number) != number
    ]
