"""What `mhrctl run` does beside the package `running`: pipelines opened, slots made, signals; nothing of it prints."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.running.engine import open_pipeline
from mhrctl.running.internals import InternalsError
from mhrctl.running.pipeline import State
from mhrctl.running.plan import Action
from mhrctl.running.progress import Progress
from mhrctl.tools.grid import sync
from mhrctl.tools.run import Cluster, Jobs, QuitError, plan, run
from tests.running.toy import Toy

STAGES = ["data", "train@a", "train@b", "evaluate@a", "evaluate@b", "report"]


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self, on_change: Callable[[State], object] = bool) -> None:
        self.lines: list[str] = []
        self.at_once = 0
        self.shown = False
        self._on_change = on_change
        self._progress = Progress({})

    @contextmanager
    def showing(self, progress: Progress, at_once: int) -> Iterator[None]:
        self._progress, self.at_once, self.shown = progress, at_once, True
        yield
        self.shown = False

    def changed(self, name: str) -> None:
        assert self.shown
        self._on_change(self._progress.stages[name].state)

    def report(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy project in which nothing has run."""
    return Toy.make(tmp_path_factory.mktemp("tool") / "project", ["a", "b"])


@pytest.fixture
def toy(made: Toy, tmp_path: Path) -> Toy:
    """A copy of it."""
    return made.copy(tmp_path / "toy")


