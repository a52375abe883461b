"""Every row of the methods table through every stage, on a toy project."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from mhrctl.adapters.experts import Arrow
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.weights import Weights
from mhrctl.config.cells import method_of
from mhrctl.config.methods import METHODS, reads
from mhrctl.evaluation import pretraining
from mhrctl.report.results import read_results
from mhrctl.report.tables import build_table
from mhrctl.training import checkpoint
from tests.conftest import Run


def card(project: Path, folder: str) -> Any:
    return json.loads((project / "data" / folder / "card.json").read_text())


LORA, READ, LAYERS, SKILLS, TRAINING_TASKS = 672, 320, 18, 2, 3
"""Of the toy backbone: numbers of a LoRA of rank 1 on all layers, and of what they read; its layers; what its project has."""


@pytest.mark.parametrize(
    ("method", "multi_task", "routing", "adaptation"),
    [
        ("lora_big", 16 * LORA, 0, 16 * LORA),
        ("lora_matched", SKILLS * LORA, 0, SKILLS * LORA),
        ("ia3", 6 * 16 + 2 * 32, 0, 6 * 16 + 2 * 32),
        ("tfew", 6 * 16 + 2 * 32, 0, 6 * 16 + 2 * 32),
        ("adapter_soup", TRAINING_TASKS * LORA, 0, LORA),
        ("poly_z", SKILLS * LORA, TRAINING_TASKS * LAYERS * SKILLS, LAYERS * SKILLS),
        ("poly_mu", SKILLS * LORA, TRAINING_TASKS * LAYERS * SKILLS, LORA),
        ("random_mu", SKILLS * LORA, 0, LORA),
        ("full_ft_then_lora", None, 0, LORA),
        ("full_ft", None, 0, None),
        ("smear", SKILLS * (LORA + READ), 0, SKILLS * (LORA + READ)),
        ("arrow", TRAINING_TASKS * LORA, 0, 0),
    ],
)
def test_what_each_method_trains(
    walked_all: Path, method: str, multi_task: int | None, routing: int, adaptation: int | None
) -> None:
    weights = card(walked_all, "backbone")["facts"]["parameters"]
    counts = card(walked_all, f"pretrain/{METHODS[method].pretrain}-s0")["facts"]["parameters"]
    assert counts == {"multi_task": weights if multi_task is None else multi_task, "routing": routing}
    assert card(walked_all, f"adapt/{method}-s0")["facts"]["parameters"] == (weights if adaptation is None else adaptation)


def test_every_method_is_in_the_report_with_its_counts(walked_all: Path) -> None:
    table = build_table(6, read_results(walked_all / "data/metrics"), [])
    shown = {row[0]: row for row in table.rows}
    assert {method_of(label) for label in shown} == {"backbone", *METHODS}
    assert shown["adapter_soup"][1:3] == [f"{TRAINING_TASKS * LORA:,}", f"{LORA:,}"]
    assert "mhr-h4-light" in [row[0] for row in table.rows]
    few_shot = build_table(2, read_results(walked_all / "data/metrics"), [])
    assert {method_of(row[0]) for row in few_shot.rows} == {"backbone", *METHODS}


def test_zero_shot_after_extra_steps_is_a_table_of_its_own(walked_all: Path) -> None:
    table = build_table(5, read_results(walked_all / "data/metrics"), [])
    assert list(table.columns)[:3] == ["method", "0\nsteps", "3\nsteps"]
    rows = {row[0]: row for row in table.rows}
    assert rows["lora"][2] != "-"
    assert rows["mhr_mu-h4"][2] != "-"
    assert "-x3" not in str(build_table(2, read_results(walked_all / "data/metrics"), []).rows)


def test_extra_steps_start_from_the_average_and_train_it(walked_all: Path) -> None:
    before = load_adapter(walked_all / "data/average/mhr-h4-s0/adapters.safetensors")
    after = load_adapter(walked_all / "data/pretrain/mhr_mu-h4-x3-s0/adapters.safetensors")
    assert isinstance(after, Inventory)
    assert (after.skills, after.heads) == (1, 1)
    changes = [
        (old - new).abs().max().item() for old, new in zip(before.skill_parameters(), after.skill_parameters(), strict=True)
    ]
    assert 0 < max(changes) < 0.1
    assert card(walked_all, "pretrain/mhr_mu-h4-x3-s0")["params"]["pretrain"]["steps"] == 3


def test_cells_of_extra_steps_are_not_adapted(walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("check", "-m", "mhr_z", "--extra-steps", 3, "-C", walked_all) == 2
    assert "--extra-steps: mhr_z is no single adapter" in capfd.readouterr().err


def test_a_soup_is_the_mean_of_the_most_similar_tasks_adapters(walked_all: Path) -> None:
    adapted = walked_all / "data/adapt/adapter_soup-s0"
    with (adapted / "soup.csv").open() as stream:
        chosen = [row for row in csv.DictReader(stream) if row["task"] == "swap"]
    training = card(walked_all, "pretrain/adapter_soup-s0")["facts"]["tasks"]
    private = load_adapter(walked_all / "data/pretrain/adapter_soup-s0/adapters.safetensors")
    soup = load_adapter(adapted / "soup.safetensors")
    assert private.runs == TRAINING_TASKS
    assert soup.runs == 2
    places = [training.index(row["training_task"]) for row in chosen]
    cosines = [float(row["cosine"]) for row in chosen]
    assert cosines == sorted(cosines, reverse=True)
    for mean, bank in zip(soup.skill_parameters(), private.skill_parameters(), strict=True):
        torch.testing.assert_close(mean[0], bank[places].mean(0))


def test_private_adapters_in_one_batch_equal_them_one_by_one(walked_all: Path, tmp_path: Path, run: Run) -> None:
    project = Path(shutil.copytree(walked_all, tmp_path / "project"))
    path = project / "data/pretrain/adapter_soup-s0/adapters.safetensors"
    together = load_adapter(path).state_dict()
    assert run("pretrain", "-m", "adapter_soup", "-C", project, "--together", 1, "--force") == 0
    for name, tensor in load_adapter(path).state_dict().items():
        torch.testing.assert_close(tensor, together[name], rtol=1e-4, atol=1e-6)
    log = (project / "data/metrics/pretrain/adapter_soup-s0.csv").read_text().splitlines()
    assert log[-1].split(",")[0] == "6"  # 4 steps over 3 tasks are 2 a task
    assert not list((project / "data").glob("scratch/*.safetensors"))


def test_full_fine_tuning_trains_every_weight_and_ties_what_was_tied(walked_all: Path) -> None:
    pretrained = load_adapter(walked_all / "data/pretrain/full_ft-s0/adapters.safetensors")
    adapted = load_adapter(walked_all / "data/adapt/full_ft-s0/adapters.safetensors")
    assert isinstance(pretrained, Weights)
    assert isinstance(adapted, Weights)
    assert (pretrained.runs, adapted.runs) == (1, 2)
    assert pretrained.aliases["lm_head.weight"] == pretrained.aliases["shared.weight"]


def test_a_new_lora_is_put_on_the_tuned_weights(walked_all: Path) -> None:
    adapted = load_adapter(walked_all / "data/adapt/full_ft_then_lora-s0/adapters.safetensors")
    assert isinstance(adapted, Inventory)
    assert adapted.runs == 2
    with (walked_all / "data/evaluate/full_ft-s0/scores.csv").open() as stream:
        before = [row for row in csv.DictReader(stream) if row["phase"] == "zero_shot"]
    with (walked_all / "data/evaluate/full_ft_then_lora-s0/scores.csv").open() as stream:
        assert [row for row in csv.DictReader(stream) if row["phase"] == "zero_shot"] == before


def test_adapter_soup_without_shots_has_no_zero_shot(walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "-m", "adapter_soup", "--zero-shot", "-C", walked_all) == 2
    assert "zero-shot adapters come from the shots; run `mhrctl adapt adapter_soup-s0`" in capfd.readouterr().err


def test_a_router_over_a_pool_is_one_adapter_of_all_tasks_and_never_trained(
    walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    adapted = walked_all / "data/adapt/arrow-s0"
    with (adapted / "validation.csv").open() as stream:
        assert [(row["task"], row["step"]) for row in csv.DictReader(stream)] == [("swap", "0"), ("twice", "0")]
    arrow, pool = (
        load_adapter(path / "adapters.safetensors") for path in (adapted, walked_all / "data/pretrain/adapter_soup-s0")
    )
    assert isinstance(arrow, Arrow)
    assert (arrow.runs, arrow.skills) == (1, TRAINING_TASKS)
    for routed, trained in zip(arrow.lora_A, pool.skill_parameters(), strict=False):
        assert torch.equal(routed[0, :, 0], trained[:, :, 0, 0].transpose(0, 1))
    assert run("evaluate", "-m", "arrow", "--zero-shot", "-C", walked_all) == 2
    assert "adaptation makes what answers; run `mhrctl adapt arrow-s0`" in capfd.readouterr().err
    assert run("adapt", "-m", "arrow", "--set", "adapt.steps=5", "-C", walked_all) == 2
    assert "adapt.steps: arrow does not read it" in capfd.readouterr().err


def test_one_skill_is_not_averaged(walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("average", "-m", "adapter_soup", "-C", walked_all) == 2
    assert "pre-training has no skills to average; use one of poly, mhr, random_mu, mosa" in capfd.readouterr().err


def test_a_killed_private_pretraining_resumes_whatever_is_trained_together(
    walked_all: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Path(shutil.copytree(walked_all, tmp_path / "project"))
    path = project / "data/pretrain/adapter_soup-s3/adapters.safetensors"
    options = ("pretrain", "-m", "adapter_soup", "--seed", 3, "-C", project)
    assert run(*options, "--together", 1) == 0
    before = path.read_bytes()
    real, saved = checkpoint.save_checkpoint, []

    def killed(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)  # type: ignore[arg-type]
        saved.append(args)
        if len(saved) == 2:
            raise RuntimeError("killed")

    for together in (1, 2):
        shutil.rmtree(path.parent)
        saved.clear()
        with monkeypatch.context() as patch:
            patch.setattr(pretraining, "save_checkpoint", killed)
            with pytest.raises(RuntimeError, match="killed"):
                run(*options, "--together", 1)
        assert run(*options, "--together", together) == 0
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(tensor, load(before)[name], rtol=1e-4, atol=1e-6)
        assert together == 2 or path.read_bytes() == before


def test_a_new_lora_is_not_attached_to_other_weights_than_its_own(
    walked_all: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    project = Path(shutil.copytree(walked_all, tmp_path / "project"))
    assert run("evaluate", "-m", "full_ft_then_lora", "--zero-shot", "-C", project) == 0
    assert run("pretrain", "-m", "full_ft", "--set", "pretrain.steps=1", "-C", project) == 0
    for command in (("evaluate",), ("export", "--merge")):
        capfd.readouterr()
        assert run(*command, "-m", "full_ft_then_lora", "-C", project) == 2
        assert "has changed since; run `mhrctl adapt full_ft_then_lora-s0`" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["pretrain", "-m", "poly", "--set", "pretrain.skills=1"],
            "pretrain.skills 1: poly mixes skills and needs two",
        ),
        (
            ["pretrain", "-m", "lora", "--set", "adapt.lr=1.0"],
            "adapt.lr=1.0: this command reads the section `pretrain` only",
        ),
        (["pretrain", "-m", "lora", "--set", "pretrain.lr=["], "--set pretrain.lr: '[' is not valid YAML"),
        (
            ["pretrain", "-m", "lora", "--extra-steps", "2", "--set", "pretrain.rank=4"],
            "--set pretrain.rank: extra steps train the adapter that there is",
        ),
        (["pretrain", "-m", "mhr", "--heads", "0"], "--heads 0: must be a whole number from 1 to "),
        (["pretrain", "-m", "mhr", "--seed", "99999999999999"], "--seed 99999999999999: must be a whole number from 0 to "),
        (["export", "-m", "lora", "--stage", "average"], "--stage average: lora has no skills to average"),
    ],
)
def test_settings_in_vain_and_out_of_range_are_rejected(
    walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    assert run(*command, "-C", walked_all) == 2
    assert message in capfd.readouterr().err


def test_what_a_method_does_not_read_changes_nothing(copy: Path, run: Run) -> None:
    params, data = copy / "params.yaml", copy / "data"
    files = {
        ("pretrain", "lora-s0"): ("pretrain", "-m", "lora"),
        ("adapt", "mhr_z-h4-s0"): ("adapt", "-m", "mhr_z"),
        ("adapt", "lora-s0"): ("adapt", "-m", "lora"),
    }
    before = {place: load_file(data.joinpath(*place) / "adapters.safetensors") for place in files}
    unread = {"skills": 5, "granularity": "model", "routing_lr": 9.0, "relaxed_bernoulli": True, "temperature": 2.0}
    assert not any(reads(METHODS["lora"], "pretrain", key) for key in unread)
    said = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in unread.items())
    params.write_text(params.read_text().replace("pretrain:\n  skills: 2\n", f"pretrain:\n{said}"))
    assert run(*files["pretrain", "lora-s0"], "-C", copy) == 0
    assert not reads(METHODS["mhr_z"], "adapt", "lr")
    assert not reads(METHODS["lora"], "adapt", "routing_lr")
    for place, key in ((("adapt", "mhr_z-h4-s0"), "lr"), (("adapt", "lora-s0"), "routing_lr")):
        text = params.read_text()
        params.write_text(text.replace("adapt:\n", f"adapt:\n  {key}: 0.7\n"))
        assert run(*files[place], "-C", copy) == 0
        params.write_text(text)
    for place, tensors in before.items():
        after = load_file(data.joinpath(*place) / "adapters.safetensors")
        assert all(torch.equal(tensors[name], after[name]) for name in tensors.keys() | after.keys()), place
