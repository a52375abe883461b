"""This table says once what each stage reads.

Of this table follow the hashes in cards, and so whether an output is up to date (`mhrctl.artifacts.provenance`); the files
that are watched for edits while a stage runs (`mhrctl.artifacts.watching`); and what the stages of dvc.yaml depend on
(`mhrctl.projects.templates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mhrctl.artifacts.names import (
    ADAPTERS,
    BACKBONE_EXAMPLES,
    CARD,
    SAMPLES,
    TASKS,
    TEST_EXAMPLES,
    TOKENIZER,
    TRAINING_EXAMPLES,
)

Place = Literal[
    "sources",
    "tasks",
    "test_tasks",
    "tokenizer",
    "weights",
    "encoder",
    "prepare",
    "backbone",
    "pretrain",
    "index",
    "start",
    "adapted",
    "under",
    "pool",
    "loras",
    "own",
    "metrics",
]
"""Whose a file is: the output of a stage, what a cell starts from (`start`) or was adapted to (`adapted`), or the user's own.
Two are outputs of other cells, which settings name: what is frozen under an adapter, and the pool that skills come from; `own`
is the output of `prepare` where pre-training reads the test tasks' own examples too.

Of the user's are `loras` (those that are imported), `sources` (whatever the source of the tasks reads), `tasks` and
`test_tasks` (those of them that are hashed), `tokenizer`, `weights` (the folder of a local backbone) and `encoder` (that of the
index's, which no row has: the index has its hash).
"""

Case = Literal["scratch", "private", "index", "new_lora", "named", "sampled"]
"""What decides that a stage reads a file: that the backbone is trained here, or what its method does."""

CASES: frozenset[Case] = frozenset(get_args(Case))
"""All of them, for one who asks what a stage may have read."""

Places = Mapping[Place, Path | Sequence[Path] | None]
"""{place: its folder, or its files}. A stage reads nothing of a place that it is not given."""


@dataclass(frozen=True)
class Input:
    """An input is one thing that a stage reads.

    Attributes:
        place: whose it is.
        file: what of the place; None is all of it.
        parent: its name among the parents of the stage's card, which has its hash; None if its hash does not stand there.
        dependency: what dvc.yaml names: the file itself, the whole place, or nothing where another row's dependency has it.
        when: the case in which it is read; None is any. dvc.yaml names a dependency in every case, since it has one list for
            all cells of a stage.
    """

    place: Place
    file: str | None = None
    parent: str | None = None
    dependency: Literal["itself", "place"] | None = None
    when: Case | None = None

    def paths(self, places: Places) -> list[Path]:
        """Return where it lies."""
        return [path / self.file if self.file else path for path in given(places, self.place)]


# A card names the fingerprint of the weights, and loading compares it: no need to hash gigabytes.
_BACKBONE = Input("backbone", CARD, "backbone", "place")
# DVC sees test tasks by their examples: what changes metrics or the tokenizer runs `prepare`, which writes all three.
_TEST_TASKS = (
    Input("prepare", TEST_EXAMPLES, "examples", "itself"),
    Input("prepare", TASKS, "tasks"),
    Input("prepare", TOKENIZER, "tokenizer"),
)

INPUTS: Mapping[str, tuple[Input, ...]] = {
    "prepare": (
        Input("sources", dependency="itself"),
        Input("tasks", parent="tasks"),
        Input("test_tasks", parent="test_tasks"),
        Input("tokenizer", dependency="itself"),
    ),
    "backbone": (
        Input("weights", dependency="itself"),
        Input("prepare", TRAINING_EXAMPLES, "examples", "itself", when="scratch"),
        Input("prepare", BACKBONE_EXAMPLES, "backbone_examples", "itself", when="scratch"),
        Input("prepare", TOKENIZER, "tokenizer", "itself"),
    ),
    "pretrain": (
        Input("prepare", TRAINING_EXAMPLES, "prepare", "itself"),
        Input("prepare", TASKS, "tasks", when="private"),  # which names the data sets that get an adapter each
        _BACKBONE,
        Input("start", ADAPTERS, "start", "place"),
        Input("under", ADAPTERS, "under", "place"),
        Input("pool", ADAPTERS, "pool", "place"),
        Input("pool", CARD, "pool_card"),  # the names of its adapters
        Input("loras", parent="loras", dependency="itself"),
        Input("own", TEST_EXAMPLES, "test_tasks", "itself"),
    ),
    "average": (
        Input("pretrain", ADAPTERS, "pretrain", "place"),
        Input("pretrain", CARD, "pretrain_card"),
    ),
    "index": (
        Input("prepare", TRAINING_EXAMPLES, "examples", "itself"),
        Input("prepare", TASKS, "tasks"),
    ),
    "adapt": (
        *_TEST_TASKS,
        _BACKBONE,
        Input("index", None, "index", "place", when="index"),
        Input("start", ADAPTERS, "start", "place"),
        Input("start", SAMPLES, "samples", when="sampled"),
        Input("start", CARD, "start_card", when="named"),  # the names of a pool's adapters
        Input("start", CARD, "start_card", when="new_lora"),  # the settings of the new LoRA
        Input("under", ADAPTERS, "under", "place"),
    ),
    "evaluate": (
        *_TEST_TASKS,
        _BACKBONE,
        Input("start", ADAPTERS, "start", "place"),
        Input("start", CARD, "start_card"),
        Input("adapted", ADAPTERS, "adapted", "place"),
        Input("adapted", CARD, "adapted_card"),
        Input("under", ADAPTERS, "under", "place"),
    ),
    "report": (Input("metrics", dependency="itself"),),
}
"""{stage: what it reads, in the order of dvc.yaml}.

Besides these a stage reads the cards in the places that it is given, to see that they fit each other.
"""

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("prepare", "recipe"),
    "backbone": ("backbone",),
    "pretrain": ("cell", "pretrain"),
    "average": (),
    "index": ("index",),
    "adapt": ("cell", "adapt"),
    "evaluate": ("cell", "evaluate"),
    "report": ("report",),
}
"""{stage: the settings that decide it}: keys of the cell's file where there is a `cell` among them, else of params.yaml."""

OPTIONAL: tuple[str, ...] = ("recipe", "index", "report")
"""What params.yaml may leave out. DVC refuses a key that is not in its file, so these are written out beside the cells."""


def parents(stage: str, places: Places, cases: AbstractSet[str] = frozenset()) -> dict[str, Path]:
    """Return {name: file or folder} of what a stage's card has the hashes of, first what is read in any case.

    Of several in one place the second is called `<parent>_2`, and so on.

    Args:
        stage: the stage.
        places: what it is given.
        cases: its own, of `Case`; others do not matter.
    """
    hashed = sorted(_read(stage, cases), key=lambda row: row.when is not None)
    return {
        row.parent if number == 1 else f"{row.parent}_{number}": path
        for row in hashed
        if row.parent
        for number, path in enumerate(row.paths(places), 1)
    }


def watched(stage: str, places: Places, cases: AbstractSet[str] = frozenset()) -> list[Path]:
    """Return what must not be edited while a stage runs: files and folders that it reads, and what dvc.yaml names for that."""
    read = _read(stage, cases)
    whole = [path for row in read if row.dependency == "place" for path in given(places, row.place)]
    return list(dict.fromkeys([*whole, *(path for row in read for path in row.paths(places))]))


def dependencies(stage: str, places: Mapping[Place, Sequence[str]]) -> list[str]:
    """Return what a stage of dvc.yaml depends on.

    Args:
        stage: the stage.
        places: {place: what dvc.yaml calls it}, of those that its cells are given.
    """
    return [
        f"{name}/{row.file}" if row.dependency == "itself" and row.file else name
        for row in INPUTS[stage]
        if row.dependency
        for name in places.get(row.place, ())
    ]


def _read(stage: str, cases: AbstractSet[str]) -> list[Input]:
    return [row for row in INPUTS[stage] if row.when is None or row.when in cases]


def given(places: Places, place: Place) -> Sequence[Path]:
    """Return the folder or the files that a place is."""
    paths = places.get(place)
    return [paths] if isinstance(paths, Path) else paths or []
