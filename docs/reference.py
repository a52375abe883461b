"""Writes docs/settings.md and docs/commands.md: what params.yaml may say, and what the command line takes.

Both come from the code (`mhrctl/config/params.py`, `mhrctl/cli/app.py`): `make reference` writes them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from mhrctl.cli.app import app
from mhrctl.cli.help import SHOWING
from mhrctl.config.params import Params

SETTINGS = Path(__file__).with_name("settings.md")
COMMANDS = Path(__file__).with_name("commands.md")

Schema = Mapping[str, Any]

INTRODUCTION = """# Settings

All that `params.yaml` may say, written from the code by `make reference`. `mhrctl check --method NAME` shows what holds for a
cell, and where each value comes from; `--set SECTION.KEY=VALUE` sets one for one command. A wrong key, type or range is named
by file and line, with what is allowed. A setting without a default is required.
"""
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
"""What JSON Schema calls a type, and what a reader does."""
FAR = 10_000
"""An upper bound from here on is there to catch slips of the keyboard: no reader needs to know it."""


def settings() -> str:
    """Return the page of settings, a table a section."""
    schema = Params.model_json_schema(mode="validation")
    parts, seen = [INTRODUCTION], dict[str, str]()
    top = schema["properties"]
    parts.append(_table({name: field for name, field in top.items() if not _section(field, schema)}, schema, schema))
    for name, field in top.items():
        if section := _section(field, schema):
            parts.extend(_sections(name, section, schema, seen))
    return "\n".join(parts)


def _sections(name: str, section: Schema, schema: Schema, seen: dict[str, str]) -> Iterator[str]:
    """The tables of a section and of those within it, but of those that were seen elsewhere."""
    if first := seen.get(section["title"]):
        yield f"## `{name}`\n\nAs `{first}`.\n"
        return
    seen[section["title"]] = name
    inner = {key: part for key, field in section["properties"].items() if (part := _section(field, schema))}
    plain = {key: field for key, field in section["properties"].items() if key not in inner}
    yield f"## `{name}`\n\n{_sentence(section)}\n\n{_table(plain, section, schema)}"
    for key, part in inner.items():
        yield from _sections(f"{name}.{key}", part, schema, seen)


def _section(field: Schema, schema: Schema) -> Schema | None:
    """What a field refers to, if that has settings."""
    options = [option for option in (field, *field.get("anyOf", ()), *field.get("allOf", ())) if "$ref" in option]
    if not options:
        return None
    section: Schema = schema["$defs"][options[0]["$ref"].rpartition("/")[2]]
    return section if "properties" in section and section.get("title", "").endswith("Params") else None


def _table(fields: Schema, section: Schema, schema: Schema) -> str:
    rows = ["| setting | | value | default |", "|---|---|---|---|"]
    required = section.get("required", ())
    for name, field in fields.items():
        default = "" if name in required else f"`{_plain(field.get('default'))}`"
        rows.append(f"| `{name}` | {_cell(field.get('description', ''))} | {_cell(_value(field, schema))} | {_cell(default)} |")
    return "\n".join(rows) + "\n"


def _value(field: Schema, schema: Schema) -> str:
    """What may be said, in words."""
    if "$ref" in field:
        return _value(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_value(option, schema) for option in options))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{_plain(value)}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of: {_value(field['items'], schema)}" if "items" in field else "list"
    if field.get("type") == "object":
        return "keys and values"
    word = WORDS.get(str(field.get("type")), "anything")
    return f"{word}{_bounds(field)}"


def _bounds(field: Schema) -> str:
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    high = None if high is not None and high >= FAR else high
    words = [f"from {_number(low)}" if low is not None else "", f"above {_number(above)}" if above is not None else ""]
    words += [f"to {_number(high)}" if high is not None else "", f"below {_number(below)}" if below is not None else ""]
    return "".join(f" {word}" for word in words if word)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _plain(value: object) -> str:
    """A value as YAML says it."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return json.dumps(value) if isinstance(value, str) and value.split() != [value] else str(value)


def _sentence(section: Schema) -> str:
    """The first paragraph of a section's docstring."""
    return " ".join(str(section.get("description", "")).split("\n\n")[0].split())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def commands() -> str:
    """Return the page of commands, as Typer documents them."""
    command = get_command(app)
    context = typer.Context(command, info_name="mhrctl")
    context.meta[SHOWING] = True  # with the words of the help: `N`, not `<int range>`
    page = get_docs_for_click(obj=command, ctx=context, name="mhrctl")
    lines = [line for line in page.splitlines() if not line.startswith("* `--help`") and "`-h, --help`" not in line]
    head = ["# Commands", "", "Written from the code by `make reference`; `mhrctl COMMAND --help` says the same.", ""]
    return "\n".join([*head, *lines[2:]]).rstrip() + "\n"


def main() -> None:
    """Write both pages."""
    SETTINGS.write_text(settings(), encoding="utf-8")
    COMMANDS.write_text(commands(), encoding="utf-8")


if __name__ == "__main__":
    main()
