"""Hashes beside files that have no card."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.noting import is_noted, note


def test_a_file_is_used_only_as_it_was_noted(tmp_path: Path) -> None:
    file = tmp_path / "tokens.arrow"
    assert not is_noted(file)
    file.write_bytes(b"12")
    assert not is_noted(file)  # killed before the note
    note(file)
    assert is_noted(file)
    file.write_bytes(b"13")
    assert not is_noted(file)
    file.write_bytes(b"1")
    assert not is_noted(file)
    file.write_bytes(b"12")
    (tmp_path / "tokens.arrow.sha256").write_bytes(b"\xff")
    assert not is_noted(file)
