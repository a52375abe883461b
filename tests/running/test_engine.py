"""The pipeline within one process: what it says of stages, and that what it writes is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhrctl.running.engine import _put_in_order, open_pipeline
from mhrctl.running.pipeline import StageFiles
from tests.conftest import Run
from tests.running.toy import Toy


def test_a_stage_is_known_by_what_it_reads_and_writes(done: Toy) -> None:
    """Hashes are those of dvc.lock as long as it holds; what the cache does not have is taken as it is."""
    locked = done.lock()
    with open_pipeline(done.root, []) as pipeline, pipeline.session():
        assert pipeline.files_of("data") == StageFiles({}, [], ["data.txt"])
        assert pipeline.files_of("train@a") == StageFiles(
            {"data.txt": md5_of(locked, "data", "data.txt")}, ["cells/a.json"], ["out-a"]
        )
        assert pipeline.files_of("evaluate@b") == StageFiles(
            {"out-b": md5_of(locked, "train@b", "out-b")}, ["evaluate.json"], ["score-b.json"]
        )
        scores = {f"score-{cell}.json": md5_of(locked, f"evaluate@{cell}", f"score-{cell}.json") for cell in "abc"}
        assert pipeline.files_of("report") == StageFiles(scores, ["cells.yaml"], ["report.txt"])
        assert pipeline.reasons("train@a") == []  # asking leaves no trace
        shutil.rmtree(done.root / ".dvc/cache")
        assert pipeline.files_of("evaluate@b").deps == {"out-b": None}


def test_a_dependency_inside_an_output_is_one_on_all_of_it(done: Toy) -> None:
    text = (done.root / "dvc.yaml").read_text()
    (done.root / "dvc.yaml").write_text(text.replace('deps: ["out-${key}"]', 'deps: ["out-${key}/weights", note.sh]'))
    whole = md5_of(done.lock(), "train@a", "out-a")
    assert whole.endswith(".dir")
    with open_pipeline(done.root, []) as pipeline, pipeline.session():
        assert pipeline.files_of("evaluate@a").deps == {"out-a": whole, "note.sh": None}
        (done.root / "out-a/weights").write_text("made by hand")
        assert pipeline.files_of("evaluate@a").deps == {"out-a": None, "note.sh": None}


def test_paths_of_a_stage_are_those_from_the_root_of_the_dvc_project(tmp_path: Path) -> None:
    toy = Toy.make(tmp_path / "whole" / "study", ["a"])
    (toy.root / ".dvc").rename(tmp_path / "whole" / ".dvc")
    outside = tmp_path / "outside.txt"
    outside.write_text("not of the project")
    (toy.root / "dvc.yaml").write_text(
        (toy.root / "dvc.yaml").read_text().replace("deps: [data.txt]", f"deps: [data.txt, {outside}]")
    )
    with open_pipeline(toy.root, ["train"]) as pipeline, pipeline.session():
        (toy.root / "data.txt").write_text("data\n")
        files = pipeline.files_of(pipeline.job("train@a"))
    assert files == StageFiles({"study/data.txt": None}, ["study/cells/a.json"], ["study/out-a"])


def md5_of(lock: dict[str, Any], stage: str, out: str) -> str:
    """The hash of an output in dvc.lock."""
    (md5,) = [entry["md5"] for entry in lock[stage]["outs"] if entry["path"] == out]
    return str(md5)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"read": 5}'])
def test_a_torn_list_of_busy_paths_is_dropped(done: Toy, run: Run, content: bytes) -> None:
    """As a process leaves it that is killed while it writes; DVC refuses to do anything then."""
    (done.root / ".dvc/tmp/rwlock").write_bytes(content)
    assert run("run", "-C", done.root) == 0
    done.require_clean()


def test_what_stands_in_place_of_files_of_dvc_is_one_line(toy: Toy, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    makes: dict[str, Callable[[Path], object]] = {
        ".dvc/tmp/rwlock": os.mkfifo,
        "dvc.lock": os.mkfifo,
        "dvc.yaml": lambda path: path.write_bytes(b"\xff\xfe"),
    }
    for name, make in makes.items():
        path = toy.root / name
        path.unlink(missing_ok=True)
        make(path)
        capfd.readouterr()
        assert run("run", "-C", toy.root) == 2
        error = capfd.readouterr().err
        assert path.name in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        path.unlink()


def test_what_dvc_raises_in_the_midst_is_one_line(toy: Toy, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException

    def fail(*_: object, **__: object) -> None:
        raise DvcException("of its own\nin lines")

    monkeypatch.setattr(Lockfile, "dump_stages", fail)
    assert run("run", "-C", toy.root) == 2


def test_a_lock_file_is_replaced_whole(done: Toy, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies while it writes leaves the lock file as it was, and loses nothing."""
    from dvc.dvcfile import Lockfile

    before = (done.root / "dvc.lock").read_text()
    done.set_lr("a", 0.9)

    def torn(self: Lockfile, stages: object) -> None:  # noqa: ARG001
        Path(self.path).write_text("schema: '2.0'\nstages:\n  tra")
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Lockfile, "dump_stages", torn)
        assert run("run", "train", "-C", done.root) == 9
    assert (done.root / "dvc.lock").read_text() == before
    done.forget()
    assert run("run", "train", "-C", done.root) == 0
    assert not done.began()  # what had run was still known
    assert done.repro("train") == []


def test_entries_of_a_lock_file_change_places_and_nothing_else() -> None:
    """A stage may be called as a section is, and a value may look as a key does."""
    first, second, third = "  stages:\n    cmd: 'a\n\n      b:'\n", "  '1':\n    cmd: b\n", "  c@d:\n    cmd: c\n"
    lock = f"schema: '2.0'\nstages:\n{first}{second}{third}datasets:\n- name: e\n"
    assert _put_in_order(lock, ["c@d", "stages"]) == f"schema: '2.0'\nstages:\n{third}{second}{first}datasets:\n- name: e\n"
    assert _put_in_order(lock, ["1", "gone", "stages", "c@d"]) == lock.replace(first + second, second + first)
