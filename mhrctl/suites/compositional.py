"""The embedded suite executes programs in the manner of Super-NaturalInstructions, small enough to learn in a minute.

A task is a composition of two operations on lists, described in words; its inputs are lists of words and numbers. The backbone
learns the single operations; the training tasks are compositions, the test tasks are compositions that occur in no
training task, in either order.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

from mhrctl.config.params import Params
from mhrctl.config.tasks import PrepareParams
from mhrctl.progress import Track
from mhrctl.suites.task import Example, Metrics, Role, Seen, Suite, Task, TaskCounts

WORDS = ["ant", "bee", "cat", "cow", "dog", "eel", "elk", "fox", "hen", "jay", "kid", "owl", "pig", "ram", "rat", "yak"]
NUMBERS = [str(number) for number in range(16)]
TRAINING_TASKS = 80
TEST_TASKS = 12
EXAMPLES = 300
"""Examples a task: enough for 100 each in train, validation and test."""
BACKBONE_EXAMPLES = 2000
"""Examples of a single operation, for the backbone."""
REPEATED = 0.3
"""How often a list repeats an item."""
CHOICES = 4
"""Answer choices of a test example, for losses over choices; answers are generated all the same."""
PROBES = 60
"""Lists on which two operations count as different."""
SUITE_SEED = 7
"""Of the choice of tasks and of their inputs: the suite is the same for everybody."""

Operation = Callable[[list[str]], list[str]]


def _order(item: str) -> tuple[int, int, str]:
    return (0, int(item), "") if item.isdigit() else (1, 0, item.lower())


OPERATIONS: dict[str, tuple[str, Operation]] = {
    "reverse": ("reverse the list", lambda items: items[::-1]),
    "sort": ("sort the list", lambda items: sorted(items, key=_order)),
    "unique": ("drop repeated items", lambda items: list(dict.fromkeys(items))),
    "first_three": ("keep the first three items", lambda items: items[:3]),
    "last_three": ("keep the last three items", lambda items: items[-3:]),
    "drop_first": ("remove the first item", lambda items: items[1:]),
    "drop_last": ("remove the last item", lambda items: items[:-1]),
    "numbers": ("keep only the numbers", lambda items: [item for item in items if item.isdigit()]),
    "words": ("keep only the words", lambda items: [item for item in items if not item.isdigit()]),
    "upper": ("write words in upper case", lambda items: [item.upper() for item in items]),
    "rotate": ("move the first item to the end", lambda items: items[1:] + items[:1]),
    "rotate_back": ("move the last item to the front", lambda items: items[-1:] + items[:-1]),
    "every_other": ("keep every second item", lambda items: items[::2]),
    "double": ("write every item twice", lambda items: [item for item in items for _ in range(2)]),
}


def read(params: PrepareParams, root: Path, *, metrics: Metrics, track: Track) -> Suite:  # noqa: ARG001 - of every source
    """Make the suite, which no setting changes."""
    return read_compositional()


def check(params: Params, root: Path, *, metrics: Metrics) -> Seen:  # noqa: ARG001 - of every source
    """Count the tasks."""
    suite = read_compositional()
    suite.chosen(params.prepare.test_tasks)
    return Seen(TaskCounts.of(suite.tasks))


def read_compositional() -> Suite:
    """Make the suite: single operations for the backbone, compositions for training, unseen compositions for test."""
    rng = random.Random(SUITE_SEED)
    pairs = _compositions(rng)
    test = _test_pairs(pairs, rng)
    training = [pair for pair in pairs if set(pair) not in [set(other) for other in test]][:TRAINING_TASKS]
    singles = [_task(names, "backbone", BACKBONE_EXAMPLES) for names in ((), *((name,) for name in OPERATIONS))]
    compositions = [_task(pair, "training", EXAMPLES) for pair in sorted(training)]
    return Suite("compositional", [*singles, *compositions, *(_task(pair, "test", EXAMPLES) for pair in sorted(test))])


def apply(names: tuple[str, ...], items: list[str]) -> list[str]:
    """Apply operations one after the other."""
    for name in names:
        items = OPERATIONS[name][1](items)
    return items


def _task(names: tuple[str, ...], role: Role, examples: int) -> Task:
    name = "_then_".join(names) or "copy"
    rng = random.Random(f"{SUITE_SEED}/{name}")
    inputs = {" ".join(_list(rng)): None for _ in range(examples)}
    return Task(
        name=name,
        role=role,
        metric="rouge_l",
        definition=", then ".join(OPERATIONS[operation][0] for operation in names) or "copy the list",
        examples=[
            Example(
                f"{name}-{index}",
                text,
                (" ".join(apply(names, text.split())),),
                choices=_choices(names, text.split(), index) if role == "test" else (),
            )
            for index, text in enumerate(inputs)
        ],
    )


def _choices(names: tuple[str, ...], items: list[str], index: int) -> tuple[str, ...]:
    """The answer among others that are nearly right: half of the task, its operations the other way round, other operations."""
    others = [names[:1], names[1:], names[::-1], *((*names[:1], other) for other in OPERATIONS)]
    answers = [apply(names, items), *(apply(other, items) for other in others)]
    distinct = list(dict.fromkeys(" ".join(answer) for answer in answers if answer))[:CHOICES]
    return tuple(random.Random(f"{SUITE_SEED}/{names}/{index}").sample(distinct, len(distinct)))


def _list(rng: random.Random) -> list[str]:
    """Four to seven items: two words and two numbers at least, now and then an item twice."""
    words, numbers = rng.randint(2, 4), rng.randint(2, 3)
    items = rng.sample(WORDS, words) + rng.sample(NUMBERS, numbers)
    if rng.random() < REPEATED:
        items[rng.randrange(len(items))] = rng.choice(items)
    rng.shuffle(items)
    return items


def _compositions(rng: random.Random) -> list[tuple[str, str]]:
    """Ordered pairs, shuffled, that no single operation and no earlier pair computes, and that never leave nothing."""
    probes = [_list(rng) for _ in range(PROBES)]
    seen = {_outputs((), probes), *(_outputs((name,), probes) for name in OPERATIONS)}
    pairs = list(itertools.permutations(OPERATIONS, 2))
    rng.shuffle(pairs)
    distinct = []
    for pair in pairs:
        outputs = _outputs(pair, probes)
        if outputs not in seen and all(outputs):
            seen.add(outputs)
            distinct.append(pair)
    return distinct


def _outputs(names: tuple[str, ...], probes: list[list[str]]) -> tuple[str, ...]:
    return tuple(" ".join(apply(names, probe)) for probe in probes)


def _test_pairs(pairs: list[tuple[str, str]], rng: random.Random) -> list[tuple[str, str]]:
    """Draw the test compositions so that no operation leads, or ends, more than two of them."""
    chosen: list[tuple[str, str]] = []
    for pair in rng.sample(pairs, len(pairs)):
        firsts, seconds = [first for first, _ in chosen], [second for _, second in chosen]
        reverse_taken = pair[::-1] in chosen
        if firsts.count(pair[0]) < 2 and seconds.count(pair[1]) < 2 and not reverse_taken:
            chosen.append(pair)
        if len(chosen) == TEST_TASKS:
            break
    return chosen
