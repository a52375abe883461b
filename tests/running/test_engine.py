"""DVC's internals: that they are as tested, that it is told when they are not, and the way around."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mhrctl.running import internals
from mhrctl.running.engine import open_pipeline
from mhrctl.running.fallback import open_public_pipeline
from mhrctl.running.internals import INTERNALS, InternalsError, check_internals
from mhrctl.running.pipeline import StageFiles
from tests.conftest import Run
from tests.running.toy import Toy

Capture = pytest.CaptureFixture[str]


def test_the_installed_dvc_is_as_tested() -> None:
    """If this fails after an upgrade: `mhrctl run` falls back to DVC's command line until engine.py is mended."""
    check_internals()


def test_what_the_engine_imports_is_checked() -> None:
    source = Path(internals.__file__).with_name("engine.py").read_text()
    imported = {
        f"{module}:{name.strip()}"
        for line in source.splitlines()
        if line.strip().startswith("from dvc")
        for module, names in [line.strip().removeprefix("from ").split(" import ")]
        for name in names.split(",")
    }
    known = {*INTERNALS, *(name.rsplit(".", 1)[0] for name in INTERNALS), "dvc.dependency:param"}
    assert imported
    assert imported <= known, imported - known


def test_nothing_else_of_a_run_imports_dvc() -> None:
    folder = Path(internals.__file__).parent
    imports = re.compile(r"^\s*(from|import) dvc\b", re.MULTILINE)
    importing = {path.name for path in folder.glob("*.py") if imports.search(path.read_text())}
    assert importing == {"engine.py", "internals.py"}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dvc.stage:Stage.save", ("self", "with_run_cache"), "Stage.save of dvc.stage is not as tested"),
        ("dvc.stage:Stage.store", ("self",), "Stage.store of dvc.stage is not as tested"),
        ("dvc.nowhere:thing", (), "thing of dvc.nowhere is not as tested"),
    ],
)
def test_changed_internals_are_told(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setitem(INTERNALS, name, arguments)
    with pytest.raises(InternalsError, match=message):
        check_internals()


def test_an_untested_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "version", lambda name: "4.0.1" if name == "dvc" else "0")
    with pytest.raises(InternalsError, match=r"dvc 4\.0\.1 is not among the tested versions"):
        check_internals()


def test_other_internals_go_by_the_command_line(
    toy: Toy, made_done: Toy, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(internals, "version", lambda name: "4.0.1" if name == "dvc" else "0")
    (toy.root / "fail-train-b").touch()
    assert run("run", "evaluate@b", "-j", 2, "-C", toy.root) == 1
    told = capfd.readouterr().err
    assert "dvc 4.0.1 is not among the tested versions" in told
    assert "going by `dvc repro --single-item`" in told
    assert "blocked   evaluate@b" in told
    (toy.root / "fail-train-b").unlink()
    assert run("run", "evaluate@b", "-j", 2, "-C", toy.root) == 0
    assert "2 done, 1 unchanged" in capfd.readouterr().err
    assert toy.began() == {"data": 1, "train-b": 2, "evaluate-b": 1}
    assert toy.repro("evaluate@b") == []
    assert toy.lock().items() <= made_done.lock().items()
    assert run("run", "--dry", "-C", toy.root) == 2


@pytest.mark.parametrize("targets", [[], ["train", "source.txt.dvc", "dvc.yaml:data", "evaluate@a"]])
def test_both_ways_see_the_same_stages(toy: Toy, targets: list[str]) -> None:
    (toy.root / "source.txt.dvc").write_text("outs:\n- {path: source.txt, md5: d41d8cd98f00b204e9800998ecf8427e, hash: md5}\n")
    with open_pipeline(toy.root, targets) as inner, open_public_pipeline(toy.root, targets) as public:
        assert set(public.names) == set(inner.names)
        assert public.needs == inner.needs
        assert public.folder == inner.folder
        assert [public.job(name) for name in inner.names] == [inner.job(name) for name in inner.names]


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


def test_a_dependency_inside_an_output_stands_for_all_of_it(done: Toy) -> None:
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
        found = pipeline.files_of(pipeline.job("train@a"))
    assert found == StageFiles({"study/data.txt": None}, ["study/cells/a.json"], ["study/out-a"])


def md5_of(lock: dict[str, Any], stage: str, out: str) -> str:
    """The hash of an output in dvc.lock."""
    (md5,) = [entry["md5"] for entry in lock[stage]["outs"] if entry["path"] == out]
    return str(md5)


def test_a_torn_list_of_busy_paths_is_dropped(done: Toy, run: Run) -> None:
    """As a process leaves it that is killed while it writes; DVC refuses to do anything then."""
    (done.root / ".dvc/tmp/rwlock").write_text("")
    assert run("run", "-C", done.root) == 0
    done.require_clean()


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
