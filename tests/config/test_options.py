"""Methods' own settings: the types hold them to names and bounds, and what one kind lacks is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from mhrctl.config import options
from mhrctl.config.methods import METHODS
from mhrctl.config.options import AlignedOptions, ElectOptions, NoOptions, RouteOptions, TaskRouteOptions

KINDS = [kind for _, kind in inspect.getmembers(options, inspect.isclass) if issubclass(kind, NoOptions)]


def test_every_type_is_of_a_method_or_of_those_that_share_it() -> None:
    used = {kind for row in METHODS.values() for kind in (*row.options.__mro__, *row.adapt_options.__mro__)}
    assert set(KINDS) <= used


@pytest.mark.parametrize("kind", KINDS)
def test_all_can_be_left_out_and_all_are_described(kind: type[NoOptions]) -> None:
    assert kind() == kind.model_validate({})
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (NoOptions, {"copies": 4}, "Extra inputs are not permitted"),
        (ElectOptions, {"density": 0}, "greater than 0"),
        (AlignedOptions, {"form": "factors"}, "Input should be 'product'"),
        (RouteOptions, {"temperature": 1.0}, "Extra inputs are not permitted"),
        (TaskRouteOptions, {"temperature": 0.0}, "greater than 0"),
    ],
)
def test_what_a_method_cannot_mean_is_refused(kind: type[NoOptions], values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        kind.model_validate(values)
