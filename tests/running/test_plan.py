"""The plan and its reasons."""

from __future__ import annotations

import shutil

from mhrctl.running.engine import MISSING, difference, open_pipeline
from mhrctl.running.plan import Action, Planned, make_plan
from tests.running.toy import Toy


def plan(toy: Toy, *targets: str) -> dict[str, Planned]:
    with open_pipeline(toy.root, targets) as pipeline:
        return {planned.name: planned for planned in make_plan(pipeline)}


def test_reasons_name_what_changed(done: Toy) -> None:
    done.set_lr("a", 0.5)
    shutil.rmtree(done.root / "out-b")
    (done.root / "out-c/weights").write_text("by hand")
    done.set_cells(["a", "b", "c", "d"])
    planned = plan(done)
    assert planned["data"] == Planned("data", Action.NOTHING, ())
    assert planned["train@a"] == Planned("train@a", Action.RUN, ("params changed: cells/a.json train.lr 0.1 -> 0.5",))
    assert planned["train@b"] == Planned("train@b", Action.RESTORE, ("output out-b missing",))
    assert planned["train@c"] == Planned("train@c", Action.RESTORE, ("output out-c changed",))
    assert planned["train@d"] == Planned("train@d", Action.RUN, ("never ran",))
    assert planned["evaluate@a"] == Planned("evaluate@a", Action.MAYBE, ("after train@a",))
    assert planned["report"].reasons[0] == "params changed: cells.yaml cells.d added"
    assert planned["report"].action is Action.RUN


def test_a_changed_source_is_named(done: Toy) -> None:
    (done.root / "data.txt").write_text("new")
    text = (done.root / "dvc.yaml").read_text().replace("echo data >", "printf data >")
    (done.root / "dvc.yaml").write_text(text + "  unused:\n    cmd: echo always\n")
    planned = plan(done)
    assert planned["data"].reasons == ("output data.txt changed", "command changed")
    assert planned["unused"] == Planned("unused", Action.RUN, ("always runs",))


def test_a_missing_source_is_a_reason_and_no_failure(done: Toy) -> None:
    text = (done.root / "dvc.yaml").read_text().replace("deps: [data.txt]", "deps: [data.txt, tasks.txt]")
    (done.root / "dvc.yaml").write_text(text)
    assert plan(done, "train@a")["train@a"] == Planned("train@a", Action.RUN, ("dependency tasks.txt missing",))


def test_a_plan_changes_nothing(done: Toy) -> None:
    done.set_lr("a", 0.5)
    before = {path: path.stat().st_mtime_ns for path in done.root.rglob("*") if path.is_file() and ".dvc" not in path.parts}
    assert plan(done)["train@a"].action is Action.RUN
    after = {path: path.stat().st_mtime_ns for path in done.root.rglob("*") if path.is_file() and ".dvc" not in path.parts}
    assert after == before


def test_differences_are_reported_by_leaf_and_not_all() -> None:
    assert difference("adapt", {"lr": 0.01, "steps": 5}, {"lr": 0.02, "steps": 5}) == ["adapt.lr 0.01 -> 0.02"]
    assert difference("adapt", {"a": {"b": 1}}, {"a": {"c": 2}}) == ["adapt.a.b removed", "adapt.a.c = 2 added"]
    assert difference("adapt", MISSING, {"a": 1}) == ["adapt added"]
    assert difference("lora", None, {"adapt": {"lr": 1}}) == ["lora.adapt added"]  # `lora:` in YAML
    assert difference("lora", {"adapt": {"lr": 1}}, None) == ["lora.adapt removed"]
    assert difference("lora", None, {}) == ["lora None -> {}"]
    assert difference("methods", {"lora": None}, {"lora": None, "poly": None}) == ["methods.poly added"]
    many = difference("x", {str(key): 0 for key in range(9)}, {str(key): 1 for key in range(9)})
    assert many == ["x.0 0 -> 1", "x.1 0 -> 1", "x.2 0 -> 1", "6 more"]
