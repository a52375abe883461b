"""How long jobs take: from logs, measured steps and operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.config.resolve import Settings, load_params
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.estimate import backbone_shape
from mhrctl.tools.operations import Suite, Weights, texts_of
from mhrctl.tools.timing import (
    IMPORTS,
    SHORT,
    START,
    Device,
    Job,
    cpu,
    estimated_seconds,
    gpu,
    jobs_of,
    logged,
    predict,
    work_of,
)

HUB = ["backbone.source=hub", "backbone.name=a/b", "backbone.revision=main"]
ONE = Device("a toy", 1e9, 0.0)


def suite_of(folder: Path, settings: Settings) -> Suite:
    shape = backbone_shape(settings.params.backbone, folder, 100)
    assert shape is not None
    tasks = TaskCounts(3, 3, 2)
    return Suite(Weights.of(shape.linears), texts_of(Project(folder), settings.params.prepare, tasks), tasks)


def job(jobs: list[Job], name: str) -> Job:
    (chosen,) = [each for each in jobs if each.name == name]
    return chosen


def test_jobs_are_those_of_the_pipeline(walked_all: Path) -> None:
    settings = load_params(walked_all / "params.yaml", ["grid.methods.mosa.extra_steps=[5]"])
    names = [each.name for each in jobs_of(settings)]
    assert len(names) == len(set(names))
    assert {"prepare", "backbone", "index", "evaluate-backbone", "report"} <= set(names)
    assert {"pretrain@mhr-h4-s0", "average@mhr-h4-s0", "adapt@mhr_z-h4-s0", "evaluate@mhr_mu-h4-s0"} <= set(names)
    assert {"pretrain@mosa-x5-s0", "evaluate@mosa-x5-s0"} <= set(names)
    assert "pretrain@mhr_z-h4-s0" not in names  # it adapts from mhr's
    assert "adapt@mosa-x5-s0" not in names  # extra steps are not adapted


def test_seeds_have_one_key(project: Path) -> None:
    jobs = jobs_of(load_params(project / "params.yaml", ["grid.seeds=[0, 1]"]))
    assert {each.key for each in jobs if each.cell and each.cell.method == "lora"} == {
        "pretrain@lora",
        "adapt@lora",
        "evaluate@lora",
    }


Log = Callable[..., None]


@pytest.fixture
def log(copy: Path) -> Log:
    """Makes logs the only ones of the walked project."""

    def write(**seconds: float) -> None:
        for path in (copy / "data/log").glob("*.json"):
            path.unlink()
        for name, took in seconds.items():
            (copy / f"data/log/{name.replace('__', '-')}.json").write_text(json.dumps({"seconds": took}))

    return write


def logs_of(folder: Path, *sets: str) -> dict[str, float]:
    settings = load_params(folder / "params.yaml", sets)
    known = logged(jobs_of(settings), settings, Project(folder), suite_of(folder, settings))
    return {name: took - IMPORTS for name, took in known.items()}  # which logs do not have


def test_what_has_run_takes_as_long_again(copy: Path, log: Log) -> None:
    log(prepare=1, backbone=8, pretrain__lora__s0=30, adapt__lora__s0=7, evaluate__backbone=3)
    assert logs_of(copy) == {
        "prepare": 1.0,
        "backbone": 8.0,
        "pretrain@lora-s0": 30.0,
        "adapt@lora-s0": 7.0,
        "evaluate-backbone": 3.0,
    }


def test_what_has_changed_since_takes_longer_in_proportion(copy: Path, log: Log) -> None:
    log(pretrain__lora__s0=30, adapt__lora__s0=7, backbone=8)
    bare = ["pretrain.validate_examples=0", "pretrain.steps=400"]
    longer = logs_of(copy, *bare)
    assert longer["pretrain@lora-s0"] > 30 * 50  # a hundred times the steps, whose validations are no longer
    assert logs_of(copy, "adapt.batch_size=4")["adapt@lora-s0"] > 7 * 1.2
    assert logs_of(copy, "backbone.scratch.steps=6")["backbone"] == 3 * 8
    for changed in (["backbone.scratch.d_model=32"], HUB):
        settings = load_params(copy / "params.yaml", changed)
        assert "backbone" not in logged(jobs_of(settings), settings, Project(copy), None)


def test_an_output_that_is_gone_leaves_its_log(copy: Path, log: Log) -> None:
    log(pretrain__lora__s0=30)
    (copy / "data/pretrain/lora-s0/card.json").unlink()
    assert logs_of(copy, "pretrain.steps=400") == {"pretrain@lora-s0": 30.0}


def test_a_card_of_settings_that_are_none_says_nothing(copy: Path, log: Log) -> None:
    log(pretrain__lora__s0=30)
    path = copy / "data/pretrain/lora-s0/card.json"
    record = opened(json.loads(path.read_text()))
    record["params"]["pretrain"]["steps"] = -1
    path.write_text(json.dumps(sealed(record)))
    assert logs_of(copy) == {}


def jobs_and_estimates(folder: Path) -> tuple[list[Job], dict[str, float]]:
    settings = load_params(folder / "params.yaml")
    jobs = jobs_of(settings)
    return jobs, estimated_seconds(jobs, settings, suite_of(folder, settings), ONE)


def test_the_estimate_is_the_work_at_the_devices_rate(project: Path) -> None:
    settings = load_params(project / "params.yaml")
    suite, jobs = suite_of(project, settings), jobs_of(settings)
    one = job(jobs, "pretrain@lora-s0")
    work = work_of(one, settings, suite)
    assert work is not None
    assert one.params is not None
    assert work == suite.pretrain(one.params.cell.row, one.params.pretrain)
    slow = Device("slow", 1e6, 0.5)
    took = estimated_seconds(jobs, settings, suite, slow)
    assert took["pretrain@lora-s0"] == START + work.operations / 1e6 + work.calls * suite.weights.layers * 0.5
    assert took["report"] == SHORT["report"]
    assert "prepare" not in took


def test_a_hub_backbone_is_not_trained(project: Path) -> None:
    settings = load_params(project / "params.yaml", HUB)
    took = estimated_seconds(jobs_of(settings), settings, suite_of(project, load_params(project / "params.yaml")), ONE)
    assert took["backbone"] == START


def test_nothing_known_is_the_estimate(project: Path) -> None:
    jobs, estimated = jobs_and_estimates(project)
    said = predict(jobs, estimated=estimated, measured={}, logs={})
    assert said.seconds == estimated
    assert said.total == sum(estimated.values())
    assert said.is_rough
    assert said.missing == ["prepare"]
    assert said.commands("estimated") == ["backbone", "pretrain", "average", "adapt", "evaluate", "report"]
    assert said.longest[1] == max(estimated.values())


def test_cells_of_a_stage_go_by_those_that_have_run(project: Path) -> None:
    jobs, estimated = jobs_and_estimates(project)
    logs = {"prepare": 2.0, "pretrain@lora-s0": 3 * estimated["pretrain@lora-s0"]}
    said = predict(jobs, estimated=estimated, measured={}, logs=logs)
    assert said.seconds["pretrain@mhr-h4-s0"] == pytest.approx(3 * estimated["pretrain@mhr-h4-s0"])
    assert said.seconds["adapt@lora-s0"] == pytest.approx(3 * estimated["adapt@lora-s0"])  # at the speed of what is known
    assert said.seconds["report"] == SHORT["report"]
    assert said.commands("logged") == ["prepare", "pretrain"]
    assert said.commands("scaled") == ["backbone", "adapt", "evaluate"]
    assert said.missing == []


def test_what_is_measured_now_counts_more_than_an_earlier_run(project: Path) -> None:
    jobs, estimated = jobs_and_estimates(project)
    said = predict(jobs, estimated=estimated, measured={"pretrain@lora": 9.0}, logs={"pretrain@lora-s0": 7.0})
    assert said.seconds["pretrain@lora-s0"] == 9.0
    assert said.commands("measured") == ["pretrain"]


def test_without_sizes_a_stage_takes_the_mean_of_its_cells(project: Path) -> None:
    jobs, _ = jobs_and_estimates(project)
    logs = {"prepare": 1.0, "pretrain@lora-s0": 30.0, "pretrain@poly-s0": 50.0, "adapt@lora-s0": 7.0}
    said = predict(jobs, estimated={}, measured={}, logs=logs)
    assert said.total == 1 + 30 + 50 + 40 + 5 * 7
    assert said.longest == ("pretrain@poly-s0", 50.0)
    assert said.missing == ["backbone", "average", "evaluate", "report"]
    assert not said.is_rough


def test_a_small_part_that_is_estimated_is_no_rough_time(project: Path) -> None:
    jobs, estimated = jobs_and_estimates(project)
    logs = {each.name: 1e6 for each in jobs if each.command != "evaluate"}
    small, large = ({name: by if name.startswith("evaluate") else 1.0 for name in estimated} for by in (1e-3, 1.0))
    assert not predict(jobs, estimated=small, measured={}, logs=logs).is_rough
    assert predict(jobs, estimated=large, measured={}, logs=logs).is_rough


def test_devices_are_known_by_name() -> None:
    h100, a100 = gpu("NVIDIA H100 80GB HBM3", halves=True), gpu("NVIDIA A100-SXM4-40GB", halves=True)
    assert h100.is_gpu
    assert h100.operations > 3 * a100.operations
    assert a100.operations > 10 * gpu("NVIDIA A100-SXM4-40GB", halves=False).operations
    assert gpu("a card of 2031", halves=True).operations > 0
    assert not cpu(1).is_gpu
    assert cpu(4).operations == 4 * cpu(1).operations
    assert (cpu(1).rate, h100.rate) == ("30 GFLOP/s", "297 TFLOP/s")


def test_longest_names_of_gpus_come_first() -> None:
    assert gpu("NVIDIA L40S", halves=True).operations != gpu("NVIDIA L40", halves=True).operations
    assert gpu("NVIDIA L4", halves=True).operations != gpu("NVIDIA L40", halves=True).operations


def test_stages_of_dvc_yaml_are_all_counted() -> None:
    root = Path(__file__).parents[2]
    settings = load_params(root / "params.yaml")
    stages = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]
    commands = {body.get("do", body)["cmd"].split()[1] for body in stages.values()}
    assert commands - {"grid", "index"} == {each.command for each in jobs_of(settings)}
