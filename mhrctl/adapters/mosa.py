"""MoSA is the mixture of sparse adapters (arXiv 2312.02923) in its LoRA form: copies of one LoRA, each free in its own entries.

N copies start as one LoRA. For each layer a random partition divides the entries of a matrix among the copies, drawn once: copy
i may change only the entries that are its own. Each step draws, for every layer, a copy of A and another of B, and runs them
densely; the update then reaches only the drawn copies' own entries. The mean over the copies is an ordinary LoRA,

    theta_0 + (1 / N) sum_i m_i * (theta_i - theta_0),

which is what evaluation runs and adaptation starts from. In the hierarchical form A is one dense matrix and only B is divided.

Since each entry can change in one copy alone, the changed values of all copies fit into one matrix of a LoRA's size: `lora_A`
and `lora_B` hold for each entry the value of the copy that owns it, and copy i is where(owner == i, lora, start). No copy can
then change an entry of another's, whatever the optimizer does. In a file:

    <layer>.lora_A, .lora_B               as an inventory's of one skill: each entry in the copy that owns it
    <layer>.lora_A.start, .lora_B.start   what all copies started from, of a divided matrix
    <layer>.lora_A.owner, .lora_B.owner   the copy that owns each entry, from 0, of a divided matrix
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.copies import Copies
from mhrctl.adapters.inventory import Inventory

DIVIDED = {"hierarchical": ("lora_B",), "full": ("lora_A", "lora_B")}
"""{form: the matrices whose entries are divided among the copies}."""


class MoSA(Copies):
    """MoSA is an inventory of one skill whose entries belong to copies.

    Attributes:
        sparse: `hierarchical` or `full`, see `DIVIDED`.
    """

    kind = "mosa"

    def __init__(self, shapes: Shapes, config: InventoryConfig, *, copies: int, sparse: str, consistency: float = 0.0) -> None:
        """Make new copies of one LoRA, and divide its entries.

        Args:
            shapes: {layer name: (d_in, d_out)}.
            config: of the LoRA.
            copies: N, at least two.
            sparse: `hierarchical` or `full`.
            consistency: weight of the divergence between two draws for a batch.
        """
        super().__init__(shapes, config, copies=copies, consistency=consistency)
        self.sparse = sparse
        self._moved: dict[tuple[str, int], Tensor] = {}
        for matrix in DIVIDED[sparse]:
            for place, bank in enumerate(getattr(self, matrix)):
                self.register_buffer(f"start_{matrix}_{place}", bank.detach().clone())
                self.register_buffer(f"owner_{matrix}_{place}", _partition(bank, copies))

    def forward(self, task_ids: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002 - nothing is routed
        """Compose the adapter of all rows: while training of copies that are drawn for each layer, else of their mean.

        Returns:
            `<layer>.down` [1, r, d_in] and `<layer>.up` [1, r, d_out] with the scaling folded in.
        """
        banks = self._drawn() if self.training else self._means()
        slots: dict[str, Tensor] = {}
        for names, bank_a, bank_b in zip(self.stacks.values(), banks["lora_A"], banks["lora_B"], strict=True):
            for place, name in enumerate(names):
                slots[f"{name}.down"] = bank_a[:, place, 0, 0].transpose(-1, -2)
                slots[f"{name}.up"] = bank_b[:, place, 0, 0] * self.scaling
        return slots

    @torch.no_grad()
    def average(self) -> Inventory:
        """Return the mean over the copies, an ordinary LoRA of the same rank."""
        merged, means = self.like_average(), self._means()
        for matrix, banks in means.items():
            for target, mean in zip(getattr(merged, matrix), banks, strict=True):
                target.copy_(mean)
        return merged

    def constrain(self, optimizer: Optimizer) -> None:
        """Hold the entries of copies that a step did not draw, and their moments, to what they were before it.

        Their gradient is zero, and Adam would move them all the same: by its moments, and by the decay of weights.
        """
        before: dict[nn.Parameter, tuple[Tensor, dict[str, Tensor]]] = {}

        def remember(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:  # noqa: ANN401 - torch's hook
            for _, _, parameter in self._divided():
                moments = {name: moment.clone() for name, moment in _moments(optimizer, parameter)}
                before[parameter] = parameter.detach().clone(), moments

        def restore(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:  # noqa: ANN401
            for matrix, place, parameter in self._divided():
                value, moments = before.pop(parameter)
                moved = _of_all_processes(self._moved.pop((matrix, place)))
                with torch.no_grad():
                    parameter.copy_(torch.where(moved, parameter, value))
                    for name, now in _moments(optimizer, parameter):
                        now.copy_(torch.where(moved, now, moments.get(name, torch.zeros_like(now))))

        optimizer.register_step_pre_hook(remember)
        optimizer.register_step_post_hook(restore)

    def settings(self) -> dict[str, Any]:
        """Return the shapes, the LoRA's rank, alpha and dropout, and the copies."""
        lora = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        return {"shapes": self.shapes, **lora, "copies": self.copies, "sparse": self.sparse, "consistency": self.consistency}

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make copies from `settings`."""
        lora = InventoryConfig(rank=settings["rank"], alpha=settings["alpha"], dropout=settings["dropout"])
        return cls(settings["shapes"], lora, **{name: settings[name] for name in ("copies", "sparse", "consistency")})

    def tensors(self) -> dict[str, Tensor]:
        """Return `<layer>.lora_A` and `<layer>.lora_B`, and of divided matrices their start and the owners of their entries."""
        tensors = super().tensors()
        for matrix, place, _ in self._divided():
            for layer, name in enumerate(list(self.stacks.values())[place]):
                tensors[f"{name}.{matrix}.start"] = self._start(matrix, place)[:, layer]
                tensors[f"{name}.{matrix}.owner"] = self._owner(matrix, place)[:, layer]
        return tensors

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a file's tensors."""
        super().fill(tensors)
        for matrix, place, _ in self._divided():
            names = list(self.stacks.values())[place]
            self._start(matrix, place).copy_(torch.stack([tensors[f"{name}.{matrix}.start"] for name in names], 1))
            self._owner(matrix, place).copy_(torch.stack([tensors[f"{name}.{matrix}.owner"] for name in names], 1))

    def copy(self, number: int) -> dict[str, list[Tensor]]:
        """Return the matrices of one copy, as they are stacked: {`lora_A` or `lora_B`: one bank for each shape of layer}."""
        return self._with_divided(
            lambda matrix, place, parameter: torch.where(
                self._owner(matrix, place) == number, parameter, self._start(matrix, place)
            )
        )

    def _drawn(self) -> dict[str, list[Tensor]]:
        """The matrices of copies that are drawn now, one for each layer and divided matrix."""

        def draw(matrix: str, place: int, parameter: Tensor) -> Tensor:
            owner = self._owner(matrix, place)
            copy = torch.randint(self.copies, (1, owner.shape[1], 1, 1, 1, 1), device=owner.device)
            free = owner == copy
            # A step may draw several times: for the consistency term, and for each micro-batch that it accumulates.
            self._moved[matrix, place] = free | self._moved.get((matrix, place), torch.zeros_like(free))
            return torch.where(free, parameter, self._start(matrix, place))

        return self._with_divided(draw)

    def _means(self) -> dict[str, list[Tensor]]:
        """The matrices of the mean over the copies."""
        return self._with_divided(
            lambda matrix, place, parameter: torch.lerp(self._start(matrix, place), parameter, 1 / self.copies)
        )

    def _with_divided(self, value_of: Callable[[str, int, nn.Parameter], Tensor]) -> dict[str, list[Tensor]]:
        """All matrices as they are stacked, where those that are divided have the value that is given for them."""
        banks = {"lora_A": list[Tensor](self.lora_A), "lora_B": list[Tensor](self.lora_B)}
        for matrix, place, parameter in self._divided():
            banks[matrix][place] = value_of(matrix, place, parameter)
        return banks

    def _divided(self) -> Iterator[tuple[str, int, nn.Parameter]]:
        """Every divided matrix of every shape of layer: its name, the shape's place, and the stacked parameter."""
        for matrix in DIVIDED[self.sparse]:
            for place, parameter in enumerate(getattr(self, matrix)):
                yield matrix, place, parameter

    def _start(self, matrix: str, place: int) -> Tensor:
        return self.get_buffer(f"start_{matrix}_{place}")

    def _owner(self, matrix: str, place: int) -> Tensor:
        return self.get_buffer(f"owner_{matrix}_{place}")


def _moments(optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
    """What an optimizer keeps for each entry of a parameter, such as Adam's moments: its name and values."""
    for name, value in optimizer.state[parameter].items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield name, value


def _of_all_processes(moved: Tensor) -> Tensor:
    """Return which entries any process has drawn: each draws for itself, and all take the step of all gradients together."""
    if not (dist.is_available() and dist.is_initialized()):
        return moved
    numbers = moved.to(torch.uint8)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.bool()


def _partition(bank: Tensor, copies: int) -> Tensor:
    """Divide the entries of each run's and layer's matrix at random into equal parts: the number of each entry's owner.

    Args:
        bank: [runs, layers, ...].
        copies: N.

    Returns:
        uint8, of the bank's shape.
    """
    size = bank[0, 0].numel()
    parts = [torch.randperm(size, device=bank.device) % copies for _ in range(bank.shape[0] * bank.shape[1])]
    return torch.stack(parts).view_as(bank).to(torch.uint8)
