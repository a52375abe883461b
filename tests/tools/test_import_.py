"""Adapters that come in become pre-training outputs that adapt starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.data.routes import load_routes
from mhrctl.interchange.convert import to_weights
from mhrctl.interchange.peft import write_peft
from mhrctl.models.backbones import sized_model
from tests.conftest import Run

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.mark.parametrize("method", ["lora", "poly", "mhr"])
def test_what_left_comes_back_as_it_was(copy: Path, tmp_path: Path, run: Run, method: str) -> None:
    assert run("export", "-m", method, "--stage", "pretrain", "--out", tmp_path / "out", "-C", copy) == 0
    cell = f"{method}-h4" if method == "mhr" else method
    assert run("import", tmp_path / "out", "--seed", 7, "-C", copy) == 0
    before = load_adapter(copy / f"data/pretrain/{cell}-s0/adapters.safetensors").state_dict()
    after = load_adapter(copy / f"data/pretrain/{cell}-s7/adapters.safetensors").state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    assert run("adapt", "-m", method, "--seed", 7, "-C", copy) == 0
    assert run("evaluate", "-m", method, "--seed", 7, "-C", copy) == 0
    card = json.loads((copy / f"data/pretrain/{cell}-s7/card.json").read_text())
    assert card["params"]["imported"] == "out"
    assert card["facts"]["parameters"]["multi_task"] == sum(
        tensor.numel() for name, tensor in after.items() if name.startswith("lora")
    )


def test_an_imported_inventory_is_averaged(copy: Path, tmp_path: Path, run: Run) -> None:
    assert run("export", "-m", "mhr", "--stage", "pretrain", "--out", tmp_path / "out", "-C", copy) == 0
    assert run("import", tmp_path / "out", "--seed", 7, "-C", copy) == 0
    for stage in ("average", "adapt"):
        assert run(stage, "-m", "mhr_mu", "--seed", 7, "-C", copy) == 0


def test_nothing_is_replaced_unasked(copy: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", tmp_path / "out", "-C", copy) == 0
    before = (copy / "data/pretrain/lora-s0/card.json").read_bytes()
    capfd.readouterr()
    assert run("import", tmp_path / "out", "-C", copy) == 2
    assert "there is a pre-training of this cell; choose another --seed, or --replace it" in capfd.readouterr().err
    assert (copy / "data/pretrain/lora-s0/card.json").read_bytes() == before
    assert run("import", tmp_path / "out", "--replace", "-C", copy) == 0
    assert (copy / "data/pretrain/lora-s0/card.json").read_bytes() != before


def test_a_method_that_does_not_fit_is_rejected(
    copy: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", tmp_path / "out", "-C", copy) == 0
    capfd.readouterr()
    assert run("import", tmp_path / "out", "-m", "poly", "-C", copy) == 2
    assert "--method poly: the file holds what lora or lora_big or lora_matched pre-trains" in capfd.readouterr().err
    assert run("import", tmp_path / "nothing", "-C", copy) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_t_fews_file_is_taken_on_the_backbone_that_it_was_made_for(copy: Path, run: Run) -> None:
    path = SHARED / "checkpoints/t-few-t03b-ia3.pt"
    if not path.exists():
        pytest.skip("T-Few's (IA)3 file is not at hand")
    sized_model("t5-xl").config.save_pretrained(copy / "data/backbone")  # the sizes of T0-3B; no weights are needed
    assert run("import", path, "-C", copy) == 0
    adapter = load_adapter(copy / "data/pretrain/ia3-s0/adapters.safetensors")
    taken, theirs = adapter.tensors(), torch.load(path, weights_only=True)
    assert sum(tensor.numel() for tensor in taken.values()) == 540_672
    assert len(taken) == len(theirs) == 192
    for name, tensor in theirs.items():
        assert torch.equal(taken[name.replace("multi_lora_b", "scale")][0], tensor.flatten())


def test_t_fews_file_is_refused_by_name_on_a_backbone_of_other_sizes(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    path = SHARED / "checkpoints/t-few-t03b-ia3.pt"
    if not path.exists():
        pytest.skip("T-Few's (IA)3 file is not at hand")
    assert run("import", path, "-C", copy) == 2
    error = capfd.readouterr().err
    assert "encoder.block.0.layer.0.SelfAttention.k" in error or "encoder.block.1.layer.0.SelfAttention.k" in error
    assert error.count("\n") == 1
    assert not (copy / "data/pretrain/ia3-s0").exists()


def test_an_import_is_what_the_next_command_starts_from(
    copy: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", tmp_path / "out", "-C", copy) == 0
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", "seeds: [0]\n  pretrain_seed: 42"))
    assert run("import", tmp_path / "out", "-C", copy) == 0
    assert (copy / "data/pretrain/lora-s42").exists()
    assert "note: lora-s42 is in the grid: `dvc repro` would pre-train it" in capfd.readouterr().err
    assert run("adapt", "-m", "lora", "-C", copy) == 0
    assert run("import", tmp_path / "out", "--variant", "../x", "-C", copy) == 2
    assert "--variant: unknown variant '../x' (known: plain)" in capfd.readouterr().err


def test_a_pool_that_left_comes_back_as_runs_and_is_adapted_from(copy_of_all: Path, tmp_path: Path, run: Run) -> None:
    copy = copy_of_all
    file = copy / "data/pretrain/adapter_soup-s0/adapters.safetensors"
    before, card = load_adapter(file), json.loads((file.parent / "card.json").read_text())
    for place, task in enumerate(card["facts"]["tasks"]):
        weights = to_weights(before.select([place]))
        write_peft(tmp_path / "pool" / task, weights, base="toy", revision=None)
    assert run("import", "--pool", tmp_path / "pool", "--seed", 7, "-C", copy) == 0
    imported = copy / "data/pretrain/adapter_soup-s7"
    facts = json.loads((imported / "card.json").read_text())["facts"]
    assert facts["tasks"] == sorted(card["facts"]["tasks"])
    assert facts["parameters"] == card["facts"]["parameters"]
    assert [each["source"] for each in facts["pool"]] == [str(tmp_path / "pool")] * len(facts["tasks"])
    assert sorted(path.name for path in imported.iterdir()) == ["adapters.safetensors", "card.json"]
    after = load_adapter(imported / "adapters.safetensors")
    for run_, task in enumerate(facts["tasks"]):
        for name, slot in before.select([card["facts"]["tasks"].index(task)])().items():
            torch.testing.assert_close(after()[name][run_], slot[0], rtol=0, atol=0)
    assert run("adapt", "-m", "ties", "--seed", 7, "-C", copy) == 0
    assert run("evaluate", "-m", "ties", "--seed", 7, "-C", copy) == 0


def test_adapters_of_other_tasks_are_found_by_their_samples(
    copy_of_all: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their names are of no task here, so that without samples nothing is known of them."""
    pool = load_adapter(copy_of_all / "data/pretrain/adapter_soup-s0/adapters.safetensors")
    for place, (name, text) in enumerate({"insects": "ant bee", "pets": "cat dog"}.items()):
        write_peft(tmp_path / "pool" / name, to_weights(pool.select([place])), base="toy", revision=None)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"input": text}) + "\n")
    lines = [{"adapter": f"pool/{name}", "samples": f"{name}.jsonl"} for name in ("insects", "pets")]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("import", "--pool", tmp_path / "pool", "--seed", 7, "-C", copy_of_all) == 0
    for method in ("lora_retriever", "adapter_soup"):
        assert run("adapt", "-m", method, "--seed", 7, "-C", copy_of_all) == 2
        assert "pool: there are no samples of insects, pets, nor training tasks of these names" in capfd.readouterr().err
    assert run("import", "--pool", tmp_path / "list.jsonl", "--seed", 7, "--replace", "-C", copy_of_all) == 0
    card = json.loads((copy_of_all / "data/pretrain/adapter_soup-s7/card.json").read_text())
    assert [each["samples"] for each in card["facts"]["pool"]] == [1, 1]
    for method, *settings in (("lora_retriever", "--set", "adapt.options.top_k=1"), ("adapter_soup",), ("lorauter",)):
        assert run("adapt", "-m", method, "--seed", 7, "-C", copy_of_all, *settings) == 0
    routes = load_routes(copy_of_all / "data/adapt/lora_retriever-s7/adapters.safetensors", root=copy_of_all)
    assert [routes.of("any", [text])[0][0] for text in ("bee", "a dog")] == [(0, 1.0), (1, 1.0)]
    assert "samples" in json.loads((copy_of_all / "data/adapt/lora_retriever-s7/card.json").read_text())["parents"]
    capfd.readouterr()
    assert run("adapt", "-m", "adapter_soup", "--seed", 7, "-C", copy_of_all) == 0
    assert "up to date" in capfd.readouterr().err
    (tmp_path / "pets.jsonl").write_text(json.dumps({"input": "elk fox"}) + "\n")
    assert run("import", "--pool", tmp_path / "list.jsonl", "--seed", 7, "--replace", "-C", copy_of_all) == 0
    assert run("adapt", "-m", "adapter_soup", "--seed", 7, "-C", copy_of_all) == 0
    assert "adapted adapter_soup-s7" in capfd.readouterr().err


def test_a_pool_and_an_adapter_are_told_apart(copy: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("import", tmp_path / "a", tmp_path / "b", "-C", copy) == 2
    assert "2 adapters: one becomes a cell; several become a pool with --pool" in capfd.readouterr().err
    assert run("import", "--pool", tmp_path / "a", "-m", "lora", "-C", copy) == 2
    assert "--method lora: a pool is what adapter_soup pre-trains" in capfd.readouterr().err
    assert run("import", "--pool", tmp_path / "a", "-C", copy) == 2
    assert "no such folder" in capfd.readouterr().err
