"""Questions to the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.artifacts.names import Project
from mhrctl.data.index import load_index
from mhrctl.data.shots import draw_shots
from mhrctl.errors import ArtifactError, DataError
from mhrctl.tools.index import query
from tests.conftest import Run

DRAWN: dict[str, Any] = {"shots": 3, "validation": 3, "seed": 0}


def test_a_training_task_is_ranked_by_its_vector_and_is_not_among_the_others(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    ranked = query("first", project=Project(copy), **DRAWN)
    assert ranked == load_index(copy / "data/index", root=copy).nearest_to("first")
    assert {name for name, _ in ranked} == {"copy", "last"}
    assert ranked[0][1] >= ranked[1][1]


def test_a_test_task_is_ranked_by_the_shots_of_the_seed(copy: Path, run: Run) -> None:
    assert run("index", "-C", copy) == 0
    known = load_index(copy / "data/index", root=copy)
    for seed in (0, 1):
        (prompts,) = (
            task.prompts for task in draw_shots(copy / "data/prepare", shots=3, validation=3, seed=seed) if task.name == "twice"
        )
        assert query("twice", project=Project(copy), **DRAWN | {"seed": seed}) == known.nearest(prompts)


def test_an_unknown_task_and_a_missing_index_are_rejected(copy: Path, run: Run) -> None:
    with pytest.raises(ArtifactError, match="no finished index output; run `mhrctl index`"):
        query("swap", project=Project(copy), **DRAWN)
    assert run("index", "-C", copy) == 0
    with pytest.raises(DataError, match=r"--task: unknown task 'swop'; did you mean 'swap'\? \(known: copy, first, last, swap"):
        query("swop", project=Project(copy), **DRAWN)
