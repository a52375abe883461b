"""The rates of the study of a real model are searched in two steps, on validation and on tasks that it does not use."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import AdaptFacts, Parameters
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.writing import write_csv
from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params, resolve_cell
from tests.pipelines.tiny import ROOT, script, split_names

SEARCH, STUDY = ROOT / "pipelines/claims-superni-rates", ROOT / "pipelines/claims-superni"
COLUMNS = ("step", "loss", "validation_loss")
METHODS_OF_THE_STUDY = {*load_params(STUDY / "params.yaml").params.grid.methods}


@pytest.fixture(scope="module")
def choose() -> ModuleType:
    """The rule."""
    return script(SEARCH / "choose.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The search, in which nothing has run."""
    shutil.copy(SEARCH / "params.yaml", tmp_path)
    return tmp_path


def write_logs(root: Path, losses: dict[str, float]) -> None:
    """The logs of pre-trainings, which end with a loss in validation."""
    for name, loss in losses.items():
        log = Project(root).metrics / f"pretrain/{name}-s100.csv"
        log.parent.mkdir(parents=True, exist_ok=True)
        write_csv(log, COLUMNS, [(30, 1.0, ""), (60, 0.1, loss)])


METHODS = ("lora", "lora_matched", "align_lora", "poly", "mhr-h8", "random_mu")
SLOW_IS_BEST = {name + rate: loss for name in METHODS for rate, loss in (("-slow", 1.0), ("", 2.0), ("-fast", 3.0))}


def test_adaptation_is_searched_with_the_best_rate_of_pretraining(choose: ModuleType, copy: Path) -> None:
    write_logs(copy, SLOW_IS_BEST | {"mhr-h8": 0.5, "lora-fast": 0.7})
    chosen = {each.cell.label.rpartition("-t")[0] for each in choose.to_adapt(copy).values()}
    of_mhr = {"mhr-h8", "mhr_z-h8", "mhr_mu-h8"}  # its pre-training is theirs
    others = {f"{method}-slow" for method in ("lora_matched", "align_lora", "poly", "random_mu")}
    assert chosen == {"lora-fast", "lora-untrained"} | of_mhr | others


def test_the_least_loss_chooses(choose: ModuleType, copy: Path) -> None:
    write_logs(copy, {"lora-slow": 2.0, "lora": 1.5, "lora-fast": 9.0, "mhr-h8": 3.0})
    assert choose.best(choose.pretrained(copy)) == {
        "lora": choose.Tried("pretrain", "lora", 0.0015, "", 1.5),
        "mhr": choose.Tried("pretrain", "mhr", 0.0015, "", 3.0),
    }
    losses = {"lora-t1-s100": 3.0, "lora-t2-s100": 2.0, "lora-untrained-t3-s100": 4.0, "mhr_z-h8-t2-s100": 1.0}
    params = load_params(copy / "params.yaml")
    for cell in grid_cells(params.params):
        if cell.name in losses:
            facts = {"validation": {"one": -losses[cell.name] + 1, "two": -losses[cell.name] - 1}, "tasks": ["one", "two"]}
            adapted = AdaptFacts(suite="made", shots={}, backbone="none", parameters=Parameters(), **facts)
            folder = Project(copy).output("adapt", cell.name)
            folder.mkdir(parents=True)
            write_card(folder, Card.of("adapt", {"cell": cell.model_dump()}, {}, adapted))
    assert choose.best(choose.adapted(copy)) == {
        "lora": choose.Tried("adapt", "lora", 0.0015, "lr 0.0015", 2.0),
        "lora untrained": choose.Tried("adapt", "lora", None, "lr 0.005", 4.0),
        "mhr_z": choose.Tried("adapt", "mhr_z", 0.0015, "routing_lr 0.3", 1.0),
    }


def test_what_was_tried_is_read_as_it_was_written(choose: ModuleType, tmp_path: Path) -> None:
    trials = [choose.Tried("pretrain", "lora", 0.0005, "", 1.25), choose.Tried("adapt", "lora", None, "lr 0.005", 2.5)]
    write_csv(tmp_path / "tried.csv", choose.Tried._fields, trials)
    assert choose.read_tried(tmp_path / "tried.csv") == trials


def test_every_method_is_tried_alike_and_further_where_the_best_is_at_an_end(choose: ModuleType) -> None:
    trials = choose.read_tried(choose.TRIED)
    assert [one for one in trials if one.stage == "pretrain"] == choose.pretrained(SEARCH)  # whose logs are in git
    assert {one.called for one in trials if one.stage == "adapt"} == {*METHODS_OF_THE_STUDY, "lora untrained"}
    for (stage, called), of_method in itertools.groupby(sorted(trials, key=by_method), by_method):
        losses = {one.pretrain if stage == "pretrain" else float(one.adapt.split()[1]): one.loss for one in of_method}
        alike = (0.1, 0.3, 1.0) if called == "mhr_z" else (0.0005, 0.0015, 0.005)
        best = min(alike, key=losses.__getitem__)
        assert (len(losses) > len(alike)) == (best != alike[1]), (stage, called)


def by_method(tried: Any) -> tuple[str, str]:
    """The stage, and the method as it is called."""
    return tried.stage, tried.called


def test_the_study_has_the_rates_that_were_chosen(choose: ModuleType) -> None:
    params, trials = load_params(STUDY / "params.yaml"), choose.read_tried(choose.TRIED)
    before, after = (choose.best(one for one in trials if one.stage == stage) for stage in ("pretrain", "adapt"))
    called = set()
    for cell in grid_cells(params.params):
        each, trained = resolve_cell(params, cell), cell.variant != "untrained"
        name = cell.method if trained else f"{cell.method} untrained"
        assert not trained or each.pretrain.lr == before[cell.pretrain_cell.method].pretrain, name
        assert after[name].adapt in (f"lr {each.adapt.lr:g}", f"routing_lr {each.adapt.routing_lr:g}"), name
        called.add(name)
    assert called == set(after)


def test_the_search_has_other_test_tasks_and_another_seed_and_is_the_study_otherwise() -> None:
    search, study = (load_params(folder / "params.yaml").params for folder in (SEARCH, STUDY))
    assert not set(search.grid.seeds) & set(study.grid.seeds)
    assert search.prepare.model_copy(update={"test_tasks": study.prepare.test_tasks}) == study.prepare
    assert (search.backbone, search.evaluate) == (study.backbone, study.evaluate)
    shorter = {key: getattr(search.pretrain, key) for key in ("steps", "lr", "validate_every")}
    assert study.pretrain.model_copy(update=shorter) == search.pretrain
    assert study.adapt.model_copy(update={"lr": search.adapt.lr}) == search.adapt
    splits = {
        folder: {name: split_names(folder, name) for name in ("train_tasks.txt", "test_tasks.txt")}
        for folder in (SEARCH, STUDY)
    }
    assert splits[SEARCH]["train_tasks.txt"] == splits[STUDY]["train_tasks.txt"]
    assert splits[SEARCH]["test_tasks.txt"] == sorted(search.prepare.test_tasks)
    assert not {*search.prepare.test_tasks} & {*splits[STUDY]["train_tasks.txt"], *splits[STUDY]["test_tasks.txt"]}
