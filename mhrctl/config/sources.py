"""The sources of tasks are one literal table, in which a row is the whole of a source.

params.yaml is held to it, provenance, the watch over edited files and dvc.yaml take from it what `mhrctl prepare` reads, and
`mhrctl init` makes a project of it. It imports nothing of mhrctl: what reads tasks is in the module that a row names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

T5_XL = "google/t5-xl-lm-adapt"
PARAGRAPHS = "{definition}\n\n{input}"
"""The prompt of tasks of the user's: what to do, an empty line, and the input."""
Pin = tuple[str, str]
"""A repository of the hub, and its revision."""


class TaskSettings(Protocol):
    """These are the settings of params.yaml that say where tasks come from: those of its section `prepare`."""

    @property
    def source(self) -> str:
        """The name of the source."""

    @property
    def path(self) -> str | None:
        """A folder or file that has the tasks."""

    @property
    def hub(self) -> str | None:
        """A repository of the hub that has them."""

    @property
    def revision(self) -> str:
        """The revision of that repository."""

    @property
    def t0(self) -> Any:  # noqa: ANN401 - settings of one source, which that source reads
        """The settings of source `t0`."""

    @property
    def test(self) -> Any:  # noqa: ANN401
        """A data set of test tasks, of source `hub`."""


@dataclass(frozen=True)
class Study:
    """A study is what a new project begins with: the tasks of a source, on a backbone.

    Attributes:
        title: of its README; empty for the project's name.
        template: its params.yaml is made of `projects/files/<template>.yaml.jinja`; `<template>.md.jinja` there, if there is
            one, says more in the README.
        table: of the paper, to look at first; None for the results of the project alone.
        backbone: on the hub; None for a small one that is trained in the project.
        tokenizer: on the hub, in place of the backbone's; None for the backbone's.
    """

    title: str
    template: str
    table: int | None = None
    backbone: str | None = None
    tokenizer: str | None = None


def _path(params: TaskSettings) -> dict[str, str]:
    return {"tasks": params.path} if params.path else {}


def _hub(params: TaskSettings) -> list[Pin]:
    return [(params.hub, params.revision)] if params.hub else []


def _no_problem(_params: TaskSettings) -> str | None:
    return None


@dataclass(frozen=True)
class Source:
    """A source is where tasks come from.

    Attributes:
        summary: what it is, in a line.
        module: its functions `read` and `check` (`mhrctl.suites.source.SourceModule`).
        studies: what its projects begin with; the first is that of any backbone without one.
        fetch: {folder: shell command that brings it into a project}, kept out of git.
        example: a file or folder beside the templates that is copied into a project whose tasks are not named.
        places: which of `prepare.path` and `prepare.hub` may name its tasks; neither, if it makes them itself.
        needs: what it cannot do without, in words for one who has named no place.
        problem: says what else is wrong with its settings.
        settings: settings of `prepare` that no other source has.
        prompt: the template of its prompts (`mhrctl.data.wording`); None where it words them itself, or puts parts in a line.
        files: {name: file or folder, as params.yaml names it} that it reads.
        hashed: whether these files are hashed, so that an output is up to date until they change; else they are read each time.
        pins: what it reads from the hub, which cannot change if each revision is a commit.
        reads_elsewhere: whether it reads what neither `files` nor `pins` names, so that no output of it is up to date.
        prompts: what of a task its prompts have beside the input: nothing, the definition, or words of the source's own.
    """

    summary: str
    module: str
    studies: tuple[Study, ...]
    fetch: Mapping[str, str] = field(default_factory=dict)
    example: str = ""
    places: tuple[Literal["path", "hub"], ...] = ()
    needs: str = ""
    problem: Callable[[TaskSettings], str | None] = _no_problem
    settings: tuple[str, ...] = ()
    prompt: str | None = None
    files: Callable[[TaskSettings], Mapping[str, str]] = _path
    hashed: bool = True
    pins: Callable[[TaskSettings], Sequence[Pin]] = _hub
    reads_elsewhere: bool = False
    prompts: Literal["input", "definition", "own"] = "definition"

    def study(self, backbone: str | None) -> Study:
        """Return the study of its tasks on a backbone of the hub."""
        return next((study for study in self.studies if study.backbone == backbone), self.studies[0])


def _superni_files(params: TaskSettings) -> dict[str, str]:
    return {name: f"{params.path}/{name}" for name in ("tasks", "splits")} if params.path else {}


def _t0_files(params: TaskSettings) -> dict[str, str]:
    t0 = params.t0
    templates = f"{t0.promptsource}/promptsource/templates" if t0.promptsource else None
    evaluation = None if t0.evaluation == "hub" else t0.evaluation
    files = {"tasks": params.path, "few_shot": t0.few_shot, "templates": templates, "evaluation": evaluation}
    return {name: path for name, path in files.items() if path}


