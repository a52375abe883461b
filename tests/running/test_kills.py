"""Schedulers and jobs that die or are stopped at any time: nothing that finished is lost, nothing false is recorded."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.running.toy import Toy, eventually, group_of, is_running

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def training(toy: Toy) -> Iterator[Toy]:
    """A toy project whose data is made and whose trainings take seconds; what is left of its jobs is killed at the end."""
    toy.repro("data")
    toy.forget()
    for cell in "abc":
        toy.pace(2, f"train-{cell}")
    yield toy
    for path in toy.root.glob(".dvc/tmp/mhrctl/*.pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(path.read_text().split()[1]), signal.SIGKILL)


def begun(toy: Toy, *commands: str) -> bool:
    return set(commands) <= set(toy.began())


def kill(scheduler: subprocess.Popen[str], number: int = signal.SIGKILL) -> str:
    scheduler.send_signal(number)
    return scheduler.communicate(timeout=60)[0]


def test_living_jobs_of_a_killed_scheduler_are_adopted(training: Toy, run: Run, capfd: Capture) -> None:
    scheduler = training.start("-j", "2")
    eventually(lambda: begun(training, "train-a", "train-b"), "two trainings run")
    kill(scheduler)
    assert run("run", "-j", 2, "-C", training.root) == 0
    reported = capfd.readouterr().err
    assert "running   train@a  adopted" in reported
    assert "running   train@b  adopted" in reported
    assert training.began() == dict.fromkeys(training.began(), 1)
    assert training.at_once() == 2  # the adopted ones have kept their slots
    training.require_clean()


def test_jobs_that_ended_by_themselves_are_taken(training: Toy, run: Run) -> None:
    training.pace(0.5, "train-a")
    scheduler = training.start("train@a")
    eventually(lambda: begun(training, "train-a"), "the training runs")
    kill(scheduler)
    eventually(lambda: training.files("train@a", "rc").exists(), "the training ends")
    assert "train@a" not in training.lock()
    assert run("run", "train@a", "-C", training.root) == 0
    assert training.began() == {"train-a": 1}
    assert training.repro("train@a") == []


@pytest.mark.parametrize("change", ["inputs", "outputs"])
def test_jobs_that_ended_are_not_taken_if_something_changed_since(training: Toy, run: Run, change: str) -> None:
    training.pace(0.5, "train-a")
    scheduler = training.start("train@a")
    eventually(lambda: begun(training, "train-a"), "the training runs")
    kill(scheduler)
    eventually(lambda: training.files("train@a", "rc").exists(), "the training ends")
    if change == "inputs":
        training.set_lr("a", 0.7)
    else:
        (training.root / "out-a/weights").write_text("from elsewhere")
    assert run("run", "train@a", "-C", training.root) == 0
    assert training.began() == {"train-a": 2}
    expected = (training.root / "data.txt").read_text() + (training.root / "cells/a.json").read_text()
    assert (training.root / "out-a/weights").read_text() == expected


def test_a_living_job_whose_inputs_changed_is_ended(training: Toy, run: Run, capfd: Capture) -> None:
    training.pace(30, "train-a")
    scheduler = training.start("train@a")
    group = group_of(training, "train@a")
    eventually(lambda: begun(training, "train-a"), "the training runs")
    kill(scheduler)
    training.set_lr("a", 0.7)
    training.pace(0, "train-a")
    assert run("run", "train@a", "-C", training.root) == 0
    assert "ending a job of an earlier run" in capfd.readouterr().err
    assert not is_running(group)
    assert "0.7" in (training.root / "out-a/weights").read_text()
    assert training.repro("train@a") == []


def test_a_killed_job_fails_alone_and_is_run_again(training: Toy, run: Run) -> None:
    for cell in "ac":
        training.pace(0, f"train-{cell}")
    scheduler = training.start("train", "-j", "2")
    eventually(lambda: begun(training, "train-b"), "the training runs")
    os.killpg(group_of(training, "train@b"), signal.SIGKILL)
    reported, _ = scheduler.communicate(timeout=60)
    assert scheduler.returncode == 1
    assert "failed    train@b" in reported
    assert "killed by signal 9" in reported
    training.pace(0, "train-b")
    assert run("run", "train", "-C", training.root) == 0
    assert training.began() == {"train-a": 1, "train-b": 2, "train-c": 1}


def test_scheduler_and_jobs_killed_at_once(training: Toy, run: Run) -> None:
    training.pace(60, "train-b")
    training.pace(60, "train-c")
    training.pace(0, "train-a")
    scheduler = training.start("train", "-j", "2")
    group = group_of(training, "train@b")
    eventually(lambda: begun(training, "train-b", "train-c"), "two trainings run")
    kill(scheduler)
    for number in (group, group_of(training, "train@c")):
        os.killpg(number, signal.SIGKILL)
    (training.root / "out-b").mkdir()
    (training.root / "out-b/half").write_text("partial")
    for cell in "bc":
        training.pace(0, f"train-{cell}")
    assert run("run", "-j", 2, "-C", training.root) == 0
    assert {name: count for name, count in training.began().items() if count > 1} == {"train-b": 2, "train-c": 2}
    assert not (training.root / "out-b/half").exists()
    training.require_clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_jobs_and_leaves_all_in_order(training: Toy, run: Run, number: int) -> None:
    training.pace(0, "train-a")
    training.pace(60, "train-b")
    training.pace(60, "train-c")
    scheduler = training.start("-j", "3")
    group = group_of(training, "train@b")
    eventually(lambda: begun(training, "evaluate-a", "train-c"), "one cell is trained")
    reported = kill(scheduler, number)
    assert scheduler.returncode == 128 + number
    assert "ending" in reported
    assert not is_running(group)
    assert "train@a" in training.lock()
    assert not {"train@b", "train@c"} & set(training.lock())
    training.pace(0, "train-b")
    training.pace(0, "train-c")
    assert run("run", "-j", 2, "-C", training.root) == 0
    assert training.began()["train-a"] == 1
    training.require_clean()


def test_a_second_signal_kills_what_will_not_end(training: Toy) -> None:
    note = training.root / "note.sh"
    note.write_text("trap '' TERM\n" + note.read_text())
    training.pace(60, "train-a")
    scheduler = training.start("train@a")
    group = group_of(training, "train@a")
    eventually(lambda: begun(training, "train-a"), "the training runs")
    scheduler.send_signal(signal.SIGINT)
    eventually(lambda: training.files("train@a", "stop").exists(), "the job is asked to end")
    time.sleep(0.5)
    assert is_running(group)
    kill(scheduler, signal.SIGINT)
    assert scheduler.returncode == 130
    assert not is_running(group)


def test_other_runs_and_dvc_itself_are_kept_away(training: Toy, run: Run, capfd: Capture) -> None:
    training.pace(60, "train-a")
    scheduler = training.start("train@a")
    eventually(lambda: begun(training, "train-a"), "the training runs")
    assert run("run", "-C", training.root) == 2
    assert f"another `mhrctl run` works on this project (pid {scheduler.pid}" in capfd.readouterr().err
    with pytest.raises(AssertionError, match="busy"):
        training.dvc("repro", "--single-item", "train@a")
    kill(scheduler, signal.SIGINT)
    assert run("run", "--dry", "-C", training.root) == 0


def test_a_run_killed_while_it_records_loses_nothing(toy: Toy, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC touches outputs before its run-cache has them: what a job wrote is then known by its content alone."""
    from dvc.stage import Stage

    def touched(self: Stage, run_cache: bool) -> None:  # noqa: ARG001
        for out in self.outs:
            Path(out.fs_path).chmod(0o444)
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "save", touched)
        assert run("run", "data", "-C", toy.root) == 9
    assert run("run", "data", "-C", toy.root) == 0
    assert toy.began() == {"data": 1}


