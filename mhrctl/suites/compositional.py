"""The embedded suite executes programs in the manner of Super-NaturalInstructions, small enough to learn in a minute.

A task is a composition of two operations on lists, described in words; its inputs are lists of words and numbers. The backbone
learns the single operations; the training tasks are compositions, the test tasks are compositions that occur in no
training task, in any order. Settings make it harder: compositions of three, and operations that the backbone has not learnt.
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
    """Make the suite."""
    return _of(params)


def check(params: Params, root: Path, *, metrics: Metrics) -> Seen:  # noqa: ARG001 - of every source
    """Count the tasks."""
    suite = _of(params.prepare)
    suite.chosen(params.prepare.test_tasks)
    return Seen(TaskCounts.of(suite.tasks))


def _of(params: PrepareParams) -> Suite:
    return read_compositional(operations=params.compositional.operations, unseen=params.compositional.unseen)


def read_compositional(*, operations: int = 2, unseen: int = 0) -> Suite:
    """Make the suite: single operations for the backbone, compositions for training, unseen compositions for test.

    Args:
        operations: of a composition.
        unseen: operations that the backbone does not learn.
    """
    rng = random.Random(SUITE_SEED)
    compositions = _compositions(rng, operations)
    test = _test_compositions(compositions, rng)
    tested = {frozenset(names) for names in test}
    training = [names for names in compositions if frozenset(names) not in tested][:TRAINING_TASKS]
    left_out = random.Random(f"{SUITE_SEED}/unseen").sample(list(OPERATIONS), unseen)
    singles = [(), *((name,) for name in OPERATIONS if name not in left_out)]
    tasks = [_task(names, "backbone", BACKBONE_EXAMPLES) for names in singles]
    tasks += [_task(names, "training", EXAMPLES) for names in sorted(training)]
    return Suite("compositional", [*tasks, *(_task(names, "test", EXAMPLES) for names in sorted(test))])


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
    """The answer among others that are nearly right: a part of the task, the other way round, another last operation."""
    others = [names[:-1], names[1:], names[::-1], *((*names[:-1], other) for other in OPERATIONS)]
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


def _compositions(rng: random.Random, length: int) -> list[tuple[str, ...]]:
    """Orders of operations, shuffled, that no fewer operations and no earlier order compute, and that never leave nothing."""
    probes = [_list(rng) for _ in range(PROBES)]
    seen = {_outputs(names, probes) for fewer in range(length) for names in itertools.permutations(OPERATIONS, fewer)}
    orders = list(itertools.permutations(OPERATIONS, length))
    rng.shuffle(orders)
    distinct = []
    for names in orders:
        outputs = _outputs(names, probes)
        if outputs not in seen and all(outputs):
            seen.add(outputs)
            distinct.append(names)
    return distinct


def _outputs(names: tuple[str, ...], probes: list[list[str]]) -> tuple[str, ...]:
    return tuple(" ".join(apply(names, probe)) for probe in probes)


def _test_compositions(compositions: list[tuple[str, ...]], rng: random.Random) -> list[tuple[str, ...]]:
    """Draw the test compositions so that no operation leads, or ends, more than two of them, and no two are of the same."""
    chosen: list[tuple[str, ...]] = []
    for names in rng.sample(compositions, len(compositions)):
        firsts, lasts = [each[0] for each in chosen], [each[-1] for each in chosen]
        is_taken = any(set(names) == set(each) for each in chosen)
        if firsts.count(names[0]) < 2 and lasts.count(names[-1]) < 2 and not is_taken:
            chosen.append(names)
        if len(chosen) == TEST_TASKS:
            break
    return chosen