def _t0_problem(params: TaskSettings) -> str | None:
    if not (params.path or params.hub or params.t0.training_few_shot):
        return "source t0 needs `hub` (bigscience/P3), `path`, a folder of its form, or t0.training_few_shot"
    if params.t0.training_few_shot and not params.t0.few_shot:
        return "t0.training_few_shot needs t0.few_shot, the folder of the few-shot sets"
    return None


def _hub_files(params: TaskSettings) -> dict[str, str]:
    test = params.test.path if params.test else None
    return _path(params) | ({"test_tasks": test} if test else {})


def _hub_pins(params: TaskSettings) -> list[Pin]:
    test = params.test
    return _hub(params) + ([(test.hub, test.revision)] if test and test.hub else [])


HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""How a model or a data set is named on the hub: by its name, or its owner and its name."""
SOURCES: dict[str, Source] = {
    "compositional": Source(
        "the embedded suite: compositions of list operations",
        module="mhrctl.suites.compositional",
        studies=(Study("Compositions of list operations", "compositional"),),
        settings=("compositional",),
    ),
    "superni": Source(
        "Super-NaturalInstructions, from a clone of upstream or a mirror on the hub",
        module="mhrctl.suites.superni.source",
        studies=(Study("Super-NaturalInstructions", "superni", table=2, backbone=T5_XL),),
        fetch={"natural-instructions": "git clone --depth 1 https://github.com/allenai/natural-instructions"},
        places=("path", "hub"),
        needs="`path`, a clone of upstream, or `hub`, a mirror",
        files=_superni_files,
        hashed=False,  # gigabytes, of which a part is read
        prompts="own",
    ),
    "t0": Source(
        "T0: P3's training tasks, and the 11 test tasks of its paper",
        module="mhrctl.suites.t0.source",
        prompts="input",
        studies=(
            Study("T0", "t0", table=4, backbone=T5_XL),
            Study("T0 on T0-3B", "t0-3b", table=6, backbone="bigscience/T0_3B", tokenizer=T5_XL),
            Study("T0 on T0-11B", "t0-11b", table=3, backbone="bigscience/T0", tokenizer=T5_XL),
        ),
        fetch={
            "t-few": "git clone https://github.com/r-three/t-few",
            "promptsource": "git clone https://github.com/bigscience-workshop/promptsource",
            "evaluation": "mkdir evaluation    # for storycloze.jsonl",
        },
        places=("path", "hub"),
        problem=_t0_problem,
        files=_t0_files,
        hashed=False,
        reads_elsewhere=True,  # the evaluation splits of the test tasks, each on a repository's main branch
    ),
    "jsonl": Source(
        "tasks of your own, in JSON Lines",
        module="mhrctl.suites.jsonl",
        studies=(Study("", "jsonl"),),
        example="tasks",
        places=("path",),
        needs="`path`, the folder of its tasks",
        prompt=PARAGRAPHS,
    ),
    "hub": Source(
        "any data set of the Hugging Face hub, or a folder or file that `datasets` reads",
        module="mhrctl.suites.hub.source",
        studies=(Study("", "hub"),),
        example="questions.csv",
        places=("path", "hub"),
        needs="`hub`, a data set's id, or `path`, a file or folder that `datasets` reads",
        settings=("config", "columns", "splits", "test", "metric", "max_rows"),
        prompt=PARAGRAPHS,
        files=_hub_files,
        pins=_hub_pins,
        prompts="input",
    ),
}
"""{`prepare.source`: the source}. A new source is a row, the module that it names, and its project's template."""

TOKENIZERS = {
    study.backbone: study.tokenizer
    for source in SOURCES.values()
    for study in source.studies
    if study.backbone and study.tokenizer
}
"""{backbone of the hub: the tokenizer to take}, for those whose own repository has no tokenizer.json."""


def complaint(params: TaskSettings, defaults: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the settings of a source, in a line; None if they fit its row.

    Args:
        params: the settings.
        defaults: {setting: its default}.
    """
    name, source = params.source, SOURCES[params.source]
    for place in ("path", "hub"):
        if getattr(params, place) and place not in source.places:
            mended = "name a folder as `path`" if source.places else "it makes its tasks itself"
            return f"source {name} has no `{place}`; {mended}"
    if params.path and params.hub:
        return "`path` and `hub` both say where the tasks are; leave one out"
    if source.needs and not (params.path or params.hub):
        return f"source {name} needs {source.needs}"
    for other, row in SOURCES.items():
        for setting in row.settings:
            if setting not in source.settings and getattr(params, setting) != defaults[setting]:
                return f"source {name} has no `{setting}`, which is of source {other}; leave it out"
    return source.problem(params)
