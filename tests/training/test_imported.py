"""A project of LoRAs that others trained: it has no training task, and is made, run and exported as any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mhrctl.adapters.files import load_adapter
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.provenance import of_pretrain
from mhrctl.config.cells import Cell
from mhrctl.config.resolve import load_params
from mhrctl.data.index import load_index
from mhrctl.errors import ParamsError
from mhrctl.projects.templates import dvc_yaml
from mhrctl.tools.init import initialise
from tests.conftest import Run


@pytest.fixture
def pooled(exported: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project of two LoRAs, one task and a model, which lie beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported, "loras")
    shutil.copytree(copy / "data/backbone", "model", ignore=shutil.ignore_patterns("card.json"))
    shutil.copytree(copy / "data/prepare/tokenizer", "model", dirs_exist_ok=True)
    shutil.copy(copy / "tasks/test/swap.jsonl", "mine.jsonl")
    made = initialise(Path("study"), "jsonl", tasks=Path("mine.jsonl"), backbone="model", pool=["loras"])
    assert made.commands == ["mhrctl check", "mhrctl run", "mhrctl report", "mhrctl export ties"]
    assert made.seen.startswith("found 0 training and 1 test tasks")
    params = tmp_path / "study/params.yaml"
    params.write_text(params.read_text().replace("steps: 50", "steps: 2").replace("evaluate_every: 10", "evaluate_every: 1"))
    return params.parent


def test_a_pool_is_all_that_a_project_needs(pooled: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("grid", "sync", "-C", pooled) == 0
    assert run("check", "-C", pooled) == 0
    said = capfd.readouterr().out
    assert "tasks: 0 to train on, 1 to test on" in said
    assert " imported " in said
    assert "warning" not in said
    for step in (["prepare"], ["backbone"], ["index"], ["pretrain", "adapter_soup"]):
        assert run(*step, "-C", pooled) == 0, step
    assert "imported adapter_soup-s0: 2 LoRAs that others trained, " in capfd.readouterr().err
    assert load_index(pooled / "data/index", root=pooled).tasks == []
    for method in ("adapter_soup", "ties", "lorauter"):
        assert run("adapt", method, "-C", pooled) == 0
        assert run("evaluate", method, "-C", pooled) == 0
    assert run("export", "ties", "-C", pooled) == 0
    assert (pooled / "data/export/adapt/ties-s0/mine/adapter_model.safetensors").exists()
    routes = (pooled / "data/adapt/lorauter-s0/routes.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in routes[1:]] == [["mine", "mine"]]  # there is nothing but the task itself
    capfd.readouterr()
    assert run("check", "--deep", "-C", pooled) == 0
    assert run("pretrain", "adapter_soup", "-C", pooled) == 0
    assert "up to date" in capfd.readouterr().err


def test_what_a_setting_names_is_what_import_takes(pooled: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (["prepare"], ["backbone"], ["pretrain", "adapter_soup"], ["import", "--pool", "loras", "--seed", 7]):
        assert run(*step, "-C", pooled) == 0, step
    named, imported = (load_adapter(pooled / f"data/pretrain/adapter_soup-s{seed}/adapters.safetensors") for seed in (0, 7))
    assert all(named.state_dict()[name].equal(tensor) for name, tensor in imported.state_dict().items())
    card = json.loads((pooled / "data/pretrain/adapter_soup-s0/card.json").read_text())
    assert [each["source"] for each in card["facts"]["pool"]] == ["../loras"] * 2
    (pooled.parent / "loras/swap/README.md").write_text("another")
    capfd.readouterr()
    assert run("check", "--deep", "-C", pooled) == 2
    assert "loras has changed since; run `mhrctl pretrain adapter_soup-s0`" in capfd.readouterr().out
    shutil.rmtree(pooled.parent / "loras")
    assert run("pretrain", "adapter_soup", "-C", pooled) == 2
    assert "error: pretrain.loras ../loras: no such file or folder, and an id of the hub has" in capfd.readouterr().err


def test_dvc_depends_on_the_folders_that_are_named(pooled: Path) -> None:
    params = load_params(pooled / "params.yaml").params
    assert (pooled / "dvc.yaml").read_text() == dvc_yaml(params)
    assert dvc_yaml(params).count("        - ../loras\n") == 1
    on_hub = load_params(Project(pooled).params, ["pretrain.loras=[owner/one@main, ../two]"]).params
    assert "        - ../two\n" in dvc_yaml(on_hub)
    assert "owner/one" not in dvc_yaml(on_hub)


def test_what_a_revision_names_may_move_and_a_commit_may_not(pooled: Path) -> None:
    def is_complete(lora: str) -> bool:
        params = load_params(pooled / "params.yaml", [f"pretrain.loras=[{lora}, ../loras]"]).params.pretrain
        cell = Cell(method="adapter_soup", seed=0)
        return of_pretrain(cell, params, prepared=pooled, backbone=pooled, start=None, root=pooled).is_complete

    assert not is_complete("owner/one@main")
    assert is_complete(f"owner/one@{'0' * 40}")


def test_loras_are_taken_as_they_are(pooled: Path) -> None:
    with pytest.raises(ParamsError, match="loras are taken as they are, and test_tasks says how to train some; leave one out"):
        load_params(pooled / "params.yaml", ["pretrain.loras=[x]", "pretrain.test_tasks=true"])


def test_what_needs_training_tasks_is_refused_without_them(pooled: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (["prepare"], ["backbone"]):
        assert run(*step, "-C", pooled) == 0, step
    scratch = ("--set", "backbone.source=scratch", "--set", "backbone.name=null")
    for refused, said in (
        (("pretrain", "lora"), "there are no training tasks to pre-train on; mark some as such, or take LoRAs that others"),
        (("pretrain", "lora", "--set", "pretrain.loras=[x]"), "pretrain.loras: lora takes none; set it at adapter_soup"),
        (("prepare", "--set", "prepare.tokenizer=bpe"), "no training task; prepare.test_tasks names all; only a pool"),
        (("backbone", *scratch), "backbone.source scratch: there are no training tasks to train it on; name a model"),
        (("check", *scratch), "backbone.source scratch: there are no training tasks to train it on; name a model"),
    ):
        capfd.readouterr()
        assert run(*refused, "-C", pooled) == 2, refused
        assert said in capfd.readouterr().err
    params = pooled / "params.yaml"
    params.write_text(params.read_text() + "    lora:\n")
    assert run("grid", "sync", "-C", pooled) == 0
    assert run("check", "-C", pooled) == 0
    assert "warning: there are no training tasks to pre-train lora-s0 on; take LoRAs that" in capfd.readouterr().out


@pytest.mark.usefixtures("pooled")
def test_a_pool_that_cannot_be_is_said_before_anything_is_made(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    for options, said in (
        (("--path", "mine.jsonl", "--pool", "loras"), "--pool: needs --path with examples in JSON Lines, and --backbone"),
        (("--backbone", "model", "--pool", "loras"), "--pool: needs --path with examples in JSON Lines, and --backbone"),
        (("--path", "mine.jsonl", "--backbone", "model", "--pool", "owner/one"), "--pool owner/one: no such file or folder;"),
    ):
        assert run("init", "other", *options) == 2
        assert said in capfd.readouterr().err
    assert not (tmp_path / "other").exists()
