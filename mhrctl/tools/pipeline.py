"""`mhrctl check` says how a project's dvc.yaml falls short of its params.yaml, and what of both DVC refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.config.params import Params
from mhrctl.config.reading import Document, read_text, read_yaml
from mhrctl.errors import ArtifactError, ParamsError, listed
from mhrctl.projects.pipeline import OPTIONAL_STAGES
from mhrctl.projects.templates import dvc_yaml

DVC_FILE, DVC_FOLDER = "dvc.yaml", ".dvc"
READ, WRITTEN = ("deps", "params"), ("outs", "metrics", "plots")
"""Sections of a stage of dvc.yaml."""


def pipeline_gaps(params: Params, project: Project) -> list[str]:
    """Say how dvc.yaml falls short of params.yaml: `mhrctl init` writes it once, and edits of params.yaml may outgrow it.

    A stage whose command is the user's own is left alone, and so is whatever dvc.yaml has besides.

    Returns:
        One line for whatever a stage reads or writes with these params and does not name, or names and does not write.
    """
    path, stages = project.root / DVC_FILE, pipeline_stages(project)
    if stages is None:
        return []
    wanted = YAML(typ="safe", pure=True).load(dvc_yaml(params))["stages"]
    gaps = [f"has no stage {name}" for name in wanted if name not in stages]
    gaps += [
        f"has the stage {name}, which no setting of params.yaml asks for now: DVC refuses it; take it out"
        for name in OPTIONAL_STAGES
        if name in stages and name not in wanted
    ]
    for name in [name for name in wanted if name in stages and _body(stages[name]).get("cmd") == _body(wanted[name])["cmd"]]:
        has, needs = _named(stages[name]), _named(wanted[name])
        gaps += [f"stage {name} does not name {section} {word}" for section, word in sorted(needs - has)]
        unwritten = sorted((section, word) for section, word in has - needs if section in WRITTEN)
        gaps += [f"stage {name} names {section} {word}, but will not write it" for section, word in unwritten]
    return [f"{path}: {gap}" for gap in gaps]


def pipeline_stages(project: Project) -> Mapping[str, Any] | None:
    """Read the stages of dvc.yaml; None in a project that has none.

    Raises:
        MhrctlError: in one line, if it cannot be read.
    """
    path = project.root / DVC_FILE
    if not path.exists() and not path.is_symlink():
        return None
    tree = read_yaml(path).tree
    stages = tree.get("stages") if isinstance(tree, Mapping) else None
    if not isinstance(stages, Mapping):
        raise ArtifactError(f"{path}: has no stages; `mhrctl init` writes a whole one into a new folder")
    return stages


def pipeline_refusals(document: Document, project: Project) -> list[str]:
    """Say what DVC will refuse of a project, so that it is known before `dvc repro` stops at it.

    Args:
        document: params.yaml as it stands.
        project: the project.

    Returns:
        One line for each key that dvc.yaml names and params.yaml does not have, for a missing `.dvc` and a broken
        configuration; nothing for a project without dvc.yaml.
    """
    stages = pipeline_stages(project)
    if stages is None:
        return []
    missing: dict[str, list[str]] = {}
    for stage, body in stages.items():
        for key in _params_keys(body):
            if not _has(document.tree, key):
                missing.setdefault(key, []).append(str(stage))
    lines = [
        f"{document.path}: has no `{key}`, which stage {listed(names)} of {DVC_FILE} depends on, so DVC refuses it;"
        f" add `{key}:{' null' if key == 'recipe' else ' {}'}`"
        for key, names in missing.items()
    ]
    around = [project.root.resolve(), *project.root.resolve().parents]
    folder = next((each / DVC_FOLDER for each in around if (each / DVC_FOLDER).is_dir()), None)
    if folder is None:
        return [*lines, f"{project.root}: is not under DVC, which refuses {DVC_FILE}; run `dvc init`"]
    return lines + [problem for name in ("config", "config.local") if (problem := _config_problem(folder / name))]


def _config_problem(path: Path) -> str | None:
    if not path.exists() and not path.is_symlink():
        return None
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

    try:
        ConfigObj(read_text(path).splitlines())
    except ConfigObjError as error:
        return f"{path}: DVC cannot read it: {error}"
    except ParamsError as error:
        return str(error)
    return None


def _params_keys(stage: Any) -> list[str]:  # noqa: ANN401 - what YAML holds
    """The keys of params.yaml that a stage of dvc.yaml depends on."""
    keys: list[str] = []
    for item in _list(_body(stage), "params"):
        named = [item] if isinstance(item, str) else _list(item, "params.yaml")
        keys += [str(key) for key in named]
    return keys


def _has(tree: Any, key: str) -> bool:  # noqa: ANN401
    node = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _list(body: Any, key: str) -> list[Any]:  # noqa: ANN401
    items = body.get(key) if isinstance(body, Mapping) else None
    return items if isinstance(items, list) else []


def _body(stage: Any) -> Mapping[str, Any]:  # noqa: ANN401 - what YAML holds
    """A stage of dvc.yaml, for one cell if it has many; empty for what is none."""
    body = stage.get("do", stage) if isinstance(stage, Mapping) else None
    return body if isinstance(body, Mapping) else {}


def _named(stage: Any) -> set[tuple[str, str]]:  # noqa: ANN401
    """What a stage names, such as (outs, data/index) and (params, data/cells/versions.json index)."""
    items = [(section, item) for section in (*READ, *WRITTEN) for item in _list(_body(stage), section)]
    named = {(section, item) for section, item in items if isinstance(item, str)}
    for section, path, more in [(section, *pair) for section, item in items if isinstance(item, dict) for pair in item.items()]:
        named |= {(section, f"{path} {key}") for key in more} if isinstance(more, list) else {(section, path)}
    return named
