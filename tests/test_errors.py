"""The errors that a user can mend, and how they name what there is."""

from __future__ import annotations

import pytest

from mhrctl import errors
from mhrctl.errors import (
    SHOWN,
    ArtifactError,
    DataError,
    DivergedError,
    MhrctlError,
    ParamsError,
    TrackingError,
    in_section,
    unknown,
)


def test_every_error_is_one_of_ours() -> None:
    assert {ParamsError, DataError, ArtifactError} <= set(MhrctlError.__subclasses__())
    ours = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert set(ours) == {MhrctlError, ParamsError, DataError, ArtifactError, DivergedError, TrackingError}
    assert all(error.__doc__ for error in ours)


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("mhrr", ["lora", "mhr"], "unknown method 'mhrr'; did you mean 'mhr'? (known: lora, mhr)"),
        ("x", ["lora"], "unknown method 'x' (known: lora)"),
        ("x", [], "unknown method 'x' (known: )"),
    ],
)
def test_an_unknown_name_is_rejected_with_the_known_ones(name: str, known: list[str], said: str) -> None:
    assert unknown("method", name, known) == said


def test_of_many_known_names_the_first_are_listed() -> None:
    said = unknown("task", "x", (f"task{number}" for number in range(SHOWN + 3)))
    assert said.endswith(f"task{SHOWN - 1} and 3 more)")
    assert f"task{SHOWN}," not in said


def test_a_section_is_put_before_what_the_library_names() -> None:
    with pytest.raises(DataError, match=r"^prepare\.tokenizer 'x': cannot be loaded$") as raised, in_section("prepare"):
        raise DataError("tokenizer 'x': cannot be loaded")
    assert isinstance(raised.value.__cause__, DataError)
    with pytest.raises(KeyError), in_section("prepare"):  # a bug of ours stays as it is
        raise KeyError("x")
