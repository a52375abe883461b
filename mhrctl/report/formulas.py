"""Table 1 of the paper says how many numbers a method trains and uses, for one adapted layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The formulas count with these sizes.

    Attributes:
        d: d_in + d_out of an adapted layer.
        w: d_in * d_out of that layer.
        r: rank of a LoRA.
        K: skills.
        T: training tasks.
        H: heads.
    """

    d: int
    w: int
    r: int
    K: int
    T: int
    H: int


Count = Callable[[Sizes], int]


@dataclass(frozen=True)
class Formula:
    """A formula is kept as the reader sees it, and as a function; a test holds the two together."""

    text: str
    count: Count


LORA = Formula("d r", lambda s: s.d * s.r)
FULL = Formula("w", lambda s: s.w)
SKILLS_AND_TASKS = Formula("K d r + T K", lambda s: s.K * s.d * s.r + s.T * s.K)
SKILLS_AND_TASK = Formula("K d r + K", lambda s: s.K * s.d * s.r + s.K)
TASK = Formula("K", lambda s: s.K)
SKILLS_AND_TASKS_BY_HEAD = Formula("K d r + T K H", lambda s: s.K * s.d * s.r + s.T * s.K * s.H)
SKILLS_AND_TASK_BY_HEAD = Formula("K d r + K H", lambda s: s.K * s.d * s.r + s.K * s.H)
TASK_BY_HEAD = Formula("K H", lambda s: s.K * s.H)

FORMULAS: dict[str, tuple[Formula, Formula, Formula]] = {
    # method: multi-task pre-training, fine-tuning on one task, inference on one task
    "full_ft": (FULL, FULL, FULL),
    "lora": (LORA, LORA, LORA),
    "poly": (SKILLS_AND_TASKS, SKILLS_AND_TASK, LORA),
    "poly_z": (SKILLS_AND_TASKS, TASK, LORA),
    "poly_mu": (SKILLS_AND_TASKS, LORA, LORA),
    "mhr": (SKILLS_AND_TASKS_BY_HEAD, SKILLS_AND_TASK_BY_HEAD, LORA),
    "mhr_z": (SKILLS_AND_TASKS_BY_HEAD, TASK_BY_HEAD, LORA),
    "mhr_mu": (SKILLS_AND_TASKS_BY_HEAD, LORA, LORA),
}


def t5_shapes(*, d_model: int, d_ff: int, layers: int) -> Iterable[tuple[int, int]]:
    """Return (d_in, d_out) of q k v o wi_0 wi_1 wo in a T5 v1.1 whose attention is as wide as the model."""
    attention = [(d_model, d_model)] * 4
    feed_forward = [(d_model, d_ff), (d_model, d_ff), (d_ff, d_model)]
    return [*attention, *feed_forward, *attention, *attention, *feed_forward] * layers


def total(formula: Formula, shapes: Iterable[tuple[int, int]], *, rank: int, skills: int, tasks: int, heads: int) -> int:
    """Sum a formula over layers."""
    return sum(formula.count(Sizes(d_in + d_out, d_in * d_out, rank, skills, tasks, heads)) for d_in, d_out in shapes)
