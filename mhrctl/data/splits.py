"""A task's examples are split deterministically: docs/recipe.md, section 2.4, A.

Training tasks are shuffled once, into train and validation. Test tasks keep their first examples as the
test set, whatever the seed (the upstream order of Super-NaturalInstructions is label-balanced there); the rest is
the pool from which every seed draws its own train and validation examples.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

MIN_VALIDATION = 25
"""A training task with this few examples left over for validation gives validation its first 25 instead."""


def training_split(examples: Sequence[T], *, size: int, seed: int) -> tuple[list[T], list[T]]:
    """Split a training task into (train, validation).

    Args:
        examples: all of the task's examples.
        size: the most examples that either split takes.
        seed: of the shuffle.

    Returns:
        The first `size` of the shuffled examples and the next `size`; if 25 or fewer would be left for validation,
        validation is the first 25 (at most a fifth of the task) and train what follows.
    """
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    train, validation = shuffled[:size], shuffled[size : 2 * size]
    if len(validation) <= MIN_VALIDATION:
        held_out = min(MIN_VALIDATION, len(shuffled) // 5)
        validation, train = shuffled[:held_out], shuffled[held_out : held_out + size]
    return train, validation


def held_out_size(total: int, *, size: int) -> int:
    """Return the size of each of a test task's three splits: `size`, or a third of a task that has fewer than 3 * size."""
    return min(size, total // 3)


def few_shot_split(pool: Sequence[T], *, shots: int, validation: int, seed: int) -> tuple[list[T], list[T]]:
    """Draw (train, validation) for one seed from a test task's pool.

    Args:
        pool: the task's examples that are not in its test split.
        shots: the most examples to train on.
        validation: the most examples to validate on.
        seed: of the cell, so that the draw changes with it as in the paper.

    Returns:
        Disjoint lists; a pool smaller than shots + validation is divided in the same proportion, one example each at least.
    """
    shuffled = list(pool)
    random.Random(seed).shuffle(shuffled)
    if len(shuffled) < shots + validation:
        shots = max(1, len(shuffled) * shots // (shots + validation))
    return shuffled[:shots], shuffled[shots : shots + validation]
