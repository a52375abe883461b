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
    StoppedError,
    TrackingError,
    counted,
    in_section,
    known,
    listed,
    printable,
    unknown,
)


def test_every_error_is_one_of_ours() -> None:
    assert {ParamsError, DataError, ArtifactError} <= set(MhrctlError.__subclasses__())
    ours = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert set(ours) == {MhrctlError, ParamsError, DataError, ArtifactError, DivergedError, TrackingError, StoppedError}
    assert all(error.__doc__ for error in ours)


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("mhrr", ["lora", "mhr"], "unknown method 'mhrr'; did you mean 'mhr'? (known: lora, mhr)"),
        ("MHR", ["lora", "mhr"], "unknown method 'MHR'; did you mean 'mhr'? (known: lora, mhr)"),
        ("mHrr", [*"abcdefgh", "MHR"], "unknown method 'mHrr'; did you mean 'MHR'?"),
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


def test_a_list_is_cut_where_it_is_told_to_be() -> None:
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mhr_mu h8 [red] :x:", "mhr_mu h8 [red] :x:"),
        ("Zoë 你好 👩\u200d👧 हिन्दी", "Zoë 你好 👩\u200d👧 हिन्दी"),
        ("a\tb\r\nc\u2028d\x85e", "a b  c d e"),
        ("\x1b[2J\x07\x00\x9b", r"\x1b[2J\x07\x00\x9b"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\ud800", r"\ud800"),
    ],
    ids=["plain", "scripts", "white space", "codes of a terminal", "direction", "half a character"],
)
def test_what_a_terminal_would_obey_is_shown_in_its_place(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_can_be_kept() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_a_known_name_is_returned_and_another_rejected() -> None:
    assert known("method", "mhr", ("lora", "mhr")) == "mhr"
    with pytest.raises(ValueError, match=r"^unknown method 'mhrr'; did you mean 'mhr'\? \(known: lora, mhr\)$"):
        known("method", "mhrr", iter(["lora", "mhr"]))


def test_a_number_of_things_is_said_as_one_reads_it() -> None:
    assert [counted(number, "task") for number in (0, 1, 1200)] == ["0 tasks", "1 task", "1,200 tasks"]
