"""Inputs that are edited while a stage runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mhrctl.artifacts.watching import SMALL, require_unedited, unedited
from mhrctl.errors import ArtifactError


def test_an_edited_file_is_named_in_the_block_and_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    with (
        pytest.raises(ArtifactError, match=rf"{tmp_path / 'a'} was edited during the run"),
        unedited(lambda: 1, tmp_path / "a"),
    ):
        (tmp_path / "a").write_text("2")
        with pytest.raises(ArtifactError, match="run it again"):
            require_unedited()
    require_unedited()  # the block is over


@pytest.mark.parametrize("edit", ["new", "gone", "changed"])
def test_a_folder_is_watched_with_all_its_files(tmp_path: Path, edit: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_text("1")
    with pytest.raises(ArtifactError, match="was edited"), unedited(lambda: None, tmp_path):
        if edit == "gone":
            (tmp_path / "sub/a").unlink()
        else:
            (tmp_path / "sub" / {"new": "b", "changed": "a"}[edit]).write_text("2")


def test_other_settings_are_an_edit(tmp_path: Path) -> None:
    settings = {"lr": 1}
    with pytest.raises(ArtifactError, match="its settings were edited"), unedited(lambda: dict(settings), tmp_path):
        settings["lr"] = 2


def test_a_small_file_of_the_same_content_is_not_edited_and_a_large_one_goes_by_size_and_time(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(b"1" * (SMALL + 1))
    with unedited(lambda: None, small, large, tmp_path / "none"):
        os.utime(small, (1, 1))
    with pytest.raises(ArtifactError, match="large was edited"), unedited(lambda: None, small, large):
        os.utime(large, (1, 1))


def test_a_file_that_appears_is_an_edit(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a was edited"), unedited(lambda: None, tmp_path / "a"):
        (tmp_path / "a").write_text("1")


def test_an_error_of_the_block_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"), unedited(lambda: None, tmp_path):
        (tmp_path / "a").write_text("1")
        raise RuntimeError("killed")
