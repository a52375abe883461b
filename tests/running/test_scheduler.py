"""What runs, how often, and what DVC says of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from mhrctl.running.engine import open_pipeline
from mhrctl.running.pipeline import StageError, State
from mhrctl.running.scheduler import Scheduler
from mhrctl.running.slots import make_slots
from tests.conftest import Run
from tests.running.toy import Toy

Capture = pytest.CaptureFixture[str]
P = ParamSpec("P")
T = TypeVar("T")


def test_everything_runs_once_and_dvc_finds_its_own_work(toy: Toy, made_done: Toy, run: Run) -> None:
    toy.pace(0.7, "train-a")  # so that the others end before it, and dvc.lock is not in order by chance
    assert run("run", "-j", 3, "-C", toy.root) == 0
    assert set(toy.began().values()) == {1}
    assert len(toy.began()) == 8
    toy.require_clean()
    assert "up to date" in toy.dvc("status")
    assert list(toy.lock().items()) == list(made_done.lock().items())
    assert toy.cached() == made_done.cached()


def test_an_edit_runs_only_what_hangs_on_it(done: Toy, run: Run) -> None:
    def edited(expected: set[str]) -> None:
        done.forget()
        assert run("run", "-j", 2, "-C", done.root) == 0
        assert set(done.began()) == expected

    edited(set())
    done.set_cells(["d", "a", "b", "c"])
    edited({"train-d", "evaluate-d", "report"})
    done.set_lr("b", 0.5)
    edited({"train-b", "evaluate-b", "report"})
    done.set_beams(4)
    edited({"evaluate-a", "evaluate-b", "evaluate-c", "evaluate-d", "report"})
    done.set_cells(["a", "b", "d"])
    edited({"report"})
    done.require_clean()


def test_reverting_restores_from_the_run_cache(done: Toy, run: Run, capfd: Capture) -> None:
    weights = (done.root / "out-b/weights").read_text()
    done.set_lr("b", 0.5)
    assert run("run", "-C", done.root) == 0
    done.set_lr("b", 0.1)
    done.forget()
    capfd.readouterr()
    assert run("run", "-C", done.root) == 0
    assert set(done.began()) == {"report"}  # its output is not cached, and so not in DVC's run-cache either
    assert (done.root / "out-b/weights").read_text() == weights
    assert "done: 3 stages in " in capfd.readouterr().err
    done.require_clean()


def test_a_missing_output_comes_back_from_the_cache(done: Toy, run: Run) -> None:
    (done.root / "out-a/weights").unlink()
    assert run("run", "-C", done.root) == 0
    assert (done.root / "out-a/weights").exists()
    assert not done.began()


def test_targets_are_those_of_dvc(toy: Toy, run: Run) -> None:
    assert run("run", "train@a", "evaluate@b", "-C", toy.root) == 0
    assert set(toy.began()) == {"data", "train-a", "train-b", "evaluate-b"}
    assert run("run", "train", "-C", toy.root) == 0
    assert set(toy.began()) == {"data", "train-a", "train-b", "train-c", "evaluate-b"}


def test_a_failure_stops_only_what_needs_it(toy: Toy, run: Run, capfd: Capture) -> None:
    (toy.root / "fail-train-b").touch()
    assert run("run", "-j", 2, "-C", toy.root) == 1
    reported = capfd.readouterr().err
    assert "failed    train@b" in reported
    assert "exit code 3" in reported
    assert "this is why train-b failed" in reported
    assert "train@b.log" in reported
    assert "blocked   evaluate@b  needs train@b" in reported
    assert "blocked   report  needs evaluate@b" in reported
    assert "1 failed, 2 blocked" in reported
    assert set(toy.began()) == {"data", "train-a", "train-b", "train-c", "evaluate-a", "evaluate-c"}
    (toy.root / "fail-train-b").unlink()
    toy.forget()
    assert run("run", "-j", 2, "-C", toy.root) == 0
    assert set(toy.began()) == {"train-b", "evaluate-b", "report"}
    toy.require_clean()


def test_fail_fast_starts_nothing_more(toy: Toy, run: Run) -> None:
    (toy.root / "fail-train-a").touch()
    assert run("run", "--fail-fast", "-j", 1, "-C", toy.root) == 1
    assert set(toy.began()) == {"data", "train-a"}


def test_inputs_edited_while_a_stage_runs_are_not_recorded(toy: Toy, run: Run, capfd: Capture) -> None:
    note = toy.root / "note.sh"
    note.write_text(note.read_text() + "test $1 = train-a && echo '{\"train\": 9}' > cells/a.json; true\n")
    assert run("run", "-j", 2, "-C", toy.root) == 1
    assert "failed    train@a" in (reported := capfd.readouterr().err)
    assert "its inputs changed while it ran" in reported
    assert "train@a" not in toy.lock()
    assert "train@b" in toy.lock()
    note.write_text(note.read_text().replace("test $1 = train-a", "false"))
    toy.forget()
    assert run("run", "-C", toy.root) == 0
    assert set(toy.began()) == {"train-a", "evaluate-a", "report"}
    assert '"train": 9' in (toy.root / "out-a/weights").read_text()


def test_a_missing_output_fails_the_stage(toy: Toy, run: Run, capfd: Capture) -> None:
    note = toy.root / "note.sh"
    note.write_text(note.read_text() + "test $1 = train-a && rm -r out-a; true\n")
    assert run("run", "train", "-C", toy.root) == 1
    assert "out-a" in capfd.readouterr().err
    assert "train@a" not in toy.lock()


def test_jobs_run_at_once_and_no_more_than_asked(toy: Toy, run: Run) -> None:
    toy.pace(0.7)
    assert run("run", "train", "-j", 2, "-C", toy.root) == 0
    assert toy.at_once() == 2


def test_each_gpu_serves_one_job(toy: Toy, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.running.machine._known_gpus", lambda: None)
    toy.pace(0.7)
    assert run("run", "train", "--gpus", "4,7", "-C", toy.root) == 0
    seen = [line[2] for line in toy.lines() if line[0] == "begin"]
    assert toy.at_once() == 2
    assert set(seen[1:3]) == {"4", "7"}


def test_lines_of_a_command_run_in_shells_of_their_own(tmp_path: Path, run: Run) -> None:
    toy = Toy.make(tmp_path / "lines", ["a"])
    (toy.root / "dvc.yaml").write_text(
        'stages:\n  one:\n    wdir: cells\n    cmd:\n      - export NAME=first; echo "it\'s" > ../out\n'
        '      - echo "$NAME $DVC_STAGE" >> ../out\n    outs: [../out]\n'
    )
    assert run("run", "-C", toy.root) == 0
    assert (toy.root / "out").read_text() == "it's\n one\n"
    toy.require_clean()


def test_frozen_stages_and_sources_go_dvcs_own_way(toy: Toy, run: Run, capfd: Capture) -> None:
    (toy.root / "source.txt").write_text("one")
    toy.dvc("add", "source.txt", "-q")
    (toy.root / "dvc.yaml").write_text(
        "stages:\n"
        "  first: {cmd: sh note.sh first 'cp source.txt first.txt', deps: [source.txt], outs: [first.txt]}\n"
        "  held: {cmd: sh note.sh held 'cp first.txt held.txt', deps: [first.txt], outs: [held.txt], frozen: true}\n"
        "  last: {cmd: sh note.sh last 'cp held.txt last.txt', deps: [held.txt], outs: [last.txt]}\n"
        "  always: {cmd: sh note.sh always 'true'}\n"
    )
    (toy.root / "held.txt").write_text("kept")
    for expected in ({"first", "last", "always"}, {"always"}):
        toy.forget()
        assert run("run", "-j", 2, "-C", toy.root) == 0
        assert set(toy.began()) == expected
    assert (toy.root / "last.txt").read_text() == "kept"
    (toy.root / "source.txt").write_text("two")
    toy.forget()
    assert run("run", "-C", toy.root) == 0
    assert set(toy.began()) == {"first", "always"}
    assert toy.repro() == ["always"]
    (toy.root / "source.txt").unlink()
    capfd.readouterr()
    assert run("run", "-C", toy.root) == 1
    assert "failed    source.txt.dvc" in capfd.readouterr().err


def test_a_pipeline_in_a_subfolder_has_the_same_jobs_from_anywhere(tmp_path: Path, run: Run) -> None:
    toy = Toy.make(tmp_path / "whole" / "study", ["a"])
    (toy.root / ".dvc").rename(tmp_path / "whole" / ".dvc")
    assert run("run", "-j", 2, "-C", toy.root) == 0
    toy.require_clean()
    assert (tmp_path / "whole/.dvc/tmp/mhrctl/study%2Fdvc.yaml%3Atrain@a.log").exists()
    toy.set_lr("a", 0.3)
    assert run("run", "study/dvc.yaml:train@a", "-C", tmp_path / "whole") == 0
    assert toy.began() == {"data": 1, "train-a": 2, "evaluate-a": 1, "report": 1}
    assert sorted(path.name for path in (tmp_path / "whole/.dvc/tmp/mhrctl").glob("*train*.log")) == [
        "study%2Fdvc.yaml%3Atrain@a.log"
    ]


class Nobody(Executor):
    """A cluster whose workers never come."""

    def __init__(self) -> None:
        self.calls: list[Future[Any]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:  # noqa: ARG002
        call: Future[T] = Future()
        call.add_done_callback(lambda ended: ended.cancelled() and ended.set_running_or_notify_cancel())
        self.calls.append(call)
        return call


def test_a_run_whose_jobs_nobody_takes_up_can_be_ended(toy: Toy, run: Run) -> None:
    nobody = Nobody()
    with open_pipeline(toy.root, ["data"]) as pipeline:
        scheduler = Scheduler(pipeline, nobody, 1, watch=lambda _name: scheduler.stop())
        progress = scheduler.run()
    assert [call.cancelled() for call in nobody.calls] == [True]
    assert (progress.stages["data"].state, progress.stages["data"].note) == (State.WAITING, "stopped")
    assert run("run", "data", "-C", toy.root) == 0


class Refusing(Executor):
    """Takes no job."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:  # noqa: ARG002
        raise StageError("this is why")


def test_a_job_that_cannot_be_sent_fails_its_stage_and_holds_nothing(toy: Toy) -> None:
    toy.repro("data")
    slots = make_slots(1, [], None, {})
    with open_pipeline(toy.root, ["train"]) as pipeline:
        progress = Scheduler(pipeline, Refusing(), 1, slots=slots, keep_going=False).run()
        assert progress.stages["train@a"].note == "this is why"
        assert slots.take("another", "train") is not None
        assert toy.repro("train@a") == ["train@a"]  # whose paths are free
