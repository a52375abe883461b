"""A wording is a template that puts what a task says and an input into a prompt, where its source has no prompt of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

BETWEEN = "\n\n"
"""Stands between the parts of what a task says: its name, its definition, worked examples."""
_FIELD = re.compile(r"\{(definition|input)\}")


def filled(template: str, says: str) -> Callable[[str], str]:
    """Return what makes a prompt of an input.

    Args:
        template: with `{input}`, and `{definition}` for what the task says.
        says: that; where it is empty, `{definition}` goes with all that belongs to it.
    """
    wanted = template if says else _without_definition(template)
    return lambda text: _FIELD.sub(lambda field: says if field[1] == "definition" else text, wanted)


def _without_definition(template: str) -> str:
    """A template for a task that says nothing: its lines of the definition go, or what leads from it to an input beside it."""
    lines = []
    for line in template.split("\n"):
        before, field, after = line.partition("{definition}")
        if not field:
            lines.append(line)
        elif "{input}" in after:
            lines.append(before + after[after.index("{input}") :])
        elif "{input}" in before:
            lines.append(before.rstrip() + after)
    return "\n".join(lines).strip("\n")
