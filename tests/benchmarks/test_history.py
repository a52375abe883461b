"""The table of every release is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import command
from benchmarks.history import keep, releases

ROOT = Path(__file__).parents[2]


def test_every_release_has_its_table() -> None:
    released = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases((ROOT / "benchmarks/history.md").read_text()) == released


def test_the_newest_comes_first_and_none_is_replaced(tmp_path: Path) -> None:
    history = tmp_path / "history.md"
    keep(history, "1.0.0", "| one |")
    (tmp_path / "results.md").write_text("| two |\n\n- a note\n")
    assert command.main(["--keep", "1.1.0", "--out", str(tmp_path)]) == 0
    text = history.read_text()
    assert releases(text) == ["1.1.0", "1.0.0"]
    assert text.index("- a note") < text.index("| one |")
    with pytest.raises(ValueError, match=r"has a table of 1\.0\.0 already"):
        keep(history, "1.0.0", "| three |")
    assert history.read_text() == text
