"""How `mhrctl run` shows a run: a table on a terminal, lines elsewhere, the plan, and how it ended."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from mhrctl.cli import display
from mhrctl.cli.run_view import LiveView, PlainView, conclude, last_progress, make_view, show_plan
from mhrctl.running.pipeline import State
from mhrctl.running.plan import Action, Planned
from mhrctl.running.progress import STOPPED, Entry, Progress
from tests.cli.conftest import Capture


@pytest.fixture
def progress() -> Progress:
    return Progress.of(["pretrain@a", "pretrain@b", "adapt@b"], {})


def test_a_line_says_what_begins_ends_and_fails(progress: Progress, capfd: Capture) -> None:
    view = PlainView()
    with view.showing(progress, 1):
        for name, entry in (
            ("pretrain@a", Entry(State.RUNNING, started=0.0)),
            ("pretrain@a", Entry(State.DONE, seconds=125.0)),
            ("pretrain@b", Entry(State.FAILED, seconds=3.21, note="exit code 3")),
            ("adapt@b", Entry(State.UNCHANGED)),
        ):
            progress.stages[name] = entry
            view.changed(name)
    assert capfd.readouterr().err.splitlines() == [
        "running   pretrain@a",
        "done      pretrain@a  2 min 5 s  [1/3]",
        "failed    pretrain@b  3.2 s  exit code 3  [2/3]",
    ]


def test_a_terminal_gets_a_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=stream, force_terminal=True, width=100, color_system=None))
    assert isinstance(make_view(), PlainView)  # tests are CI
    monkeypatch.delenv("CI")
    view = make_view()
    assert isinstance(view, LiveView)
    progress = Progress.of(["pretrain@a", "pretrain@b", "pretrain@c", "evaluate@a"], {"evaluate": 30.0})
    progress.stages["pretrain@a"] = Entry(State.DONE, seconds=100.0)
    progress.stages["pretrain@b"] = Entry(State.RUNNING, started=time.time() - 65)
    progress.stages["pretrain@c"] = Entry(State.FAILED, note="exit code 3")
    with view.showing(progress, 2):
        view.changed("pretrain@c")
    shown = stream.getvalue()
    assert "failed    pretrain@c  exit code 3" in shown
    assert re.search(r"stage +waiting +running +done +cached +unchanged +failed +blocked", shown)
    assert re.search(r"pretrain +1 +1 +1 *\n", shown)
    assert re.search(r"pretrain@b +1 min 5 s", shown)
    assert re.search(r"2/4 stages +about 3[45] s left", shown)


def test_the_end_is_counted_and_failures_come_with_their_last_lines(
    progress: Progress, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.log").write_text("first\nwhy [it] failed\n")
    progress.stages["pretrain@a"] = Entry(State.DONE, seconds=1.0)
    progress.stages["pretrain@b"] = Entry(State.FAILED, seconds=1.0, note="exit code 3", log=tmp_path / "b.log")
    progress.stages["adapt@b"] = Entry(State.BLOCKED)
    conclude(progress, 7325)
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "failed    pretrain@b  1.0 s  exit code 3"
    assert "    why [it] failed" in said
    assert "    log: b.log" in said
    assert said[-1] == "3 stages: 1 done, 1 failed, 1 blocked; 2 h 2 min. When that is put right, mhrctl run goes on from here"


def test_the_end_says_what_comes_next(progress: Progress, capfd: Capture) -> None:
    for states, stopping, said in (
        ((State.DONE, State.CACHED, State.UNCHANGED), False, "done: 2 stages in 58 s (1 from DVC's cache), 1 was up to date."),
        ((State.DONE, State.UNCHANGED, State.UNCHANGED), False, "done: 1 stage in 58 s, 2 were up to date."),
        ((State.UNCHANGED,) * 3, False, "nothing to do: 3 stages up to date."),
        ((State.DONE, State.WAITING, State.WAITING), True, "stopped: 1 of 3 stages done, 2 jobs ended; mhrctl run goes on"),
    ):
        for name, state in zip(progress.stages, states, strict=True):
            progress.stages[name] = Entry(state, note=STOPPED if state is State.WAITING else "")
        progress.stopping = stopping
        conclude(progress, 58)
        assert capfd.readouterr().err == said + (" from here\n" if stopping else " Next: mhrctl report\n")


def test_a_running_job_shows_the_last_progress_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "job.log"
    log.write_text("x" * 20_000 + "\nnote: step 1 of it\n")
    assert last_progress(tmp_path / "none") == last_progress(log) == ""
    monkeypatch.setattr(display, "done", lambda line: log.write_text(log.read_text() + line + "\n"))
    monkeypatch.setenv("MHRCTL_PROGRESS_SECONDS", "0.001")
    with display.track("pretrain mhr-h8-s0", 2_000, about="80 tasks") as bar:
        time.sleep(0.002)
        bar.advance(1_240, note="loss 0.412")
        time.sleep(0.002)
        bar.advance()
    assert last_progress(log) == "step 1,241 of 2,000, loss 0.412"
    progress = Progress.of(["pretrain@mhr-h8-s0"], {"pretrain": 30.0})
    progress.stages["pretrain@mhr-h8-s0"] = Entry(State.RUNNING, started=time.time() - 26, log=log)
    stream = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=stream, force_terminal=True, width=100, color_system=None))
    view = LiveView()
    with view.showing(progress, 1):
        pass
    assert re.search(r"pretrain@mhr-h8-s0 +2[67] s +step 1,241 of 2,000, loss 0.412", stream.getvalue())
    assert "left" in stream.getvalue()
    progress.stages["pretrain@mhr-h8-s0"] = Entry(State.RUNNING, started=time.time() - 31, log=log)  # longer than before
    stream.truncate(0)
    with view.showing(progress, 1):
        pass
    assert "left" not in stream.getvalue()
    progress.stages["pretrain@mhr-h8-s0"] = Entry(State.RUNNING, started=time.time() - 2, log=log)
    progress.stopping = True
    stream.truncate(0)
    with view.showing(progress, 1):
        pass
    assert "left" not in stream.getvalue()


def test_a_plan_shows_what_would_run_and_counts_the_rest(capfd: Capture) -> None:
    plan = [Planned("prepare", Action.NOTHING, ()), Planned("adapt@a", Action.RUN, ("deps changed: [x]", "no lock entry"))]
    show_plan(plan)
    shown = capfd.readouterr().out
    assert "deps changed: [x]; no lock entry" in shown
    assert "prepare" not in shown
    assert shown.splitlines()[-1] == "2 stages: 1 run, 1 unchanged; --stages lists them all"
    show_plan(plan[:1])
    assert capfd.readouterr().out == "1 stage: 1 unchanged\n"


def test_a_plan_groups_stages_that_do_the_same_for_the_same_reason(capfd: Capture) -> None:
    changed = "params changed: data/cells/{}.json adapt.lr 0.005 -> 0.006"
    cells = [f"{point}-s{seed}" for point in ("lora", "mhr-h8") for seed in (0, 1)]
    plan = [Planned(f"adapt@{cell}", Action.RUN, (changed.format(cell),)) for cell in cells]
    plan += [Planned(f"evaluate@{cell}", Action.MAYBE, (f"after adapt@{cell}",)) for cell in cells[:3]]
    plan += [Planned("report", Action.MAYBE, ("after evaluate@lora-s0 and 2 more",)), Planned("grid", Action.NOTHING, ())]
    show_plan(plan)
    rows = [re.split(r"\s{2,}", line.strip()) for line in capfd.readouterr().out.splitlines()[3:6]]
    assert rows == [
        ["4", "adapt", "run", "adapt.lr 0.005 -> 0.006", "lora, mhr-h8; seeds 0, 1"],
        ["3", "evaluate", "then", "if adapt changes", "lora-s0, lora-s1, mhr-h8-s0"],
        ["1", "report", "then", "if evaluate changes"],
    ]
    show_plan(plan, stages=True)
    shown = capfd.readouterr().out
    assert all(f" {planned.name} " in shown for planned in plan[:-1])
    assert shown.splitlines()[-1] == "9 stages: 4 run, 4 run if changed, 1 unchanged"
