"""pretrain: what it writes, that a seed gives the same bits, that a killed run resumes."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import T5ForConditionalGeneration

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import TRAINING_EXAMPLES
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import PretrainParams
from mhrctl.data.rows import SCHEMA
from mhrctl.evaluation import pretraining
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import new_adapter
from mhrctl.training import checkpoint
from tests.conftest import Run, killed_after_checkpoint, reseal
from tests.models.made import logits_of


def test_the_log_and_the_losses_by_task(walked: Path) -> None:
    with (walked / "data/metrics/pretrain/mhr-h4-s0.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert float(rows[-1]["lr"]) == 0.0
    assert 0 < int(rows[0]["tokens"]) < int(rows[1]["tokens"])
    log = (walked / "data/pretrain/mhr-h4-s0/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in log] == [float(row["loss"]) for row in rows]
    losses = (walked / "data/pretrain/mhr-h4-s0/validation.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in losses] == ["task", "copy", "first", "last"]


def test_sizes_of_the_inventory(walked: Path) -> None:
    for cell, heads, skills in (("lora-s0", 1, 1), ("poly-s0", 1, 2), ("mhr-h4-s0", 4, 2)):
        inventory = load_adapter(walked / "data/pretrain" / cell / "adapters.safetensors")
        assert isinstance(inventory, Inventory)
        assert (inventory.heads, inventory.skills, len(inventory.shapes)) == (heads, skills, 18)
        assert all(bank.abs().sum() > 0 for bank in inventory.lora_B)


def test_one_seed_writes_the_same_bytes_and_another_does_not(copy: Path, run: Run) -> None:
    path = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    before = path.read_bytes()
    assert run("pretrain", "-m", "mhr", "--heads", 4, "--seed", 0, "--force", "-C", copy) == 0
    assert path.read_bytes() == before
    assert run("pretrain", "-m", "mhr", "--heads", 4, "--seed", 1, "-C", copy) == 0
    assert (copy / "data/pretrain/mhr-h4-s1/adapters.safetensors").read_bytes() != before


def test_a_cell_by_name_is_the_cell_by_options(copy: Path, run: Run) -> None:
    path = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    before = path.read_bytes(), (path.parent / "card.json").read_bytes()
    assert run("pretrain", "--cell", "mhr-h4-s0", "--force", "-C", copy) == 0
    assert (path.read_bytes(), (path.parent / "card.json").read_bytes()) == before


def test_a_killed_run_resumes_to_the_same_bytes(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    log = copy / "data/metrics/pretrain/mhr-h4-s0.csv"
    before = path.read_bytes(), log.read_bytes()
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 3)
    real = checkpoint.save_checkpoint

    def killed(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "save_checkpoint", killed)
        patch.setattr("sys.argv", ["mhrctl", "pretrain", "-m", "mhr", "--force", "-C", str(copy)])
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            from mhrctl.cli.app import main

            main()
    (left,) = (copy / "data/scratch").iterdir()
    path.unlink()
    assert run("pretrain", "-m", "mhr", "-C", copy) == 0
    assert (path.read_bytes(), log.read_bytes()) == before
    assert not left.exists()


def test_a_killed_sparse_mixture_resumes_to_the_same_bytes(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts and owners of entries come from the seed again, moments of entries that were not drawn from the checkpoint."""
    options = ("pretrain", "-m", "mosa", "--set", "pretrain.options.sparse=full", "--set", "pretrain.accumulation=2")
    path, log = copy / "data/pretrain/mosa-s0/adapters.safetensors", copy / "data/metrics/pretrain/mosa-s0.csv"
    assert run(*options, "-C", copy) == 0
    before = path.read_bytes(), log.read_bytes()
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    with killed_after_checkpoint():
        assert run(*options, "--force", "-C", copy) == 130
    assert (copy / "data/scratch/pretrain-mosa-s0.safetensors").exists()
    assert run(*options, "--force", "-C", copy) == 0
    assert (path.read_bytes(), log.read_bytes()) == before
    assert not list((copy / "data/scratch").glob("pretrain-*"))


