"""`mhrctl run` as a user meets it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.resolve import load_params
from mhrctl.tools.grid import sync
from tests.conftest import Run
from tests.running.toy import Toy

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy project in which nothing has run."""
    return Toy.make(tmp_path_factory.mktemp("toy") / "project", ["a", "b"])


def test_bad_input_is_one_line_and_exit_code_2(made: Toy, tmp_path: Path, run: Run, capfd: Capture) -> None:
    for arguments, message in (
        (["-C", tmp_path], "not a DVC project; run `mhrctl init` (or `dvc init`)"),
        (["-C", tmp_path / "nowhere"], "nowhere: no such folder"),
        (["-C", made.root, "trian"], "unknown stage 'trian'; did you mean 'train'?"),
        (["-C", made.root, "--gpus", "0,0"], "--gpus: 0 occurs twice"),
        (["-C", made.root, "--gpus", "nope,-3"], "--gpus: 'nope' is no GPU; give numbers from 0 on, or UUIDs"),
        (["-C", made.root, "--gpus", "0,"], "--gpus: an empty entry is no GPU"),
        (["-C", made.root, "--gpus", ""], "--gpus: an empty entry is no GPU"),
        (["-C", made.root, "--gpus", "0", "--slots", 2], "--gpus and --slots both say what there is"),
    ):
        capfd.readouterr()
        assert run("run", *arguments) == 2
        error = capfd.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert message in error


def test_a_grid_out_of_step_is_refused(project: Path, made: Toy, run: Run, capfd: Capture) -> None:
    where = Project(project)
    made.copy(project / "toy")
    (project / "toy").rename(project / "moved")
    for name in ("dvc.yaml", ".dvc", "note.sh", "cells.yaml", "cells", "seconds", "evaluate.json"):
        (project / "moved" / name).rename(project / name)
    assert run("run", "-C", project) == 2
    assert re.search(r"data/cells: is not written yet; run `mhrctl grid sync`", capfd.readouterr().err)
    sync(load_params(where.params), where)
    assert run("run", "train@a", "-C", project) == 0
    where.params.write_text(where.params.read_text() + "run:\n  slots: {pretrain: 3}\n")
    assert run("run", "train@a", "-C", project) == 0
    assert run("run", "train@a", "--slots", 2, "-C", project) == 2
    line = len(where.params.read_text().splitlines())
    assert f"params.yaml:{line}: run.slots.pretrain: 3 is more than the 2 slots there are" in capfd.readouterr().err


def test_dry_shows_what_would_run_and_why_and_runs_nothing(made: Toy, tmp_path: Path, run: Run, capfd: Capture) -> None:
    toy = made.copy(tmp_path / "toy")
    assert run("run", "-C", toy.root) == 0
    toy.set_lr("a", 0.2)
    toy.forget()
    capfd.readouterr()
    assert run("run", "--stages", "-C", toy.root) == 2
    assert "--stages is of --dry" in capfd.readouterr().err
    assert run("run", "--dry", "--stages", "-C", toy.root) == 0
    shown = capfd.readouterr().out
    assert re.search(r"train@a +run +params changed: cells/a.json train.lr 0.1 -> 0.2", shown)
    assert re.search(r"evaluate@a +run if changed +after train@a", shown)
    assert "train@b" not in shown
    assert "6 stages: 1 run, 2 run if changed, 3 unchanged" in shown
    assert not toy.began()


def test_jobs_have_one_thread_or_those_asked_for_and_wait_without_spinning(
    made: Toy, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = made.copy(tmp_path / "toy")
    names = "$MHRCTL_THREADS,$OMP_NUM_THREADS,$MKL_NUM_THREADS,$OMP_WAIT_POLICY"
    (toy.root / "dvc.yaml").write_text(f"stages:\n  seen: {{cmd: 'echo \"{names}\" >> seen'}}\n")
    for name in ("MHRCTL_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mhrctl.tools.run.may_have_gpu", lambda: False)
    assert run("run", "--threads", 3, "-j", 2, "-C", toy.root) == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run("run", "-C", toy.root) == 0
    monkeypatch.setenv("MHRCTL_THREADS", "2")
    assert run("run", "-C", toy.root) == 0
    monkeypatch.delenv("MHRCTL_THREADS")
    monkeypatch.delenv("MHRCTL_DEVICE", raising=False)
    monkeypatch.setattr("mhrctl.tools.run.may_have_gpu", lambda: True)
    assert run("run", "-C", toy.root) == 0
    seen = ["3,3,3,PASSIVE", ",1,1,PASSIVE", "2,2,2,PASSIVE", ",7,,PASSIVE"]
    assert (toy.root / "seen").read_text().splitlines() == seen


def test_jobs_are_forked_unless_asked_otherwise(made: Toy, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = made.copy(tmp_path / "toy")
    (toy.root / "dvc.yaml").write_text("stages:\n  seen: {cmd: 'echo $MHRCTL_FORKSERVER >> seen'}\n")
    monkeypatch.delenv("MHRCTL_FORKSERVER", raising=False)
    assert run("run", "-C", toy.root) == 0
    assert run("run", "--no-fork", "-C", toy.root) == 0
    monkeypatch.setenv("MHRCTL_FORKSERVER", "off")
    assert run("run", "-C", toy.root) == 0
    assert (toy.root / "seen").read_text().splitlines() == [str(os.getpid()), "off", "off"]


def test_other_machines_are_named_by_one_option_each(made: Toy, run: Run, capfd: Capture) -> None:
    for arguments, message in (
        (["--remote", "store"], "--remote and --worker-dir only work with --dask or --dask-config"),
        (["--worker-dir", "x"], "--remote and --worker-dir only work with --dask"),
        (["--dask", "tcp://127.0.0.1:9", "--worker-dir", "x"], "--worker-dir is a checkout of a worker"),
        (["--dask", "tcp://127.0.0.1:9", "--dask-config", "x.yaml"], "leave one out"),
        (["--dask", "tcp://127.0.0.1:9", "--gpus", "0"], "--gpus and --slots are of one machine"),
        (["--dask", "tcp://127.0.0.1:9"], "--dask tcp://127.0.0.1:9: Connection refused"),
        (["--dask-config", "nowhere.yaml"], "nowhere.yaml: No such file or directory"),
    ):
        capfd.readouterr()
        assert run("run", "-C", made.root, *arguments) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1, error
        assert message in error


@pytest.mark.usefixtures("swept")
def test_a_cluster_file_is_relative_to_where_the_command_is_given(
    made: Toy, tmp_path: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    toy = made.copy(tmp_path / "toy")
    toy.pace(0.4)
    (tmp_path / "cluster.yaml").write_text("cluster: LocalCluster\njobs: 1\n")
    monkeypatch.chdir(tmp_path)
    assert run("run", "--dask-config", "cluster.yaml", "--jobs", 2, "--threads", 3, "-C", "toy") == 0
    assert "done: 6 stages in " in capfd.readouterr().err
    assert toy.at_once() == 2
    toy.require_clean()
    (toy.root / "dvc.yaml").write_text("stages:\n  seen: {cmd: 'echo \"$OMP_NUM_THREADS,$MKL_NUM_THREADS\" > seen'}\n")
    assert run("run", "--dask-config", "cluster.yaml", "--threads", 3, "-C", "toy") == 0
    assert (toy.root / "seen").read_text() == "3,3\n"
    assert "done: 1 stage in " in capfd.readouterr().err
