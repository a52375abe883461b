"""Jobs: what they leave behind, and how they are told from each other."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mhrctl.errors import ArtifactError
from mhrctl.running import jobs
from mhrctl.running.jobs import (
    OUTDATED,
    Job,
    JobFiles,
    Record,
    ask_to_stop,
    exit_code,
    is_alive,
    only_run,
    read_record,
    run_job,
    ticketed,
    wait_job,
    write_record,
)
from tests.running.toy import eventually, is_running


def job(folder: Path, script: str, name: str = "train@a", **env: str) -> Job:
    return Job(name, script, str(folder), env, str(folder))


def test_a_job_leaves_its_output_and_its_exit_code(tmp_path: Path) -> None:
    given = job(tmp_path, 'echo "$WHO in $PWD"; echo wrong >&2; exit 3', "sub/dvc.yaml:train@a", WHO="me")
    assert run_job(pickle.loads(pickle.dumps(given))) == 3  # noqa: S301 - as an executor sends it
    files = JobFiles(tmp_path, "sub/dvc.yaml:train@a")
    assert files.log.read_text() == f"me in {tmp_path}\nwrong\n"
    assert exit_code(files) == 3
    assert not is_alive(files)
    assert files.log.parent == tmp_path


def test_workers_need_neither_dvc_nor_torch() -> None:
    code = "import sys, mhrctl.running.jobs; sys.exit(bool({'dvc', 'torch', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_job_that_was_replaced_does_not_run(tmp_path: Path) -> None:
    files = JobFiles(tmp_path, "train@a")
    old, new = Record("key", {}), Record("key", {"0": 1.0})
    write_record(files, new)
    assert read_record(files) == new
    assert run_job(ticketed(job(tmp_path, "touch old"), old)) == OUTDATED
    assert run_job(ticketed(job(tmp_path, "touch new"), new)) == 0
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "new").exists()


def test_jobs_of_one_stage_run_one_after_the_other(tmp_path: Path) -> None:
    script = "echo begin >> ran; sleep 0.3; echo end >> ran"
    threads = [threading.Thread(target=run_job, args=(job(tmp_path, script),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "ran").read_text().split() == ["begin", "end"] * 3


@pytest.mark.parametrize("obstinate", [False, True])
def test_a_job_ends_when_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstinate: bool) -> None:
    monkeypatch.setattr(jobs, "GRACE", 0.5)
    trap = "trap '' TERM" if obstinate else "trap 'echo saved > checkpoint; exit 1' TERM"
    script = f'sh -c "{trap}; touch begun; while true; do sleep 0.05; done"'
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_job(job(tmp_path, script))))
    thread.start()
    files = JobFiles(tmp_path, "train@a")
    eventually((tmp_path / "begun").exists, "the job runs")
    assert is_alive(files)
    ask_to_stop(files)
    thread.join(20)
    assert codes[0] != 0
    assert not is_alive(files)
    assert not is_running(int(files.process.read_text().split()[1]))
    assert (tmp_path / "checkpoint").exists() is not obstinate


def test_what_a_job_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    assert run_job(job(tmp_path, "sleep 60 & echo $! > child")) == 0
    files = JobFiles(tmp_path, "train@a")
    assert not is_running(int(files.process.read_text().split()[1]))
    assert not is_alive(files)


def test_a_job_without_an_exit_code_has_died(tmp_path: Path) -> None:
    assert wait_job(str(tmp_path), "train@a") == jobs.DIED
    JobFiles(tmp_path, "train@a").code.write_text("4\n")
    assert wait_job(str(tmp_path), "train@a") == 4


ROTTEN = ["", "\0", "{", "[]", "7", "\ud800", "[" * 100_000, '{"key": 1, "slots": {}}', '{"key": "", "slots": {"0": "x"}}']
ROTTEN += ['{"key": "", "slots": {"0": -1}}', '{"key": "", "slots": {"0": NaN}}', '{"key": "", "slots": [], "started": 1}']
ROTTEN += [
    '{"key": "", "slots": {}, "started": Infinity}',
    '{"key": "", "slots": {}, "started": "now"}',
    '{"key": "", "more": 1}',
]


@pytest.mark.parametrize("text", ROTTEN, ids=range(len(ROTTEN)))
def test_a_rotten_note_is_set_aside(tmp_path: Path, text: str) -> None:
    files = JobFiles(tmp_path, "train@a")
    files.record.write_bytes(text.encode(errors="surrogatepass"))
    assert read_record(files) is None
    assert not text or not files.record.exists()
    assert jobs.unfinished(tmp_path) == {}


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"abc", b"1e3", b"9" * 5000, b"-1", "٣".encode()])
def test_a_rotten_exit_code_is_none(tmp_path: Path, text: bytes) -> None:
    files = JobFiles(tmp_path, "train@a")
    files.code.write_bytes(text)
    assert exit_code(files) is None
    files.process.write_bytes(text)
    files.stop.write_bytes(text)
    assert wait_job(str(tmp_path), "train@a") == jobs.DIED


def test_what_is_no_file_of_a_job_is_named_and_nothing_waits_for_it(tmp_path: Path) -> None:
    makes: dict[str, Callable[[Path], object]] = {
        "a.json": Path.mkdir,
        "b.flock": os.mkfifo,
        "c.rc": lambda path: path.symlink_to("nowhere"),
    }
    for name, make in makes.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        make(folder / name)
        with pytest.raises(ArtifactError, match=f"{name}: no file, where only files of jobs belong"), only_run(folder):
            pass


def test_no_signal_goes_to_all_processes_or_to_this_one() -> None:
    assert [jobs._signal(group, 0) for group in (0, 1)] == [False, False]
