"""Rows, their gates, and the files of results."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from benchmarks.results import Measured, Row, entry, environment, write
from benchmarks.timing import Ratio


def row(value: float, *, more: bool = False) -> Row:
    low, high = (3.0, 2.0) if more else (2.0, 3.0)
    return Row("a / b", Ratio(value, value, value), gate=high, aim=low, more_is_better=more)


@pytest.mark.parametrize(
    ("value", "less", "more"), [(1.5, "aim", "missed"), (2.0, "aim", "gate"), (2.5, "gate", "gate"), (3.1, "missed", "aim")]
)
def test_gates_are_limits_from_the_right_side(value: float, less: str, more: str) -> None:
    assert row(value).met == less
    assert row(value, more=True).met == more
    assert Row("a / b", Ratio(value, value, value)).met == ""


def test_measurements_are_replaced_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    where = environment({"A": "1"})
    first = Measured([Row("a / b", Ratio(0.5, 0.4, 0.6), 0.8, 0.4)], {"a": 12.5}, ["seen once"])
    write(file, {"one": entry(first, where, quick=False, seconds=1.4), "two": entry(first, where, quick=True, seconds=0)})
    write(file, {"one": entry(Measured([row(7, more=True)]), where, quick=False, seconds=2)})
    written = json.loads(file.read_text())
    assert list(written) == ["one", "two"]
    assert written["one"]["rows"][0]["value"]["median"] == 7
    assert written["two"]["rows"][0] == {
        "what": "a / b",
        "value": {"median": 0.5, "low": 0.4, "high": 0.6},
        "gate": 0.8,
        "aim": 0.4,
        "more_is_better": False,
        "met": "gate",
    }
    assert written["two"]["figures"] == {"a": 12.5}
    table = file.with_suffix(".md").read_text().splitlines()
    assert "| a / b | 7.00 |  | ≥ 2.00 | ≥ 3.00 | aim |" in table
    assert "| a / b | 0.50 | 0.40 to 0.60 | ≤ 0.80 | ≤ 0.40 | gate |" in table
    assert "| **two** (quick) | | | | | |" in table
    assert "- two: seen once" in table
    assert sum("torch" in line for line in table) == 1


def test_the_environment_tells_no_paths_and_no_machine() -> None:
    text = json.dumps(environment({"OMP_NUM_THREADS": "1"}))
    assert '"torch"' in text
    assert '"OMP_NUM_THREADS": "1"' in text
    assert str(Path.cwd()) not in text
    assert socket.gethostname() not in text
