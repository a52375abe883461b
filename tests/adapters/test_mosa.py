"""The mixture of sparse adapters: masks that hold under AdamW, draws, the mean over copies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.mosa import DIVIDED, MoSA
from mhrctl.config.sections import PretrainParams
from mhrctl.training.optimizers import optimizer_of

SHAPES = {"a.q": (8, 12), "a.v": (8, 12), "b.o": (12, 8)}
COPIES = 3
ROOT = Path(__file__).parents[2]


def mixture(sparse: str = "full", *, rank: int = 4, consistency: float = 0.0) -> MoSA:
    torch.manual_seed(0)
    return MoSA(SHAPES, InventoryConfig(rank=rank, alpha=2.0), copies=COPIES, sparse=sparse, consistency=consistency)


def moved(adapter: MoSA) -> MoSA:
    """An adapter whose copies have left their start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter


def banks(adapter: MoSA, matrix: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(values, start, owners) of each shape of layer of a divided matrix."""
    return [
        (bank, adapter.get_buffer(f"start_{matrix}_{place}"), adapter.get_buffer(f"owner_{matrix}_{place}"))
        for place, bank in enumerate(getattr(adapter, matrix))
    ]


@pytest.mark.parametrize("sparse", list(DIVIDED))
def test_copies_start_as_one_lora_and_divide_its_entries_evenly(sparse: str) -> None:
    adapter = mixture(sparse)
    first = adapter.copy(0)
    for number in range(1, COPIES):
        for matrix, of_copy in adapter.copy(number).items():
            assert all(torch.equal(one, other) for one, other in zip(of_copy, first[matrix], strict=True))
    for matrix in DIVIDED[sparse]:
        for _, _, owner in banks(adapter, matrix):
            for of_layer in owner.unbind(1):
                counts = torch.bincount(of_layer.flatten().long(), minlength=COPIES)
                assert counts.max() - counts.min() <= 1
            assert not torch.equal(owner[:, :1].expand_as(owner), owner) or owner.shape[1] == 1  # each layer has its own


def test_masks_depend_on_the_seed_alone() -> None:
    for (_, _, one), (_, _, other) in zip(banks(mixture(), "lora_B"), banks(mixture(), "lora_B"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("sparse", list(DIVIDED))
def test_the_average_is_the_start_and_the_mean_of_the_masked_changes(sparse: str) -> None:
    adapter = moved(mixture(sparse))
    copies = [adapter.copy(number) for number in range(COPIES)]
    average = adapter.average()
    assert type(average) is Inventory
    for matrix in ("lora_A", "lora_B"):
        for place, merged in enumerate(getattr(average, matrix)):
            torch.testing.assert_close(merged, torch.stack([copy[matrix][place] for copy in copies]).mean(0))
    for matrix in DIVIDED[sparse]:
        for place, (values, start, owner) in enumerate(banks(adapter, matrix)):
            changes = sum((owner == number) * (values - start) for number in range(COPIES))
            torch.testing.assert_close(getattr(average, matrix)[place], start + changes / COPIES)
    adapter.eval()
    for (name, slot), expected in zip(adapter().items(), average().values(), strict=True):
        torch.testing.assert_close(slot, expected, msg=name)


@pytest.mark.parametrize("sparse", list(DIVIDED))
def test_while_training_each_layer_runs_a_copy_that_is_drawn_for_it(sparse: str) -> None:
    adapter = moved(mixture(sparse)).train()
    seen: dict[str, set[int]] = {name: set() for name in SHAPES}
    plain = [adapter.copy(number) for number in range(COPIES)]
    for seed in range(30):
        torch.manual_seed(seed)
        slots = adapter()
        for place, names in enumerate(adapter.stacks.values()):
            for layer, name in enumerate(names):
                up = slots[f"{name}.up"] / adapter.scaling
                equal = [n for n in range(COPIES) if torch.allclose(up, plain[n]["lora_B"][place][:, layer, 0, 0])]
                assert len(equal) == 1
                seen[name] |= set(equal)
                down = slots[f"{name}.down"].transpose(-1, -2)
                assert any(torch.equal(down, plain[n]["lora_A"][place][:, layer, 0, 0]) for n in range(COPIES))
    assert all(numbers == set(range(COPIES)) for numbers in seen.values())


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_step_moves_the_entries_of_the_drawn_copies_alone(name: Literal["adamw", "adafactor"]) -> None:
    """Whatever the optimizer remembers, and with its decay of weights."""
    adapter = moved(mixture()).train()
    settings = PretrainParams(steps=1, batch_size=1, optimizer=name, lr=0.1, weight_decay=0.5)
    optimizer = optimizer_of(adapter, settings)
    adapter.constrain(optimizer)
    for step in range(6):
        torch.manual_seed(step)
        adapter.zero_grad()
        sum(slot.square().sum() for slot in adapter().values()).backward()
        drawn = {key: free.clone() for key, free in adapter._moved.items()}
        before = {key: getattr(adapter, key[0])[key[1]].detach().clone() for key in drawn}
        optimizer.step()
        for key, free in drawn.items():
            parameter = getattr(adapter, key[0])[key[1]]
            assert torch.equal(parameter[~free], before[key][~free])
            assert not torch.equal(parameter[free], before[key][free])
    assert not adapter._moved


def test_training_equals_copies_that_are_held_one_by_one() -> None:
    """A reference that keeps every copy, masks its gradient, and updates only the entries of the copy that was drawn."""
    adapter = MoSA({"q": (6, 6)}, InventoryConfig(rank=4), copies=COPIES, sparse="full").train()
    lr, decay, betas, eps = 0.05, 0.3, (0.9, 0.999), 1e-8
    moved(adapter)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=lr, weight_decay=decay, betas=betas, eps=eps)
    adapter.constrain(optimizer)
    starts = {m: bank[0][1].clone() for m in ("lora_A", "lora_B") for bank in [banks(adapter, m)]}
    owners = {m: bank[0][2] for m in ("lora_A", "lora_B") for bank in [banks(adapter, m)]}
    copies = [{m: adapter.copy(n)[m][0].detach().clone() for m in starts} for n in range(COPIES)]
    moments = [{m: [torch.zeros_like(starts[m]), torch.zeros_like(starts[m])] for m in starts} for _ in range(COPIES)]
    target, x = torch.randn(6, 6), torch.randn(5, 6)

    def loss_of(a: Tensor, b: Tensor) -> Tensor:
        return (x @ a[0, 0, 0, 0] @ b[0, 0, 0, 0] - x @ target).square().mean()

    for step in range(1, 9):
        torch.manual_seed(step)
        optimizer.zero_grad()
        slots = adapter()
        (x @ slots["q.down"][0].T @ (slots["q.up"][0] / adapter.scaling) - x @ target).square().mean().backward()
        torch.manual_seed(step)
        drawn = {m: int(torch.randint(COPIES, (1, 1, 1, 1, 1, 1))) for m in starts}
        leaves = {m: copies[drawn[m]][m].clone().requires_grad_() for m in starts}
        grads = torch.autograd.grad(loss_of(leaves["lora_A"], leaves["lora_B"]), list(leaves.values()))
        optimizer.step()
        for (m, number), grad in zip(drawn.items(), grads, strict=True):
            mask = owners[m] == number
            first, second = moments[number][m]
            first.copy_(torch.where(mask, betas[0] * first + (1 - betas[0]) * grad, first))
            second.copy_(torch.where(mask, betas[1] * second + (1 - betas[1]) * grad.square(), second))
            update = (first / (1 - betas[0] ** step)) / ((second / (1 - betas[1] ** step)).sqrt() + eps)
            copy = copies[number][m]
            copy.copy_(torch.where(mask, copy - lr * decay * copy - lr * update, copy))
        for number in range(COPIES):
            for m, of_copy in adapter.copy(number).items():
                torch.testing.assert_close(of_copy[0].detach(), copies[number][m], rtol=1e-4, atol=1e-6)
    for m, start in starts.items():
        for number in range(COPIES):
            outside = owners[m] != number
            assert torch.equal(adapter.copy(number)[m][0][outside], start[outside])


@pytest.mark.parametrize("sparse", list(DIVIDED))
def test_a_file_brings_back_every_copy(sparse: str, tmp_path: Path) -> None:
    adapter = moved(mixture(sparse, consistency=0.5))
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    back = load_adapter(tmp_path / "adapter.safetensors")
    assert isinstance(back, MoSA)
    assert json.loads(json.dumps(back.settings())) == json.loads(json.dumps(adapter.settings()))
    for number in range(COPIES):
        for matrix, of_copy in adapter.copy(number).items():
            assert all(torch.equal(one, other) for one, other in zip(of_copy, back.copy(number)[matrix], strict=True))


def test_what_it_can_do_is_said_by_its_class() -> None:
    adapter = mixture()
    assert adapter.averageable
    assert not adapter.exports_to
    assert not adapter.has_alignment


PROCESSES = """\
import sys, torch, torch.distributed as dist
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.mosa import MoSA

dist.init_process_group("gloo")
torch.manual_seed(0)
adapter = MoSA({"q": (6, 6)}, InventoryConfig(rank=4), copies=3, sparse="full").train()
optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.5)
adapter.constrain(optimizer)
with torch.no_grad():
    for bank in adapter.lora_B:
        bank.normal_()
for step in range(5):
    torch.manual_seed(2 * step + dist.get_rank())  # each process draws copies of its own
    optimizer.zero_grad()
    sum(slot.square().sum() for slot in adapter().values()).backward()
    for parameter in adapter.parameters():
        dist.all_reduce(parameter.grad)
    optimizer.step()
for parameter in adapter.parameters():
    other = parameter.detach().clone()
    dist.broadcast(other, 0)
    assert torch.equal(parameter, other), "the processes have come apart"
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_several_processes_keep_the_same_copies(tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
