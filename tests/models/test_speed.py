"""Speed options change no result beyond rounding, each alone and all at once; those that cannot be had are refused."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest
import torch

from mhrctl.adapters.files import load_adapter
from mhrctl.errors import ParamsError
from mhrctl.models.speed import OFF, Speed
from tests.conftest import Run


def test_what_can_be_switched_off() -> None:
    on = Speed()
    for name in OFF.keys() - {"all"}:
        off = on.without([name])
        changed = [field.name for field in fields(Speed) if getattr(on, field.name) != getattr(off, field.name)]
        assert changed == [name]
    every = on.without(OFF.keys() - {"all"})
    assert every == on.without(["all"])
    assert not any(value is True for value in vars(every).values())
    with pytest.raises(ParamsError, match=r"--off: unknown speed option 'fusd'; did you mean 'fused'\? \(known: forward, "):
        on.without(["fusd"])


CELLS = {"lora": "lora-s0", "ia3": "ia3-s0", "poly": "poly-s0", "mhr": "mhr-h4-s0", "adapter_soup": "adapter_soup-s0"}


@pytest.mark.parametrize("off", ["forward", "packing", "fused", "together", "all"])
@pytest.mark.parametrize("method", CELLS)
def test_training_is_the_same_without(walked_all: Path, tmp_path: Path, run: Run, method: str, off: str) -> None:
    """Losses of the log and final adapters of pre-training and adaptation, as they were with everything on."""
    if off == "packing" and method != "mhr":
        pytest.skip("tiny batches are not packed anyway")
    project = linked(walked_all, tmp_path)
    for stage in ("pretrain", "adapt"):
        assert run(stage, "-m", method, "-C", project, "--off", off) == 0
        rerun, other = (folder / f"data/{stage}/{CELLS[method]}" for folder in (project, walked_all))
        tensors, expected = (load_adapter(folder / "adapters.safetensors").state_dict() for folder in (rerun, other))
        assert tensors.keys() == expected.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5, msg=f"{stage} {name}")
    before, after = [
        [json.loads(line)["loss"] for line in (folder / f"data/pretrain/{CELLS[method]}/log.jsonl").read_text().splitlines()]
        for folder in (walked_all, project)
    ]
    if len(before) == len(after):
        assert after == pytest.approx(before, abs=2e-5)
    else:  # runs one by one have lines of their own
        assert method == "adapter_soup"
        assert fmean(after) == pytest.approx(fmean(before), abs=2e-5)


def linked(project: Path, folder: Path) -> Path:
    """A project of its own that shares what was prepared with another."""
    new = folder / "project"
    (new / "data").mkdir(parents=True)
    (new / "params.yaml").write_text((project / "params.yaml").read_text())
    for name in ("prepare", "backbone", "index"):
        (new / "data" / name).symlink_to(project / "data" / name)
    return new


@pytest.mark.parametrize("off", ["forward", "folding", "together"])
def test_predictions_are_the_same_without(walked_all: Path, copy: Path, run: Run, off: str) -> None:
    assert run("evaluate", "-m", "mhr", "-C", copy, "--off", off, "--force") == 0
    predictions, expected = (
        pq.read_table(folder / "data/evaluate/mhr-h4-s0/predictions.parquet") for folder in (copy, walked_all)
    )
    assert predictions.equals(expected)
    assert predictions.num_rows > 0


def test_the_environment_switches_off_too(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MHRCTL_OFF", "fused nonsense")
    assert run("pretrain", "-m", "lora", "-C", copy) == 2
    assert "unknown speed option 'nonsense'" in capsys.readouterr().err


def test_checkpointing_is_the_same(copy: Path, run: Run) -> None:
    path = copy / "data/pretrain/mhr-h4-s0/adapters.safetensors"
    before = load_adapter(path).state_dict()
    assert run("pretrain", "-m", "mhr", "-C", copy, "--checkpointing", "--force") == 0
    for name, tensor in load_adapter(path).state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-7)
    with (copy / "data/metrics/pretrain/mhr-h4-s0.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2


def test_what_only_our_own_forward_has_is_refused_elsewhere(copy: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "-m", "lora", "-C", copy, "--checkpointing", "--off", "forward", "--force") == 2
    error = capsys.readouterr().err
    assert "--checkpointing is an option of mhrctl's own forward of T5, which cannot be used: it is switched off" in error
    settings = ("--set", "pretrain.dropout=0.1", "--set", "pretrain.steps=1", "--force")
    assert run("pretrain", "-m", "lora", "-C", copy, *settings) == 0
    assert run("pretrain", "-m", "lora", "-C", copy, *settings, "--checkpointing") == 2
    assert "the adapters' inputs have dropout" in capsys.readouterr().err