def test_a_run_killed_within_a_window_resumes_to_the_same_bytes(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = copy / "data/prepare" / TRAINING_EXAMPLES
    rows = pq.read_table(prepared).to_pylist()
    longer = [row | {"input_ids": row["input_ids"] * (number % 5 + 1)} for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(longer, SCHEMA), prepared)
    reseal(copy / "data/prepare")
    reseal(copy / "data/backbone", examples=prepared)
    options = ["pretrain", "-m", "lora", *settings("pretrain.accumulation=2"), "-C", copy]
    written = {}
    for balance in ((), ("pretrain.window=3",), ("pretrain.window=3", "pretrain.balance=tokens")):
        assert run(*options, *settings(*balance)) == 0
        written[balance] = digest(copy / "data/pretrain/lora-s0/adapters.safetensors"), read_log(copy, "lora-s0")
    assert len({adapters for adapters, _ in written.values()}) == 3
    options += [*settings(*balance), "--force"]
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)  # four micro-batches: one into the second window
    with killed_after_checkpoint():
        assert run(*options) == 130
    assert run(*options) == 0
    assert (digest(copy / "data/pretrain/lora-s0/adapters.safetensors"), read_log(copy, "lora-s0")) == written[balance]


NOISY = ["pretrain.relaxed_bernoulli=true", "pretrain.dropout=0.2", "pretrain.uniform_steps=2"]
"""Settings by which a measurement that touched the run would show."""


