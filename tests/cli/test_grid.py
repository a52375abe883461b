"""`mhrctl grid`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from mhrctl.cli import display
from tests.conftest import Run

Capture = pytest.CaptureFixture[str]


def test_sync_names_what_changed_but_not_hundreds(project: Path, run: Run, capfd: Capture) -> None:
    assert run("grid", "sync", "-C", project) == 0
    assert "9 files written" in capfd.readouterr().err
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", f"seeds: {list(range(40))}"))
    assert run("grid", "sync", "--check", "-C", project) == 2
    said = capfd.readouterr().err
    assert "and 176 more" in said  # 39 seeds of five cells and the index, less the 20 that are named
    assert "params.yaml has changed (196 files); run `mhrctl grid sync`" in said
    assert len(said.splitlines()) == 22


def test_prune_lists_before_it_removes(copy: Path, run: Run, capfd: Capture) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("    poly:\n", ""))
    assert run("grid", "prune", "-C", copy) == 2
    assert "run `mhrctl grid sync`" in capfd.readouterr().err
    assert run("grid", "sync", "-C", copy) == 0
    assert "outputs of 1 cell that the grid has not; `mhrctl grid prune` lists them" in capfd.readouterr().err
    assert run("grid", "prune", "--yes", "-C", copy) == 0
    said = capfd.readouterr().err
    assert "poly-s0: imported or made by hand, and not in DVC's cache; kept, unless --also-by-hand\nnothing to prune\n" in said
    assert run("grid", "prune", "--also-by-hand", "-C", copy) == 0
    both = capfd.readouterr()
    assert re.fullmatch(r"poly-s0 +[\d.]+ kB  pretrain, .*metrics.*\n", both.out)
    assert "of 1 cell; `mhrctl grid prune --also-by-hand --yes` removes them" in both.err
    assert run("grid", "prune", "--also-by-hand", "--verbose", "-C", copy) == 0
    assert "  pretrain/poly-s0\n" in capfd.readouterr().out
    assert (copy / "data/pretrain/poly-s0/card.json").exists()
    assert run("grid", "prune", "--also-by-hand", "--yes", "-C", copy) == 0
    assert not list(copy.glob("data/**/*poly-s0*"))
    capfd.readouterr()
    assert run("grid", "prune", "--yes", "-C", copy) == 0
    assert "nothing to prune" in capfd.readouterr().err
    assert run("report", "-C", copy) == 0


@pytest.mark.parametrize(("answer", "is_removed"), [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("", False)])
def test_a_terminal_is_asked_before_anything_goes(
    copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch, answer: str, *, is_removed: bool
) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("    poly:\n", ""))
    assert run("grid", "sync", "-C", copy) == 0
    monkeypatch.setattr(display, "can_ask", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    capfd.readouterr()
    assert run("grid", "prune", "--also-by-hand", "-C", copy) == 0
    shown = capfd.readouterr()
    assert re.match(r"poly-s0 +[\d.]+ kB  pretrain, ", shown.out)
    assert re.match(r"[\d.]+ kB of 1 cell: remove them\? \[y/N\] ", shown.err)
    assert ("1 cell removed" in shown.err) == is_removed
    assert bool(list(copy.glob("data/**/*poly-s0*"))) != is_removed


def test_nobody_is_asked_whether_to_prune_nothing(
    copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "can_ask", lambda: True)
    assert run("grid", "sync", "-C", copy) == 0
    capfd.readouterr()
    assert run("grid", "prune", "-C", copy) == 0
    assert capfd.readouterr().err == "nothing to prune\n"
