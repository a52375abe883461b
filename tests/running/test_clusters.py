"""Jobs on a Dask cluster of several processes: every command once, on several of them, and what is wrong in one line."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from distributed import LocalCluster

from mhrctl.errors import MhrctlError, ParamsError
from mhrctl.running import clusters
from mhrctl.running.clusters import QUIET, ClusterError, open_cluster
from mhrctl.running.engine import open_pipeline
from mhrctl.running.jobs import Job, JobFiles, ask_to_stop, run_job, wait_job
from mhrctl.running.scheduler import Scheduler
from tests.running.toy import Toy, eventually

pytestmark = pytest.mark.usefixtures("swept")
TELL_WORKER = "cut -d' ' -f4 /proc/$(cut -d' ' -f6 /proc/$$/stat)/stat >> workers\n"
"""A job leads its session; the parent of its leader is the worker's process."""


def write_config(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    """Two worker processes under a scheduler that starts lost calls anew, as schedulers do unless told otherwise."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=QUIET) as cluster:
        yield cluster


def test_a_pipeline_runs_on_several_processes_each_command_once(toy: Toy, local: LocalCluster) -> None:
    note = toy.root / "note.sh"
    note.write_text(TELL_WORKER + note.read_text())
    toy.pace(0.3)
    with open_pipeline(toy.root, []) as pipeline, open_cluster(local.scheduler_address, shared=pipeline.folder) as executor:
        assert executor.slots == 2
        progress = Scheduler(pipeline, executor, executor.slots).run()
    assert not progress.bad()
    assert set(toy.began().values()) == {1}
    assert len(toy.began()) == 8
    processes = set(map(int, (toy.root / "workers").read_text().split()))
    assert processes == {worker.pid for worker in local.workers.values()}
    assert toy.at_once() == 2
    toy.require_clean()
    assert not list(pipeline.folder.glob("seen-by-workers-*"))


def test_a_cluster_without_workers_is_refused_unless_some_are_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LOOK_EVERY", 0.1)
    reported: list[str] = []
    with LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=QUIET) as empty:
        address = empty.scheduler_address
        with (
            pytest.raises(ClusterError, match=f"^--dask {address}: no worker has joined; start `dask worker {address}`"),
            open_cluster(address, shared=tmp_path, tell=reported.append),
        ):
            pass
        assert not reported
        with open_cluster(address, jobs=1, shared=tmp_path, tell=reported.append) as executor:
            job = Job("a", "echo once >> ran", str(tmp_path), {}, str(tmp_path))
            future = executor.submit(run_job, job)
            eventually(lambda: reported, "that there is no worker is reported")
            empty.scale(1)
            assert future.result(30) == 0
            eventually(lambda: len(reported) > 1, "that there is one is reported")
    assert reported == [clusters.NO_WORKER, "a worker has joined"]


def test_a_lost_scheduler_ends_what_waits_and_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 1)
    with LocalCluster(n_workers=1, dashboard_address=":0", silence_logs=QUIET) as cluster:
        job = Job("a", "sleep 60", str(tmp_path), {}, str(tmp_path))
        with open_cluster(cluster.scheduler_address, shared=tmp_path) as executor:
            future = executor.submit(run_job, job)
            eventually(JobFiles(tmp_path, "a").process.exists, "the job runs")
            cluster.close()
            with pytest.raises(ClusterError, match="the Dask scheduler is gone"):
                future.result(30)
            eventually(lambda: executor.closed, "the client gives up")
            with pytest.raises(ClusterError, match="the Dask scheduler is gone"):
                executor.submit(run_job, job)
    ask_to_stop(JobFiles(tmp_path, "a"))
    assert wait_job(str(tmp_path), "a") != 0


def test_a_cluster_is_started_from_a_file_and_ends(tmp_path: Path) -> None:
    config = write_config(tmp_path, "cluster: LocalCluster\njobs: 5\n")
    with open_cluster(config=config, jobs=2, shared=tmp_path) as executor:
        assert executor.slots == 2
        workers = {executor.submit(os.getpid).result() for _ in range(8)}
        assert os.getpid() not in workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_lost_worker_fails_its_job_and_nothing_runs_twice(tmp_path: Path, local: LocalCluster) -> None:
    """The scheduler would start the call on another worker; the command, which outlives its worker, is left to the next run."""
    script = "echo once >> ran; kill -9 $PPID; sleep 1; echo whole >> ran"
    job = Job("a@b", script, str(tmp_path), {}, str(tmp_path))
    with open_cluster(local.scheduler_address, shared=tmp_path) as executor:
        with pytest.raises(ClusterError, match="its worker was lost"):
            executor.submit(run_job, job).result(30)
        assert not JobFiles(tmp_path, "a@b").code.exists()
        assert wait_job(str(tmp_path), "a@b") == 0
    assert (tmp_path / "ran").read_text() == "once\nwhole\n"


def test_a_worker_that_does_not_see_the_project_is_named(tmp_path: Path, local: LocalCluster) -> None:
    with open_cluster(local.scheduler_address, shared=tmp_path) as executor:
        (mark,) = tmp_path.iterdir()
        hidden = mark.rename(tmp_path.parent / mark.name)
        with pytest.raises(ClusterError, match=rf"^worker tcp://[\d.:]+ on {socket.gethostname()} does not see {tmp_path};"):
            executor.require_workers()
        job = Job("a", "touch ran", str(tmp_path), {}, str(tmp_path))
        with pytest.raises(ClusterError, match="does not see"):  # as of a worker that has joined later
            executor.submit(run_job, job).result(30)
        hidden.rename(mark)
        executor.require_workers()
    assert not list(tmp_path.iterdir())


def test_a_worker_with_another_version_is_named(local: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "__version__", "77.0")
    with (
        pytest.raises(ClusterError, match=r"^worker tcp://[\d.:]+ has mhrctl [\d.]+, and this is 77.0; install"),
        open_cluster(local.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "reason"),
    [("tcp://127.0.0.1:9", "Connection refused; start `dask scheduler` there"), ("tcp://127.0.0.1", "missing port number")],
)
def test_an_address_where_nobody_listens(address: str, reason: str) -> None:
    with pytest.raises(ClusterError, match=f"^--dask {address}: {reason}"), open_cluster(address):
        pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda _name: None)
    with pytest.raises(ClusterError, match=r"pip install 'mhrctl\[dask\]'"), open_cluster("tcp://127.0.0.1:9"):
        pass


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cores: 1\n", "names no cluster; add a line such as"),
        ("cluster: SLURM\n", "unknown cluster 'SLURM' .known: .*SLURMCluster"),
        ("cluster: [\n", ":2: not valid YAML"),
        ("cluster: LocalCluster\nscheduler_port: http\n", "LocalCluster.*'http'"),
        ("cluster: LocalCluster\nadaptive: {most: 2}\n", "adaptive: write both bounds"),
        ("cluster: SLURMCluster\njobs: many\n", "jobs: 'many' is not a number"),
        ("cluster: PBSCluster\n", "PBSCluster: there is no `qsub` here"),
        ("cluster: [a]\n", "unknown cluster .*'a'"),
        ("cluster: LocalCluster\n7: x\n", "a setting's name is text"),
        ("cluster: LocalCluster\nthreads_per_worker: '2'\n", "threads_per_worker: '2' is not a number of 1 or more"),
        ("cluster: LocalCluster\njobs: true\n", "jobs: True is not a number"),
        ("cluster: LocalCluster\njobs: 9999999999\n", "jobs: 9999999999 is not a number of 1 or more, at most 100,000"),
        ("cluster: LocalCluster\nadaptive: {minimum: a, maximum: 2}\n", "adaptive.minimum: 'a' is not a number"),
        ("cluster: LocalCluster\nadaptive: {minimum: 3, maximum: 2}\n", "adaptive.maximum: 2 is not a number of 3 or more"),
        ("cluster: LocalCluster\njobs: 1\nadaptive: {minimum: 0, maximum: 2}\n", "leave one out"),
        ("cluster: LocalCluster\njobs: 1\njobs: 2\n", ":3: not valid YAML"),
        ("cluster: \x07\n", "not valid YAML"),
        ("a" * 2**21, "of more than 1,048,576 bytes"),
        (f"jobs: {'9' * 5000}\n", "not valid YAML"),
    ],
)
def test_a_wrong_cluster_file_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    config = write_config(tmp_path, text)
    with pytest.raises(MhrctlError, match=f"^{config}.*{reason}") as error, open_cluster(config=config):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"cluster: Local\xe9\n"])
def test_a_cluster_file_that_is_no_text_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cluster.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=r":1: not UTF-8 text"), open_cluster(config=tmp_path / "cluster.yaml"):
        pass


def test_a_cluster_file_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ParamsError, match=f"^{path}: no file; --dask-config names a YAML file"), open_cluster(config=path):
            pass


def listening(pids: list[int]) -> set[tuple[str, str]]:
    """The (address, port) that processes listen on, in the hexadecimal of /proc/net."""
    sockets = {str(link.readlink()) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {
        (address, port)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
        for address, port in [row[1].rsplit(":", 1)]
    }


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system has no /proc")
def test_a_cluster_listens_to_this_machine_alone_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    loopback, everywhere = "0100007F", {"0" * 8, "0" * 32}
    for more, is_open in (("", False), ("dashboard_address: ':0'\n", True)):
        config = write_config(tmp_path, f"cluster: LocalCluster\njobs: 1\n{more}")
        before = listening([os.getpid()])
        with open_cluster(config=config, shared=tmp_path) as executor:
            worker = executor.submit(os.getpid).result(30)
            seen = {address for address, _ in listening([os.getpid(), worker]) - before}
        assert loopback in seen
        assert bool(seen & everywhere) is is_open
        assert seen <= {loopback, *everywhere}


def test_settings_go_over_defaults_within_a_section_too() -> None:
    defaults = clusters.DEFAULTS["dask_jobqueue"]
    over = clusters._over(defaults, {"scheduler_options": {"port": 7}, "cores": 1})
    assert over["scheduler_options"] == {"dashboard_address": "127.0.0.1:0", "port": 7}
    assert defaults["scheduler_options"] == {"dashboard_address": "127.0.0.1:0"}
    assert clusters._over(defaults, {"scheduler_options": {"dashboard_address": ":0"}})["scheduler_options"] == {
        "dashboard_address": ":0"
    }


SBATCH = """\
#!/bin/sh
cp "$1" "{folder}/script-$$"
sh "{folder}/script-$$" > "{folder}/worker-$$.log" 2>&1 &
echo $! >> "{folder}/submitted"
echo "Submitted batch job $!"
"""
SCANCEL = """\
#!/bin/sh
echo "$1" >> "{folder}/cancelled"
kill "$1"
"""


def test_slurm_is_asked_for_workers_and_they_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for SLURM that runs a batch script at once, in the background."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(folder=tmp_path))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    config = write_config(tmp_path, 'cluster: SLURMCluster\ncores: 1\nmemory: 1 GB\nqueue: gpu\nwalltime: "01:00:00"\n')
    with open_cluster(config=config, jobs=2, shared=tmp_path) as executor:
        assert executor.slots == 2
        job = Job("a", "echo once >> ran", str(tmp_path), {}, str(tmp_path))
        assert executor.submit(run_job, job).result(60) == 0
    assert (tmp_path / "ran").read_text() == "once\n"
    assert all("#SBATCH -p gpu" in script.read_text() for script in tmp_path.glob("script-*"))
    submitted = (tmp_path / "submitted").read_text().split()
    assert len(submitted) == 2
    assert sorted((tmp_path / "cancelled").read_text().split()) == sorted(submitted)
