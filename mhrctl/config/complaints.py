"""What pydantic says is wrong with settings becomes one line: the setting, what is wrong, and what is allowed."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from mhrctl.config.fields import SettingError
from mhrctl.config.reading import Place, shown
from mhrctl.errors import unknown

_OF_PYDANTIC = re.compile(r"\[key\]|(constrained-)?str|(list|dict|function-[a-z]+)\[.*\]")
"""Parts of a location that are no keys: which type of several was tried."""


def complaint(error: ValidationError, model: type[BaseModel], *, at: Place = ()) -> tuple[Place, str]:
    """Return the setting that the first error of a validation is about, and what is wrong with it.

    Args:
        error: of the validation.
        model: that was validated.
        at: where in its file the model stands.
    """
    errors = _typos_first(error.errors(include_url=False))
    loc = _keys(errors[0]["loc"])
    # Where one of several types is allowed, that which the value has says what is wrong with it.
    same = [each for each in errors if _keys(each["loc"])[: len(loc)] == loc]
    first = next((each for each in same if not each["type"].endswith("_type")), errors[0])
    loc = _keys(first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        return (*at, *loc), unknown("key", name(loc[-1:]), known) if known else f"unknown key {shown(str(loc[-1]))}"
    if first["type"] == "missing":
        return (*at, *loc), "is missing"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return (*at, *loc, *cause.keys), str(cause)
    if first["type"] == "value_error":
        return (*at, *loc), first["msg"].removeprefix("Value error, ")
    return (*at, *loc), f"{first['msg']} (got {shown(first['input'])})"


def _typos_first(errors: Sequence[Any]) -> Sequence[Any]:
    """Errors with an unknown key before a missing one, which it may be meant for: most of all in the same section."""
    if errors[0]["type"] != "missing":
        return errors
    section = errors[0]["loc"][:-1]
    return sorted(errors, key=lambda each: (each["type"] != "extra_forbidden", each["loc"][:-1] != section))


def name(place: Sequence[Any]) -> str:
    """Return a setting as it is spoken of: `pretrain.lr`."""
    return ".".join(shown(part)[1:-1] if isinstance(part, str) else str(part) for part in place)


def _keys(loc: Sequence[Any]) -> Place:
    return tuple(part for part in loc if not (isinstance(part, str) and _OF_PYDANTIC.fullmatch(part)))


def _known_keys(model: Any, place: Place) -> list[str]:  # noqa: ANN401 - any type
    kind = model
    for part in place:
        kind = _inside(_plain(kind), part)
    return list(_fields(_plain(kind)))


def _plain(kind: Any) -> Any:  # noqa: ANN401
    """A type without what it is annotated with, and without None."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return next((each for each in map(_plain, get_args(kind)) if _fields(each)), None)
    return kind


def _fields(kind: Any) -> dict[str, Any]:  # noqa: ANN401
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {key: each.annotation for key, each in kind.model_fields.items()}
    return dict(kind.__annotations__) if is_typeddict(kind) else {}


def _inside(kind: Any, part: Any) -> Any:  # noqa: ANN401
    if get_origin(kind) in (dict, list):
        return get_args(kind)[-1]
    return _fields(kind).get(part)
