"""The training tasks of this study are chosen by a rule: `python choose.py natural-instructions` writes their split file.

Shortest first, at most four of a category, none of which most prompts or answers would be cut, and none of the test tasks, of
which two with few answers are training tasks upstream: so many tasks of many kinds are learned in minutes on two CPU cores.
Another study takes fewer: `python choose.py natural-instructions --into ../its/chosen --tasks 24 --of-a-category 2`.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import median
from typing import Any

SPLITS = "splits/default"
TRAINING, TEST = "train_tasks.txt", "test_tasks.txt"
TASKS, OF_A_CATEGORY = 48, 4
INSTANCES = 100
"""Of a task, its first, whose lengths count."""
LONGEST_PROMPT, LONGEST_ANSWER = 600, 100
"""Characters of definition and input, and of an answer, in the median: about 150 and 25 tokens."""


def chosen(clone: Path, held_out: Collection[str], tasks: int = TASKS, of_a_category: int = OF_A_CATEGORY) -> list[str]:
    """Return the names of the training tasks, sorted.

    Args:
        clone: of allenai/natural-instructions, or a part of it with its own split files.
        held_out: names of test tasks, which are not chosen.
        tasks: how many, if there are as many.
        of_a_category: of these at most.
    """
    names = (clone / SPLITS / TRAINING).read_text(encoding="utf-8").split()
    contents = {
        name: json.loads((clone / f"tasks/{name}.json").read_text(encoding="utf-8")) for name in names if name not in held_out
    }
    kept: list[str] = []
    categories: Counter[str] = Counter()
    for name in sorted(filter(lambda name: _fits(contents[name]), contents), key=lambda name: (_prompt(contents[name]), name)):
        category = contents[name]["Categories"][0]
        if categories[category] < of_a_category and len(kept) < tasks:
            categories[category] += 1
            kept.append(name)
    return sorted(kept)


def _prompt(task: Mapping[str, Any]) -> float:
    """The median length of a task's definition and input."""
    return len(" ".join(task["Definition"])) + median(len(each["input"]) for each in task["Instances"][:INSTANCES])


def _fits(task: Mapping[str, Any]) -> bool:
    """Whether a task is English, short, and large enough."""
    instances = task["Instances"][:INSTANCES]
    answer = median(len(each["output"][0]) for each in instances)
    english = {*task["Input_language"], *task["Output_language"]} == {"English"}
    return english and len(instances) == INSTANCES and _prompt(task) <= LONGEST_PROMPT and answer <= LONGEST_ANSWER


if __name__ == "__main__":
    parser = ArgumentParser(description="Choose training tasks, and write their split file.")
    parser.add_argument("clone", type=Path, help="of allenai/natural-instructions")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "chosen", help="where the split files are")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--of-a-category", type=int, default=OF_A_CATEGORY)
    said = parser.parse_args()
    held_out = (said.into / SPLITS / TEST).read_text(encoding="utf-8").split()
    names = chosen(said.clone, held_out, said.tasks, said.of_a_category)
    (said.into / SPLITS / TRAINING).write_text("\n".join(names) + "\n", encoding="utf-8")
