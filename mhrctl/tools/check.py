"""`mhrctl check` proves before anything runs that the files which params.yaml names are there and look right.

Nothing is fetched, and nothing large is read: what needs either is said to be unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mhrctl.artifacts.cards import facts_in
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import TASKS, Project
from mhrctl.artifacts.reading import read_json_of
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.tasks import TRAINED_TOKENIZERS, PrepareParams
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.projects.templates import dvc_yaml
from mhrctl.suites.reading import require_folder
from mhrctl.suites.source import source_module
from mhrctl.suites.task import Seen, TaskCounts

READ, WRITTEN = ("deps", "params"), ("outs", "metrics", "plots")
"""Sections of a stage of dvc.yaml."""


def check_suite(params: Params, project: Project) -> Seen:
    """Look at the files of tasks.

    Raises:
        DataError: naming what is missing or malformed, and the setting.
    """
    root, tokenizer = project.root, params.prepare.tokenizer
    seen = source_module(params.prepare.source).check(params, root, metrics=OVER_CHOICES)
    encoder = params.index.encoder
    if any(METHODS[name].needs_index for name in params.grid.methods) and encoder.startswith((".", "/")):
        require_folder(root / encoder, "index.encoder")  # any other name may be one of the hub
    unchecked = seen.unchecked
    if tokenizer not in TRAINED_TOKENIZERS and not (root / tokenizer).is_dir():
        unchecked += (f"prepare.tokenizer {tokenizer} on the hub",)
    return Seen(prepared_tasks(project) or seen.tasks, unchecked)


def prepared_tasks(project: Project) -> TaskCounts | None:
    """Return the tasks that the prepare stage has written, if it ran."""
    path = project.output("prepare") / TASKS
    if not path.exists():
        return None
    rows = read_json_of(path)["tasks"]
    training = [row for row in rows if row["role"] == "training"]
    return TaskCounts(len(training), len({row["dataset"] for row in training}), sum(row["role"] == "test" for row in rows))


def vocab_size(params: PrepareParams, project: Project) -> int:
    """Return how many entries the tokenizer has, or has at most if prepare has not run."""
    facts = facts_in(project.output("prepare"), PrepareFacts)
    return facts.vocab_size if facts else params.vocab_size


def pipeline_gaps(params: Params, project: Project) -> list[str]:
    """Say how dvc.yaml falls short of params.yaml: `mhrctl init` writes it once, and edits of params.yaml may outgrow it.

    A stage whose command is the user's own is left alone, and so is whatever dvc.yaml has besides.

    Returns:
        One line for whatever a stage reads or writes with these params and does not name, or names and does not write.
    """
    path, yaml = project.root / "dvc.yaml", YAML(typ="safe", pure=True)
    if not path.exists():
        return []
    try:
        stages = yaml.load(path)["stages"]
    except (MarkedYAMLError, LookupError, TypeError):
        return [f"{path}: no stages can be read from it; `dvc status` says why"]
    wanted = yaml.load(dvc_yaml(params))["stages"]
    gaps = [f"has no stage {name}" for name in wanted if name not in stages]
    for name in [name for name in wanted if name in stages and _body(stages[name]).get("cmd") == _body(wanted[name])["cmd"]]:
        has, needs = _named(stages[name]), _named(wanted[name])
        gaps += [f"stage {name} does not name {section} {word}" for section, word in sorted(needs - has)]
        unwritten = sorted((section, word) for section, word in has - needs if section in WRITTEN)
        gaps += [f"stage {name} names {section} {word}, but will not write it" for section, word in unwritten]
    return [f"{path}: {gap}" for gap in gaps]


def _body(stage: Any) -> Mapping[str, Any]:  # noqa: ANN401 - what YAML holds
    """A stage of dvc.yaml, for one cell if it has many; empty for what is none."""
    body = stage.get("do", stage) if isinstance(stage, Mapping) else None
    return body if isinstance(body, Mapping) else {}


def _named(stage: Any) -> set[tuple[str, str]]:  # noqa: ANN401
    """What a stage names, such as (outs, data/index) and (params, data/cells/versions.json index)."""
    items = [(section, item) for section in (*READ, *WRITTEN) for item in _body(stage).get(section, [])]
    named = {(section, item) for section, item in items if isinstance(item, str)}
    for section, path, more in [(section, *pair) for section, item in items if isinstance(item, dict) for pair in item.items()]:
        named |= {(section, f"{path} {key}") for key in more} if isinstance(more, list) else {(section, path)}
    return named
