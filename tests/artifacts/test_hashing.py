"""The hashes of files and folders."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from mhrctl.artifacts.hashing import digest, files_in


def test_digest_of_a_folder_sees_names_and_contents_but_not_dvcs_gitignore(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest(tmp_path)
    (tmp_path / ".gitignore").write_text("/a")
    assert digest(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(tmp_path) != before


def test_digests_are_what_cards_of_today_hold(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a").write_text("1")
    one = sha256(b"1").digest()
    assert digest(tmp_path / "sub/a") == sha256(b"." + one).hexdigest()
    assert digest(tmp_path) == sha256(b"sub/a" + one).hexdigest()


def test_files_are_sorted_and_folders_are_no_files(tmp_path: Path) -> None:
    for name in ("b/x", "a", "b/.gitignore", "c/d/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path)] == ["a", "b/x", "c/d/y"]
    assert files_in(tmp_path / "a") == [tmp_path / "a"]
    assert files_in(tmp_path / "none") == []


def test_linked_folders_are_hashed_and_links_back_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "elsewhere/a").write_text("1")
    (tmp_path / "tasks/more").symlink_to("../elsewhere")
    (tmp_path / "tasks/back").symlink_to("../tasks")
    before = digest(tmp_path / "tasks")
    assert [file.relative_to(tmp_path).as_posix() for file in files_in(tmp_path / "tasks")] == ["tasks/more/a"]
    (tmp_path / "elsewhere/a").write_text("2")
    assert digest(tmp_path / "tasks") != before
