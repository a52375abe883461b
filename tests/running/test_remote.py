"""Jobs on workers without a shared file system: two processes, each in a checkout of its own, and a folder as the remote."""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from distributed import Client, LocalCluster

from mhrctl.errors import ParamsError
from mhrctl.running.clusters import QUIET, ClusterError
from mhrctl.running.engine import open_pipeline
from mhrctl.running.jobs import Job, JobFiles, ask_to_stop, run_job
from mhrctl.running.pipeline import StageFiles
from mhrctl.running.progress import Progress
from mhrctl.running.remote import open_workers
from mhrctl.running.scheduler import Scheduler
from tests.conftest import Run
from tests.running.toy import Toy, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("swept")]
CHECKOUTS = ["one", "two"]


@pytest.fixture(scope="module")
def workplace(made: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with two checkouts of the project, and the address of a scheduler with a worker in each."""
    folder = tmp_path_factory.mktemp("workplace")
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=QUIET))
        for name in CHECKOUTS:
            connect(made.copy(folder / name), folder)
            command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1"]
            worker = stack.enter_context(subprocess.Popen(command, cwd=folder / name, stderr=subprocess.DEVNULL))
            stack.callback(worker.terminate)
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(len(CHECKOUTS), timeout=30)
        yield folder, cluster.scheduler_address


def connect(toy: Toy, folder: Path) -> None:
    toy.dvc("remote", "add", "-q", "store", str(folder / "store"))


@pytest.fixture
def project(made: Toy, workplace: tuple[Path, str], tmp_path: Path) -> Toy:
    """The project, of which the checkouts are copies, with an empty remote; the checkouts' caches stay."""
    folder, _ = workplace
    shutil.rmtree(folder / "store", ignore_errors=True)
    for name in CHECKOUTS:
        Toy(folder / name).forget()
    toy = made.copy(tmp_path / "project")
    connect(toy, folder)
    return toy


def files_of(toy: Toy, name: str) -> StageFiles:
    """What the stages of the toy read and write: some by hash, as the cache holds them, and some as they are."""
    stage, _, cell = name.partition("@")
    if stage == "check":
        return StageFiles({}, [], [])
    if stage == "data":
        return StageFiles({"note.sh": None}, [], ["data.txt"])
    if stage == "train":
        md5 = hashlib.md5((toy.root / "data.txt").read_bytes(), usedforsecurity=False).hexdigest()
        return StageFiles({"data.txt": md5}, [f"cells/{cell}.json"], [f"out-{cell}"])
    if stage == "evaluate":
        return StageFiles({f"out-{cell}": None}, ["evaluate.json"], [f"score-{cell}.json"])
    return StageFiles({f"score-{cell}.json": None for cell in "abc"}, ["cells.yaml"], ["report.txt"])


@contextmanager
def workers(toy: Toy, address: str, checkout: str = ".", remote: str = "store") -> Iterator[tuple[Executor, int]]:
    folder = toy.root / ".dvc/tmp/mhrctl"
    folder.mkdir(parents=True, exist_ok=True)
    options = {"address": address, "config": None, "jobs": None, "remote": remote, "checkout": checkout, "tell": print}
    with open_workers(folder, lambda name: files_of(toy, name), **options) as opened:  # type: ignore[arg-type]
        yield opened


def run_all(toy: Toy, address: str) -> Progress:
    with open_pipeline(toy.root, []) as pipeline, workers(toy, address) as (executor, at_once):
        assert at_once == len(CHECKOUTS)
        return Scheduler(pipeline, executor, at_once).run()


COMMANDS = ["data", "report", *(f"{stage}-{cell}" for stage in ("train", "evaluate") for cell in "abc")]


def test_commands_run_once_in_the_checkouts_and_their_results_come_back(
    project: Toy, made_done: Toy, workplace: tuple[Path, str]
) -> None:
    folder, address = workplace
    assert not run_all(project, address).bad()
    assert not (project.root / "ran").exists()
    began = [Toy(folder / name).began() for name in CHECKOUTS]
    assert all(began)
    assert began[0] + began[1] == dict.fromkeys(COMMANDS, 1)
    for path in ("data.txt", "out-b/weights", "score-c.json", "report.txt"):
        assert (project.root / path).read_bytes() == (made_done.root / path).read_bytes()
    project.require_clean()
    assert list(project.lock().items()) == list(made_done.lock().items())
    assert not list((project.root / ".dvc/tmp").glob("depot-*"))

    project.set_lr("b", 0.5)  # a parameter file that the checkouts have otherwise
    assert not run_all(project, address).bad()
    began = [Toy(folder / name).began() for name in CHECKOUTS]
    assert began[0] + began[1] == {name: 2 if name in {"train-b", "evaluate-b", "report"} else 1 for name in COMMANDS}
    assert '"lr": 0.5' in (project.root / "report.txt").read_text()
    project.require_clean()


def test_the_command_line_knows_by_itself_what_to_carry(
    project: Toy, made_done: Toy, workplace: tuple[Path, str], run: Run
) -> None:
    folder, address = workplace
    text = (project.root / "dvc.yaml").read_text()  # a card beside the named file is read too
    (project.root / "dvc.yaml").write_text(text.replace('deps: ["out-${key}"]', 'deps: ["out-${key}/weights"]'))
    assert run("run", "--dask", address, "--remote", "store", "-C", project.root) == 0
    began = [Toy(folder / name).began() for name in CHECKOUTS]
    assert began[0] + began[1] == dict.fromkeys(COMMANDS, 1)
    assert (project.root / "report.txt").read_bytes() == (made_done.root / "report.txt").read_bytes()
    project.require_clean()


def job_of(toy: Toy, script: str, **env: str) -> tuple[Job, JobFiles]:
    """A job of the stage `data`."""
    folder = toy.root / ".dvc/tmp/mhrctl"
    return Job("data", script, str(toy.root), env, str(folder)), JobFiles(folder, "data")


def test_a_job_sees_its_checkout_and_its_own_environment(project: Toy, workplace: tuple[Path, str]) -> None:
    job, files = job_of(project, "echo $DVC_ROOT $SHADE; pwd; echo new > data.txt", SHADE="green", DVC_ROOT=str(project.root))
    with workers(project, workplace[1]) as (executor, _):
        assert executor.submit(run_job, job).result(60) == 0
    root, shade, cwd = files.log.read_text().split()
    assert (root, shade) == (cwd, "green")
    assert Path(cwd).parent == workplace[0]
    assert (project.root / "data.txt").read_text() == "new\n"
    assert files.code.read_text() == "0\n"


def test_a_failed_command_tells_why_and_brings_nothing(project: Toy, workplace: tuple[Path, str]) -> None:
    job, files = job_of(project, "echo half > data.txt; echo this is why; exit 3")
    with workers(project, workplace[1]) as (executor, _):
        assert executor.submit(run_job, job).result(60) == 3
    assert files.log.read_text() == "this is why\n"
    assert not (project.root / "data.txt").exists()


def test_a_command_is_stopped_on_its_worker(project: Toy, workplace: tuple[Path, str]) -> None:
    job, files = job_of(project, "touch began; exec sleep 60")
    with workers(project, workplace[1]) as (executor, _):
        future = executor.submit(run_job, job)
        eventually(lambda: any((workplace[0] / name / "began").exists() for name in CHECKOUTS), "the command has begun")
        ask_to_stop(files)
        assert future.result(30) == 128 + signal.SIGTERM


def test_a_stage_without_outputs_runs_in_the_project(project: Toy, workplace: tuple[Path, str]) -> None:
    job, _ = job_of(project, "pwd > here")
    with workers(project, workplace[1]) as (executor, _slots):
        assert executor.submit(run_job, replace(job, name="check")).result(30) == 0
    assert (project.root / "here").read_text() == f"{project.root}\n"


def test_a_lost_worker_fails_its_job(project: Toy, workplace: tuple[Path, str]) -> None:
    job, files = job_of(project, "echo x >> lost; kill -9 $PPID")
    with workers(project, workplace[1]) as (executor, _):
        with pytest.raises(ClusterError, match="its worker was lost"):
            executor.submit(run_job, job).result(60)
        assert not files.code.exists()
        assert executor.submit(run_job, replace(job, script="echo again > data.txt")).result(60) == 0
    assert [(workplace[0] / name / "lost").exists() for name in CHECKOUTS].count(True) == 1


@pytest.mark.parametrize(
    ("checkout", "reason"),
    [
        ("$NOWHERE/x", r"is no checkout of the project; clone it there, or name another folder with --worker-dir"),
        ("{project}", r"is the project itself; name a checkout of its own with --worker-dir"),
    ],
)
def test_a_worker_without_a_checkout_is_named(project: Toy, workplace: tuple[Path, str], checkout: str, reason: str) -> None:
    with (
        pytest.raises(ClusterError, match=rf"^worker tcp://[\d.:]+ on {socket.gethostname()}: /.* {reason}"),
        workers(project, workplace[1], checkout.format(project=project.root)),
    ):
        pass


def test_an_unknown_remote_is_one_line(project: Toy, workplace: tuple[Path, str]) -> None:
    with (
        pytest.raises(
            ParamsError, match=r"unknown DVC remote 'stor'; did you mean 'store'\? \(known: store\); `dvc remote add`"
        ),
        workers(project, workplace[1], remote="stor"),
    ):
        pass
