"""Sections of params.yaml are made of these fields.

A number has an upper bound that nobody can mean to pass: a slip of the keyboard is then an error with its line, and no memory
that is full an hour later.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

MAX_TEXT = 4096
"""Characters of a text: a path of Linux has no more."""
MAX_COUNT = 10**9
MAX_WIDTH = 2**16
MAX_SEED = 2**31 - 1

Positive = Annotated[int, Field(gt=0, le=MAX_COUNT)]
NonNegative = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Rate = Annotated[float, Field(gt=0, le=3.4e38)]
"""Of learning, and other factors: up to what fp32 holds, since a training that a rate is too high for says so itself."""
Weight = Annotated[float, Field(ge=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Layers = Annotated[int, Field(gt=0, le=1000)]
Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]
"""Of a layer, of a head, of a rank, of an inventory."""
Shots = Annotated[int, Field(gt=0, le=10**5)]
"""Examples of one task that is adapted to."""
Batch = Annotated[int, Field(gt=0, le=10**6)]
Vocabulary = Annotated[int, Field(gt=0, le=10**7)]
Beams = Annotated[int, Field(gt=0, le=1000)]
Tokens = Annotated[int, Field(gt=0, le=10**5)]


class SettingError(ValueError):
    """A setting does not fit the others of its section; `keys` lead from the section to the one to look at."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


def once(values: list[Any]) -> list[Any]:
    """Refuse a list in which a value occurs twice.

    Raises:
        SettingError: names the value and its place.
    """
    seen: set[Hashable] = set()
    for index, value in enumerate(values):
        key = repr(value)  # 1, 1.0 and true are three values, and a list is one too
        if key in seen:
            raise SettingError(f"{value!r} occurs twice", index)
        seen.add(key)
    return values


Once = AfterValidator(once)
"""Of a list that gives a cell, a file or a trial for each value, where a second of the same would be lost or counted twice."""


def compiles(targets: str) -> str:
    """Refuse what is no regular expression, nor the name of a layout, which is one too.

    Raises:
        ValueError: says why.
    """
    try:
        re.compile(targets)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"neither a layout (full, light, attention) nor a regular expression: {error}") from None
    return targets


Compiles = AfterValidator(compiles)


VARIANT_NAME = re.compile(r"(?![hstx][0-9]+$)[a-z][a-z0-9_]{0,63}")


def is_variant(name: str) -> bool:
    """Whether a name can be that of a variant, which is a part of file names; `plain` can."""
    return VARIANT_NAME.fullmatch(name) is not None


def added(default: Any, description: str) -> Any:  # noqa: ANN401 - the type of any setting
    """Return a setting that came later: it is left out of cards while it is at its default.

    Outputs that were made before the setting existed so stay up to date, for their cards say the same.

    Args:
        default: what was done before there was the setting.
        description: of the setting.
    """
    return Field(default, description=description, exclude_if=lambda value: bool(value == default))


_CLOSED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, str_max_length=MAX_TEXT)


class Closed(BaseModel):
    """A closed model is frozen: an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(**_CLOSED, frozen=True, defer_build=True)


def part_of(section: type[BaseModel], *, lists: bool = False) -> Any:  # noqa: ANN401 - a type
    """Return the type of a dictionary with some of a section's settings, each held to its own type and bounds.

    Args:
        section: the section.
        lists: whether each setting has a list of values, to be tried one after the other.
    """
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind = field.rebuild_annotation()
        fields[name] = Annotated[list[kind], Field(min_length=1, max_length=1000), Once] if lists else kind  # type: ignore[valid-type]
    part = TypedDict(f"{section.__name__}Part", fields, total=False)  # type: ignore[misc]
    part.__pydantic_config__ = _CLOSED  # type: ignore[attr-defined]
    return part
