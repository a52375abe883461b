"""Promptsource's templates are read from a checkout of its repository and rendered by its rules (docs/recipe.md, section 1.4).

Its package cannot be depended on: it pins an interface of 2021. Its files are YAML with two tags of its own and jinja
within. Both are read as data: no tag makes an object of a class, and jinja runs in its sandbox.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

from mhrctl.errors import DataError
from mhrctl.suites.reading import describe, one_line, read_text

LONGEST = 2048
"""Characters of a value that a template shows."""
SEPARATOR = "|||"
"""Between input and target, and between answer choices."""
ESCAPED = "\ue000" * 32
"""Stands for the separator within values; as long as promptsource's own stand-in, so that values are cut where it cuts."""
RNG = "\ue000rng"
"""Key under which the filter `choice` finds its generator; no template can spell it."""
FORM = "a checkout of bigscience-workshop/promptsource (git clone --depth 1)"


@dataclass(frozen=True)
class Rendering:
    """A rendering is a record as a template words it.

    Attributes:
        template: its name.
        input: empty where the template does not apply to the record.
        target: empty where the template has none.
        choices: the answer choices, if the template has them.
    """

    template: str
    input: str
    target: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class PromptTemplate:
    """This is a template of a data set.

    Attributes:
        name: unique within the data set.
        jinja: renders input and target, with the separator between them.
        answer_choices: renders the answer choices, if there are any.
        original_task: whether it asks what the data set was made for.
        path: of the file that it was read from.
    """

    name: str
    jinja: str
    answer_choices: str | None
    original_task: bool
    path: Path

    def render(self, record: Mapping[str, Any], rng: random.Random) -> Rendering:
        """Word a record of the template's data set.

        Args:
            record: as the data set has it.
            rng: for templates that choose among wordings.

        Raises:
            DataError: if the record has not what the template shows, or the template is no jinja.
        """
        values: dict[str, Any] = {key: _escape(value) if isinstance(value, str) else value for key, value in record.items()}
        values[RNG] = rng
        try:
            choices = () if self.answer_choices is None else _parts(_compiled(self.answer_choices).render(values))
            values["answer_choices"] = [_escape(choice) for choice in choices] or None
            parts = _parts(_compiled(_cut(self.jinja)).render(values))
        except (
            jinja2.TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise DataError(f"{self.path}: template {self.name!r} does not fit the record: {error}") from None
        return Rendering(self.name, parts[0], parts[1] if len(parts) > 1 else "", choices)


def read_templates(promptsource: Path, folder: str) -> list[PromptTemplate]:
    """Read the templates of a data set.

    Args:
        promptsource: a checkout of its repository, or a folder that holds its `templates/`.
        folder: of the data set below `templates/`, such as `super_glue/rte`.

    Returns:
        All its templates, sorted by name.

    Raises:
        DataError: if there is no such file, or it holds anything but templates.
    """
    homes = [promptsource / "promptsource" / "templates", promptsource / "templates"]
    path = next((home / folder / "templates.yaml" for home in homes if home.is_dir()), None)
    if path is None or not path.is_file():
        raise DataError(f"{path or promptsource / 'templates'}: no such file or folder; give {FORM}")
    try:
        content = _File.model_validate(_yaml().load(read_text(path)))
    except ValidationError as error:
        raise DataError(f"{path}: {describe(error, _File)}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise DataError(
            f"{path}{line}: not promptsource's YAML: {getattr(error, 'problem', None) or one_line(error)}"
        ) from None
    except (RecursionError, ValueError, TypeError) as error:  # of nesting, of numbers and dates that are none, of keys
        raise DataError(f"{path}: not promptsource's YAML: {one_line(error)}; give {FORM}") from None
    templates = [
        PromptTemplate(row.name, row.jinja, row.answer_choices, bool(row.metadata.original_task), path)
        for row in content.templates.values()
    ]
    return sorted(templates, key=lambda template: template.name)


class _Constructor(SafeConstructor):
    """Reads plain YAML and the two tags of promptsource, as mappings; any other tag is an error."""


def _mapping(constructor: SafeConstructor, node: MappingNode) -> dict[Any, Any]:
    return dict(constructor.construct_mapping(node, deep=True))


for _tag in ("!Template", "!TemplateMetadata"):
    _Constructor.add_constructor(_tag, _mapping)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml


class _Upstream(BaseModel):
    """A mapping of promptsource's files; keys that are not used here are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Metadata(_Upstream):
    original_task: bool | None = None


class _Template(_Upstream):
    name: str
    jinja: str
    answer_choices: str | None = None
    metadata: _Metadata


class _File(_Upstream):
    templates: dict[Any, _Template]


def _cut(source: str) -> str:
    """Cut every value that the template shows; the text alone is changed, as promptsource does."""
    return source.replace("}}", f" | string | truncate({LONGEST}) }}}}")


def _escape(value: str) -> str:
    return value.replace(SEPARATOR, ESCAPED)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.replace(ESCAPED, SEPARATOR).strip() for part in text.split(SEPARATOR))


@cache
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@cache
def _environment() -> SandboxedEnvironment:
    """Jinja as promptsource's templates expect it, but that a field which the record lacks is an error, not an empty text."""
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.globals["zip"] = zip
    environment.filters |= {"choice": _choice, "most_frequent": _most_frequent, "highlight": str}
    return environment


@jinja2.pass_context
def _choice(context: Context, items: Sequence[Any]) -> Any:  # noqa: ANN401 - an item of any list
    rng: random.Random = context[RNG]
    return rng.choice(items)


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    """The items that occur most often, in the order in which they first occur."""
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]