def settings(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


def read_log(project: Path, cell: str) -> list[dict[str, str]]:
    with (project / f"data/metrics/pretrain/{cell}.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("method", "cell"), [("mhr", "mhr-h4-s0"), ("lora", "lora-s0")])
def test_measuring_alignment_changes_no_bit_of_the_run(copy: Path, run: Run, method: str, cell: str) -> None:
    noisy = settings(*NOISY) if method == "mhr" else settings("pretrain.dropout=0.2")
    path = copy / "data/pretrain" / cell
    assert run("pretrain", "-m", method, *noisy, "-C", copy) == 0
    plain, adapters, losses = read_log(copy, cell), digest(path / "adapters.safetensors"), digest(path / "validation.csv")
    assert list(plain[0]) == ["step", "loss", "lr", "routing_lr", "tokens"]
    assert run("pretrain", "-m", method, *noisy, *settings("pretrain.align_every=3"), "-C", copy) == 0
    assert digest(path / "adapters.safetensors") == adapters
    assert digest(path / "validation.csv") == losses
    rows = read_log(copy, cell)
    assert list(rows[0]) == [*plain[0], "shared", "composed"]
    assert [(row["step"], row["shared"] != "", row["composed"] != "") for row in rows] == [
        ("2", False, False),  # of log_every
        ("3", True, True),
        ("4", True, True),  # of both, being the last
    ]
    assert all(row["loss"] for row in rows)
    assert [{key: row[key] for key in plain[0]} for row in rows if row["step"] != "3"] == plain
    log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert [line["shared"] for line in log] == [float(row["shared"]) if row["shared"] else None for row in rows]
    assert run("align", "-m", method, "-C", copy) == 0
    measured = json.loads((copy / f"data/metrics/align/{cell}.json").read_text())
    assert [measured[on]["overall"] for on in ("shared", "composed")] == [float(rows[-1][on]) for on in ("shared", "composed")]


def test_a_resumed_run_writes_the_same_alignment(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = settings(*NOISY, "pretrain.align_every=1", "pretrain.align_tasks=2")
    options = ["pretrain", "-m", "mhr", *noisy, "--force", "-C", copy]
    assert run(*options) == 0
    before = read_log(copy, "mhr-h4-s0"), digest(copy / "data/pretrain/mhr-h4-s0")
    assert all(row["shared"] for row in before[0])
    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 2)
    with killed_after_checkpoint():
        assert run(*options) == 130
    assert run(*options) == 0
    assert (read_log(copy, "mhr-h4-s0"), digest(copy / "data/pretrain/mhr-h4-s0")) == before


@pytest.mark.parametrize("method", ["full_ft", "adapter_soup"])
def test_alignment_without_a_shared_adapter_is_refused_before_training(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    assert run("pretrain", "-m", method, *settings("pretrain.align_every=2"), "-C", copy) == 2
    assert f"error: pretrain.align_every 2: {method} " in capfd.readouterr().err
    assert not (copy / f"data/pretrain/{method}-s0").exists()


def test_alignment_of_one_task_is_refused_before_training(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    options = settings("pretrain.align_every=2", "pretrain.align_tasks=1")
    assert run("pretrain", "-m", "lora", "--seed", 5, *options, "-C", copy) == 2
    assert "pretrain.align_tasks: Input should be greater than or equal to 2" in capfd.readouterr().err
    assert not (copy / "data/pretrain/lora-s5").exists()


def test_the_card_names_what_it_was_made_from(walked: Path) -> None:
    card = json.loads((walked / "data/pretrain/mhr-h4-s0/card.json").read_text())
    backbone = json.loads((walked / "data/backbone/card.json").read_text())
    assert card["facts"]["backbone"] == backbone["facts"]["fingerprint"]
    assert card["facts"]["tasks"] == ["copy", "first", "last"]
    assert {key: card["params"]["cell"][key] for key in ("method", "heads", "seed")} == {"method": "mhr", "heads": 4, "seed": 0}


def test_heads_that_do_not_divide_are_one_line(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    (copy / "data/cells").mkdir(exist_ok=True)
    (copy / "data/cells/mhr-h3-s0.json").write_text("{}")  # as of the grid, which `check` looks at: the stage itself says it
    assert run("pretrain", "-m", "mhr", "--heads", 3, "-C", copy) == 2
    assert "error: --heads 3: 3 heads do not divide layer encoder.block.0.layer.0.SelfAttention.q" in capfd.readouterr().err
    assert not (copy / "data/pretrain/mhr-h3-s0").exists()


def test_a_target_that_is_no_layer_is_one_line(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "-m", "lora", "--set", "pretrain.targets=[q, up_proj]", "-C", copy) == 2
    assert "no linear layer is named 'up_proj' (there are: k, lm_head, o, q" in capfd.readouterr().err


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.pretrain == name])
def test_every_method_starts_as_the_backbone(tiny_t5: T5ForConditionalGeneration, method: str) -> None:
    """B = 0 and (IA)3 = 1 change no bit of the output, in training or out of it; copied weights lie elsewhere in memory."""
    ids = torch.randint(3, 40, (2, 6))
    with torch.no_grad():
        before = tiny_t5(input_ids=ids, labels=ids[:, :3].contiguous()).logits
    row = METHODS[method]
    params = PretrainParams(steps=1, batch_size=1, skills=3, relaxed_bernoulli=method == "mhr")
    adapter = new_adapter(tiny_t5, row, params, heads=4 if row.multi_head else 1, seed=0, tasks=2)
    task_ids = torch.tensor([[0], [0]] if row.is_private else [[0, 1]])
    for training in (True, False):
        model = AdaptedModel(tiny_t5, adapter).train(training)
        after = logits_of(model, task_ids, ids, ids[:, :3])
        tolerance = 1e-5 if method == "full_ft" else 0
        torch.testing.assert_close(after, before, rtol=0, atol=tolerance)


def test_a_backbone_of_another_tokenizer_is_refused(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "-C", copy, "--set", "prepare.vocab_size=42") == 0
    capfd.readouterr()
    assert run("pretrain", "-m", "lora", "-C", copy, "--force") == 2
    assert re.search(r"data/backbone: .* has changed since; run `mhrctl backbone`", capfd.readouterr().err)


@pytest.mark.parametrize("place", [8, 300, -4])
def test_a_flipped_bit_is_never_made_already_nor_used(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], place: int
) -> None:
    adapters = copy / "data/pretrain/lora-s0/adapters.safetensors"
    whole, stat = adapters.read_bytes(), adapters.stat()
    rotten = bytearray(whole)
    rotten[place] ^= 4
    adapters.write_bytes(bytes(rotten))
    os.utime(adapters, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for command in (("adapt", "-m", "lora", "--force"), ("export", "-m", "lora", "--stage", "pretrain")):
        assert run(*command, "-C", copy) == 2
        said = capfd.readouterr().err
        assert "adapters.safetensors: holds other bytes than were written; run `mhrctl pretrain lora-s0`" in said
    assert run("pretrain", "-m", "lora", "-C", copy) == 0
    assert "is up to date" not in capfd.readouterr().err
    assert adapters.read_bytes() == whole
