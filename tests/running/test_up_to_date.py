"""Notes of what is up to date: they hold as long as no file has changed, in whatever way."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from mhrctl.running.fallback import jobs_folder
from mhrctl.running.up_to_date import describing, fingerprint, read_up_to_date, write_up_to_date


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "a").write_text("one")
    (tmp_path / "out" / "deep" / "b").write_text("two")
    (tmp_path / "file").write_text("three")
    return tmp_path


def _restored(path: Path) -> None:
    """Write other content of the same length, and give the file its time back."""
    status = path.stat()
    path.write_text("eno")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "out/a").write_text("more"),
        lambda root: _restored(root / "out/a"),
        lambda root: (root / "out/deep/b").unlink(),
        lambda root: (root / "out/deep/c").touch(),
        lambda root: (root / "out/deep/b").rename(root / "out/deep/c"),
        lambda root: (root / "out/empty").mkdir(),
        lambda root: (root / "file").unlink(),
        lambda root: (root / "later").touch(),
        lambda root: os.utime(root / "file"),
    ],
)
def test_whatever_changes_shows(folder: Path, change: Callable[[Path], object]) -> None:
    paths = [folder / name for name in ("out", "file", "later")]
    before = fingerprint(paths)
    assert fingerprint(paths) == before
    change(folder)
    assert fingerprint(paths) != before


def test_a_note_is_of_its_targets_and_working_directory(folder: Path) -> None:
    jobs = jobs_folder(folder)
    jobs.mkdir(parents=True)
    with chdir(folder):
        paths = [str(folder / "out")]
        write_up_to_date(jobs, ["train"], stages=["data", "train@a"], paths=paths, seen=fingerprint(paths))
        assert read_up_to_date(jobs, ["train"]) == ["data", "train@a"]
        assert read_up_to_date(jobs, []) is None
        with chdir("out"):
            assert read_up_to_date(jobs, ["train"]) is None
        (jobs / "data.json").touch()  # a job whose result is not recorded
        assert read_up_to_date(jobs, ["train"]) is None
        (jobs / "data.json").unlink()
        (folder / "out/a").write_text("more")
        assert read_up_to_date(jobs, ["train"]) is None


@pytest.mark.parametrize("rotten", [b"", b"{}", b"[]", b"\xff", b'{"made": 3}'])
def test_a_rotten_note_is_none(folder: Path, rotten: bytes) -> None:
    jobs = jobs_folder(folder)
    jobs.mkdir(parents=True)
    with chdir(folder):
        write_up_to_date(jobs, [], stages=["data"], paths=[], seen=fingerprint([]))
        next(jobs.iterdir()).write_bytes(rotten)
        assert read_up_to_date(jobs, []) is None


def test_the_files_that_say_what_stages_are(tmp_path: Path) -> None:
    dvc_yaml = tmp_path / "sub" / "dvc.yaml"
    dvc_yaml.parent.mkdir()
    dvc_yaml.write_text("vars: [cells.yaml, {a: 1}]\nstages:\n  x: {vars: ['own.json:key'], cmd: 'true'}\n  y: {cmd: 'true'}\n")
    names = [path.relative_to(tmp_path).as_posix() for path in describing(dvc_yaml, tmp_path)]
    assert names[:4] == ["sub/dvc.yaml", "sub/params.yaml", "sub/cells.yaml", "sub/own.json"]
    assert names[4:] == [".dvc/config", ".dvc/config.local", ".dvcignore"]
