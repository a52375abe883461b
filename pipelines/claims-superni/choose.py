"""The training tasks of this study are chosen by a rule: `python choose.py natural-instructions` writes their split file.

Shortest first, at most four of a category, none of which most prompts or answers would be cut, and none of the test tasks, of
which two with few answers are training tasks upstream: so many tasks of many kinds are learned in minutes on two CPU cores.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import median
from typing import Any

SPLITS = Path(__file__).parent / "chosen/splits/default"
TRAINING, TEST = "train_tasks.txt", "test_tasks.txt"
TASKS = 48
OF_A_CATEGORY = 4
INSTANCES = 100
"""Of a task, its first, whose lengths count."""
LONGEST_PROMPT, LONGEST_ANSWER = 600, 100
"""Characters of definition and input, and of an answer, in the median: about 150 and 25 tokens."""


def chosen(clone: Path, held_out: Collection[str]) -> list[str]:
    """Return the names of the training tasks, sorted.

    Args:
        clone: of allenai/natural-instructions, or a part of it with its own split files.
        held_out: names of test tasks, which are not chosen.
    """
    names = (clone / "splits/default" / TRAINING).read_text(encoding="utf-8").split()
    tasks = {
        name: json.loads((clone / f"tasks/{name}.json").read_text(encoding="utf-8")) for name in names if name not in held_out
    }
    kept: list[str] = []
    categories: Counter[str] = Counter()
    for name in sorted(filter(lambda name: _fits(tasks[name]), tasks), key=lambda name: (_prompt(tasks[name]), name)):
        category = tasks[name]["Categories"][0]
        if categories[category] < OF_A_CATEGORY and len(kept) < TASKS:
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
    held_out = (SPLITS / TEST).read_text(encoding="utf-8").split()
    (SPLITS / TRAINING).write_text("\n".join(chosen(Path(sys.argv[1]), held_out)) + "\n", encoding="utf-8")