@pytest.mark.slow
def test_random_kills_lose_no_finished_cell(tmp_path: Path, run: Run) -> None:
    """20 trials: the scheduler, a job, or both are killed at random times until all is done."""
    cells = [f"c{number}" for number in range(6)]
    made = Toy.make(tmp_path / "made", cells, seconds=0.4)
    draw = random.Random(0)
    for trial in range(20):
        toy = made.copy(tmp_path / f"trial{trial}")
        killed: dict[str, int] = {}
        for _ in range(4):
            scheduler = toy.start("-j", "3")
            time.sleep(draw.uniform(1.0, 4.5))
            whom = draw.choice(["scheduler", "job", "both"])
            finished = {line[1] for line in toy.lines() if line[0] == "end"}
            if whom != "job":
                scheduler.kill()
            if whom != "scheduler":
                for path in toy.root.glob(".dvc/tmp/mhrctl/*.pid"):
                    name = path.stem.replace("@", "-")
                    if path.with_suffix(".rc").exists() or name in finished:
                        continue
                    with suppress(ProcessLookupError, IndexError):
                        os.killpg(int(path.read_text().split()[1]), signal.SIGKILL)
                        killed[name] = killed.get(name, 0) + 1
            scheduler.communicate(timeout=60)
        assert run("run", "-j", 3, "-C", toy.root) == 0
        ended = [line[1] for line in toy.lines() if line[0] == "end"]
        again = {name for name in ended if ended.count(name) > 1} - set(killed)
        assert not again, (trial, again, killed)
        toy.require_clean()
        toy.dvc("status")