@pytest.fixture
def untested_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of DVC whose inside is another."""

    def check() -> None:
        raise InternalsError("dvc 99")

    monkeypatch.setattr("mhrctl.tools.run.check_internals", check)


def test_all_stages_run_and_nothing_is_printed(toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    view, here = Recorder(), Path.cwd()
    ended = run(toy.root, [], Jobs(at_once=2, threads=1), view=view)
    assert {name: entry.state for name, entry in ended.progress.stages.items()} == dict.fromkeys(STAGES, State.DONE)
    assert ended.signal is None
    assert ended.seconds > 0
    assert (view.at_once, view.lines) == (2, [])
    assert Path.cwd() == here
    assert capfd.readouterr() == ("", "")
    again = run(toy.root, ["evaluate@a"], Jobs(), view=Recorder())
    assert set(again.progress.stages) == {"data", "train@a", "evaluate@a"}
    assert {entry.state for entry in again.progress.stages.values()} == {State.UNCHANGED}


@pytest.mark.parametrize("targets", [[], ["evaluate"]])
def test_what_a_run_has_left_up_to_date_is_not_examined_again(
    toy: Toy, targets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(toy.root, targets, Jobs(), view=Recorder())
    monkeypatch.setattr("mhrctl.tools.run.open_pipeline", lambda *_: pytest.fail("DVC was asked"))
    again = run(toy.root, targets, Jobs(), view=Recorder())
    assert list(again.progress.stages) == list(before.progress.stages)
    assert {entry.state for entry in again.progress.stages.values()} == {State.UNCHANGED}
    toy.set_beams(2)
    with pytest.raises(pytest.fail.Exception, match="DVC was asked"):
        run(toy.root, targets, Jobs(), view=Recorder())


def test_what_has_failed_or_always_runs_is_never_up_to_date(toy: Toy) -> None:
    (toy.root / "fail-evaluate-a").touch()
    for _ in range(2):
        ended = run(toy.root, ["evaluate"], Jobs(), view=Recorder())
        assert ended.progress.stages["evaluate@a"].state is State.FAILED
    (toy.root / "fail-evaluate-a").unlink()
    dvc_yaml = toy.root / "dvc.yaml"
    dvc_yaml.write_text(dvc_yaml.read_text().replace("    outs: [data.txt]", "    outs: [data.txt]\n    always_changed: true"))
    for _ in range(2):
        assert run(toy.root, [], Jobs(), view=Recorder()).progress.stages["data"].state is State.DONE


def test_an_edit_of_dvc_yaml_during_a_run_is_seen_by_the_next(toy: Toy) -> None:
    dvc_yaml = toy.root / "dvc.yaml"

    def edit(state: State) -> None:
        if state is State.RUNNING and "more" not in dvc_yaml.read_text():
            dvc_yaml.write_text(dvc_yaml.read_text() + "  more: {cmd: touch more, deps: [data.txt], outs: [more]}\n")

    assert "more" not in run(toy.root, [], Jobs(), view=Recorder(edit)).progress.stages
    assert run(toy.root, [], Jobs(), view=Recorder()).progress.stages["more"].state is State.DONE


def test_what_is_read_from_elsewhere_is_never_up_to_date(toy: Toy) -> None:
    run(toy.root, [], Jobs(), view=Recorder())
    for note in (toy.root / ".dvc/tmp/mhrctl").glob("*.note"):
        note.unlink()
    with open_pipeline(toy.root, ["data"]) as pipeline:
        (stage,) = pipeline._stages.values()
        with pipeline.session():
            assert pipeline.examine("data") is State.UNCHANGED
            stage.outs[0].def_path = "s3://bucket/data.txt"
            pipeline.note_up_to_date(["data"])
    assert not list((toy.root / ".dvc/tmp/mhrctl").glob("*.note"))


def test_a_plan_runs_nothing(toy: Toy) -> None:
    lines: list[str] = []
    planned = plan(toy.root, ["train@a"], Jobs(), report=lines.append)
    assert [(stage.name, stage.action) for stage in planned] == [("data", Action.RUN), ("train@a", Action.RUN)]
    assert lines == []
    assert not toy.began()


@pytest.mark.usefixtures("untested_dvc")
def test_an_untested_dvc_is_reported_and_gone_around(toy: Toy) -> None:
    view = Recorder()
    ended = run(toy.root, ["train@a"], Jobs(), view=view)
    assert {entry.state for entry in ended.progress.stages.values()} == {State.DONE}
    assert view.lines == ["dvc 99: going by `dvc repro --single-item` instead, which is slower"]
    with pytest.raises(ArtifactError, match="--dry needs a tested version of dvc"):
        plan(toy.root, [], Jobs(), report=view.report)
    elsewhere = Jobs(cluster=Cluster("tcp://127.0.0.1:9", None, None, "."))
    with pytest.raises(ArtifactError, match="--dask needs a tested version of dvc"):
        run(toy.root, [], elsewhere, view=view)


def test_jobs_are_as_many_as_cores_unless_there_may_be_a_gpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhrctl.tools.run.cores", lambda: 6)
    monkeypatch.delenv("MHRCTL_DEVICE", raising=False)
    for gpu, jobs, at_once in (
        (False, Jobs(), 6),
        (False, Jobs(threads=4), 1),
        (False, Jobs(threads=2), 3),
        (False, Jobs(threads=9), 1),
        (False, Jobs(at_once=2), 2),
        (False, Jobs(slots=3), 3),
        (True, Jobs(), 1),
    ):
        monkeypatch.setattr("mhrctl.tools.run.may_have_gpu", lambda gpu=gpu: gpu)
        view = Recorder()
        (toy.root / "dvc.yaml").touch()  # else nothing is looked at
        run(toy.root, ["data"], jobs, view=view)
        assert (view.at_once, view.lines) == (at_once, [])
    monkeypatch.setenv("MHRCTL_DEVICE", "cpu")
    (toy.root / "dvc.yaml").touch()
    view = Recorder()
    run(toy.root, ["data"], Jobs(), view=view)
    assert view.at_once == 6


def test_slots_are_those_of_params_yaml(project: Path) -> None:
    where = Project(project)
    where.params.write_text(where.params.read_text() + "run:\n  slots: {pretrain: 3}\n")
    with pytest.raises(ArtifactError, match=r"data/cells: is not written yet; run `mhrctl grid sync`"):
        run(project, [], Jobs(), view=Recorder())
    sync(load_params(where.params), where)
    with pytest.raises(ParamsError, match=r"params.yaml:\d+: run.slots.pretrain: 3 is more than the 2 slots there are"):
        plan(project, [], Jobs(slots=2), report=Recorder().report)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        run(project / "nowhere", [], Jobs(), view=Recorder())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_jobs_and_the_run(toy: Toy, number: signal.Signals) -> None:
    toy.pace(30)

    def interrupt(state: State) -> None:
        if state is State.RUNNING:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    ended = run(toy.root, [], Jobs(), view=Recorder(interrupt))
    assert ended.signal == number
    assert State.DONE not in {entry.state for entry in ended.progress.stages.values()}
    assert signal.getsignal(number) is before


def test_the_second_signal_quits(toy: Toy) -> None:
    toy.pace(30)

    def interrupt(state: State) -> None:
        if state is State.RUNNING:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    view, before = Recorder(interrupt), signal.getsignal(signal.SIGINT)
    with pytest.raises(QuitError) as stopped:
        run(toy.root, [], Jobs(), view=view)
    assert stopped.value.signal == signal.SIGTERM
    assert view.lines[-1] == "quit; `mhrctl run` goes on from here"
    assert signal.getsignal(signal.SIGINT) is before
    toy.pace(0)
    ended = run(toy.root, [], Jobs(), view=Recorder())
    assert {entry.state for entry in ended.progress.stages.values()} == {State.DONE}
