"""The fields that sections of params.yaml are made of."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from mhrctl.config.fields import (
    MAX_SEED,
    MAX_TEXT,
    Closed,
    Fraction,
    NonNegative,
    Positive,
    Rate,
    Seed,
    SettingError,
    Weight,
    Width,
    added,
    once,
    part_of,
)


class Section(Closed):
    """A section with one field of each type, and one that came later."""

    count: Positive = 1
    least: NonNegative = 0
    rate: Rate = 1.0
    weight: Weight = 0.0
    part: Fraction = 0.5
    seed: Seed = 0
    width: Width = 1
    text: str = ""
    names: list[str] = added([], "of a test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 0),
        ("least", -1),
        ("rate", 0.0),
        ("weight", -0.1),
        ("part", 1.01),
        ("part", -0.01),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("count", "1"),
        ("count", 1.5),
        ("more", 1),
        ("count", 10**9 + 1),
        ("count", 10**23),
        ("least", 10**12),
        ("rate", float("inf")),
        ("rate", float("nan")),
        ("weight", 1e10),
        ("part", float("nan")),
        ("width", 2**16 + 1),
        ("text", "x" * (MAX_TEXT + 1)),
    ],
)
def test_what_is_out_of_range_or_of_another_type_is_rejected(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as error:
        Section.model_validate({key: value})
    assert error.value.errors()[0]["loc"] == (key,)


def test_the_ends_of_ranges_are_within() -> None:
    ends = {"count": 1, "least": 0, "weight": 0.0, "part": 1.0, "seed": MAX_SEED}
    assert Section.model_validate(ends).model_dump() == {**ends, "rate": 1.0, "width": 1, "text": ""}


def test_a_section_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Section().count = 2  # type: ignore[misc]


def test_a_setting_that_came_later_is_dumped_once_it_is_set() -> None:
    assert "names" not in Section().model_dump()
    assert "names" not in Section(names=[]).model_dump()
    assert Section(names=["a"]).model_dump()["names"] == ["a"]
    assert Section.model_fields["names"].description == "of a test"


def test_a_value_occurs_once() -> None:
    assert once([1, 1.0, True, [1], [2]]) == [1, 1.0, True, [1], [2]]
    with pytest.raises(SettingError, match="'a' occurs twice") as error:
        once(["a", "b", "a"])
    assert error.value.keys == (2,)


def test_a_part_of_a_section_is_held_to_its_types() -> None:
    part, lists = TypeAdapter(part_of(Section)), TypeAdapter(part_of(Section, lists=True))
    assert part.validate_python({"count": 3, "names": []}) == {"count": 3, "names": []}
    assert lists.validate_python({"count": [3, 4]}) == {"count": [3, 4]}
    for adapter, values in ((part, {"count": 0}), (part, {"more": 1}), (part, {"rate": float("nan")}), (lists, {"count": []})):
        with pytest.raises(ValidationError):
            adapter.validate_python(values)
    with pytest.raises(ValidationError, match="4 occurs twice"):
        lists.validate_python({"count": [4, 4]})
