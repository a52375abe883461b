"""`mhrctl count`: its table in each form, and what it refuses."""

from __future__ import annotations

import csv

import pytest

from mhrctl.config.methods import METHODS
from tests.cli.conftest import Capture, complaint
from tests.conftest import Run

SMALL = ("count", "--backbone", "t5-small", "--heads", 8)


def test_each_layout_is_a_table(run: Run, capfd: Capture) -> None:
    assert run(*SMALL) == 0
    shown = capfd.readouterr()
    for layout in ("full", "light"):
        assert f"Parameters on t5-small, layout {layout}" in shown.out
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize(("form", "begin"), [("markdown", "**Parameters on"), ("latex", "\\begin{table}"), ("csv", "method,")])
def test_a_table_in_each_form_has_every_method(run: Run, capfd: Capture, form: str, begin: str) -> None:
    assert run(*SMALL, "--layout", "light", "--format", form) == 0
    out = capfd.readouterr().out
    assert out.startswith(begin)
    if form == "csv":
        rows = list(csv.reader(out.splitlines()))
        assert {row[0].removesuffix("-h8") for row in rows[1:] if len(row) > 1} == set(METHODS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--heads", 7], "--heads: 7 heads do not divide layer encoder.block.0"),
        (["--layout", "nothing"], "no linear layer's name matches 'nothing'"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_table(run: Run, capfd: Capture, options: list[object], message: str) -> None:
    capfd.readouterr()
    assert run("count", "--backbone", "t5-small", "--layout", "light", *options) == 2
    shown = capfd.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_second_layout_that_does_not_fit_leaves_the_first_unprinted(run: Run, capfd: Capture) -> None:
    assert run(*SMALL, "--layout", "light", "--layout", "nothing") == 2
    assert capfd.readouterr().out == ""


def test_an_unknown_backbone_is_one_line(run: Run, capfd: Capture) -> None:
    assert run("count", "--backbone", "t5-nano") == 2
    assert "'t5-nano'" in complaint(capfd)
