"""Templates of a project's files are filled in: those of `files/` that end in `.jinja`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from ruamel.yaml import YAML

from mhrctl.artifacts.inputs import Place
from mhrctl.artifacts.names import CLAIMS, table_file
from mhrctl.config.params import Params
from mhrctl.config.sections import BackboneParams
from mhrctl.config.sources import SOURCES, TOKENIZERS
from mhrctl.config.tasks import FramingName, PrepareParams
from mhrctl.projects.pipeline import (
    OWN,
    PLACES,
    loras_asked,
    optional_stages,
    settings_asked,
    stage_dependencies,
    stage_settings,
)

PLAIN = re.compile(r"[\w.-]+")
"""What a list of YAML may hold without quotes, unless it reads as something else than a string."""
PACKAGE = "mhrctl.projects"
FOLDER = "files"


def template_files() -> Traversable:
    """Return the folder of the templates, and of what is copied as it is."""
    return files(PACKAGE) / FOLDER


def rendered(name: str, **content: Any) -> str:  # noqa: ANN401 - whatever the template reads
    """Fill in a template.

    Args:
        name: of the file, without `.jinja`.
        content: what it reads. The filter `yaml` writes a string so that YAML reads it back as that string.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # which every other command would wait for

    environment = Environment(
        loader=PackageLoader(PACKAGE, FOLDER),
        autoescape=False,  # noqa: S701 - YAML and Markdown, no HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _scalar
    return environment.get_template(f"{name}.jinja").render(**content)


def params_yaml(
    template: str,
    *,
    tasks: str | None,
    tests: Sequence[str] = (),
    backbone: BackboneParams | None,
    framing: FramingName | None = "encoder_decoder",
    chat: bool = False,
    loras: Sequence[str] = (),
) -> str:
    """Return params.yaml of a new project.

    Args:
        template: of a study (`mhrctl.config.sources.Study`).
        tasks: where the user has them; None for the place that the template says.
        tests: the names of test tasks, where nothing else says which they are.
        backbone: the user's, or the study's; None for a small one that is trained in the project.
        framing: that the backbone needs; None if it is not known.
        chat: whether prompts go through the tokenizer's chat template.
        loras: that others trained, of a project of a pool.
    """
    tokenizer = backbone.name if backbone else None
    if backbone and backbone.source == "hub":
        tokenizer = TOKENIZERS.get(str(tokenizer), tokenizer)
    words = {
        "tasks": tasks,
        "tests": _flow(tests),
        "backbone": backbone,
        "tokenizer": tokenizer,
        "framing": framing,
        "chat": chat,
        "loras": loras,
    }
    return rendered(f"{template}.yaml", **words)


def dvc_yaml(params: Params) -> str:
    """Return dvc.yaml, the stages of a project.

    Projects differ in what prepare and backbone read and in the tables of the report; all of that follows from params.yaml.
    """
    backbone = params.backbone.name if params.backbone.source == "local" else None
    users: dict[Place, list[str]] = {
        "sources": task_files(params.prepare),
        "tokenizer": [backbone] if backbone and params.prepare.tokenizer == backbone else [],
        "weights": [backbone] if backbone else [],
        "loras": loras_asked(params),
        "own": [*PLACES["prepare"]] if OWN in settings_asked(params) else [],
    }
    return rendered(
        "dvc.yaml",
        reads=stage_dependencies(users),
        settings=stage_settings(),
        report=[table_file(table) for table in params.report.tables] + [CLAIMS] * params.report.claims,
        optional=optional_stages(params),
    )


def task_files(params: PrepareParams) -> list[str]:
    """Return the files and folders that the source of the tasks reads; what comes from the hub is none."""
    return list(SOURCES[params.source].files(params).values())


def _flow(texts: Sequence[str]) -> str:
    """Strings as a list of YAML in one line; nothing if there are none."""
    plain = [text if PLAIN.fullmatch(text) and _scalar(text) == text else json.dumps(text) for text in texts]
    return f"[{', '.join(plain)}]" if plain else ""


def _scalar(text: str) -> str:
    yaml = YAML()
    yaml.width = 2**16  # one line, however long
    stream = io.StringIO()
    yaml.dump(text, stream)
    return stream.getvalue().splitlines()[0]
