"""Sections of params.yaml are made of these fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]


NonNegative = Annotated[int, Field(ge=0)]


Rate = Annotated[float, Field(gt=0)]


MAX_SEED = 2**31 - 1


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


Weight = Annotated[float, Field(ge=0)]


Fraction = Annotated[float, Field(ge=0, le=1)]


def added(default: Any, description: str) -> Any:  # noqa: ANN401 - the type of any setting
    """Return a setting that came later: it is left out of cards while it is at its default.

    Outputs that were made before the setting existed so stay up to date, for their cards say the same.

    Args:
        default: what was done before there was the setting.
        description: of the setting.
    """
    return Field(default, description=description, exclude_if=lambda value: bool(value == default))


class Closed(BaseModel):
    """A closed model is frozen: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
