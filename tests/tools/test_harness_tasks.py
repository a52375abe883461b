"""Tasks are looked up where they may be, and nothing is fetched that was not said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.errors import DataError, ParamsError
from mhrctl.hub import heard
from mhrctl.tools.harness_tasks import Asked, Tasks, load_tasks, stated


def task(name: str, **more: object) -> str:
    content = {
        "task": name,
        "dataset_path": "json",
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "input",
        "doc_to_target": "target",
        "generation_kwargs": {"until": ["\n"]},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    return json.dumps(content | more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a task of local data and one of the hub's."""
    rows = tmp_path / "tasks/rows.jsonl"
    rows.parent.mkdir()
    rows.write_text('{"input": "a", "target": "b"}\n')
    data = {"dataset_kwargs": {"data_files": {"test": str(rows)}}}
    (rows.parent / "local.yaml").write_text(task("local_one", tag="mine", **data))
    (rows.parent / "shots.yaml").write_text(task("never_shots", tag="mine", num_fewshot=0, **data))
    (rows.parent / "far.yaml").write_text(task("far_away", dataset_path="nobody/has-this"))
    (rows.parent / "group.yaml").write_text(json.dumps({"group": "all_of_them", "task": ["local_one", "far_away"]}))
    return rows.parent


@pytest.fixture
def load(walked: Path) -> Callable[..., Tasks]:
    pytest.importorskip("lm_eval", reason="needs lm_eval (pip install 'mhrctl[harness]')")
    return lambda *names, **more: load_tasks(Asked(names, **more), Project(walked))


def test_names_tags_and_groups_are_tasks(load: Callable[..., Tasks], folder: Path) -> None:
    tasks = load("mine", folders=[folder])
    assert sorted(tasks.all) == ["local_one", "never_shots"]
    assert tasks.ours == {}
    assert [ours for ours, _ in tasks.parts] == [False]
    with_shots = load("mine", folders=[folder], fewshot=2)
    assert with_shots.all["local_one"].config.num_fewshot == 2
    assert with_shots.all["never_shots"].config.num_fewshot == 0  # which its author forbids


@pytest.mark.parametrize("name", ["far_away", "all_of_them"])
def test_what_must_be_fetched_says_so(load: Callable[..., Tasks], folder: Path, name: str) -> None:
    said: list[str] = []
    with (
        heard(said.append),
        pytest.raises(DataError, match=rf"--harness {name}: its data set nobody/has-this: HF_HUB_OFFLINE is set; run it where"),
    ):
        load(name, folders=[folder])
    assert said == []  # nothing was asked


def test_an_unknown_task_is_one_line(load: Callable[..., Tasks], folder: Path) -> None:
    with pytest.raises(DataError, match=r"--harness local_on: no such task, group or tag; did you mean local_one\?;"):
        load("local_on", folders=[folder])
    with pytest.raises(DataError, match=r"--harness-tasks .*nowhere: no such folder"):
        load("local_one", folders=[folder / "nowhere"])
    (folder / "local.yaml").write_text(task("local_one", output_type="no_such_type"))
    with pytest.raises(DataError, match=r"--harness local_one: lm_eval cannot run it: .*no_such_type"):
        load("local_one", folders=[folder])


def test_its_own_tasks_are_there_without_a_folder(load: Callable[..., Tasks]) -> None:
    with pytest.raises(DataError, match="--harness arc_easy: its data set allenai/ai2_arc: HF_HUB_OFFLINE is set"):
        load("arc_easy")


def test_without_the_harness_nothing_is_run(walked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(DataError, match=r"--harness needs the package lm_eval \(pip install 'mhrctl\[harness\]'\)"):
        load_tasks(Asked(["arc_easy"]), Project(walked))


def test_what_fails_in_the_harness_is_one_line() -> None:
    def fails() -> None:
        raise ZeroDivisionError("division\nby zero")

    def refuses() -> None:
        raise ParamsError("ours")

    with pytest.raises(DataError, match=r"^--harness x: lm_eval cannot run it: division by zero$"):
        stated("--harness x", fails)
    with pytest.raises(ParamsError, match=r"^ours$"):
        stated("--harness x", refuses)
