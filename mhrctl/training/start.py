"""What the adaptation of test tasks starts from: a pre-trained adapter, a new one, or one made of those of similar tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.build import router_over_pool
from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.merging import RULES, Merge
from mhrctl.adapters.stack import over
from mhrctl.artifacts.cards import Card, read_card, require_made_from
from mhrctl.artifacts.facts import IndexFacts, PretrainFacts
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS, Method
from mhrctl.config.sections import AdaptParams, PretrainParams
from mhrctl.data.index import Index, load_index
from mhrctl.data.samples import read_samples
from mhrctl.data.shots import TaskShots
from mhrctl.data.similarity import select
from mhrctl.errors import ParamsError, in_section
from mhrctl.models.attach import attach, new_adapter


@dataclass(frozen=True)
class Start:
    """A start is what the adaptation of all test tasks starts from.

    Attributes:
        base: the adapter; with a run for each test task if `by_task`, otherwise one that each task copies.
        by_task: whether every test task has a start of its own.
        trains_skills: whether adaptation trains the skills, or only the new routing.
    """

    base: Adapter
    by_task: bool
    trains_skills: bool

    def of(self, shots: Sequence[TaskShots], first: int, count: int) -> Adapter:
        """Return the start of `count` tasks from `first` on, side by side."""
        if self.by_task:
            return self.base.select(range(first, first + count))
        return self.base.for_new_tasks([task.seed for task in shots[first : first + count]], train_skills=self.trains_skills)


@dataclass(frozen=True)
class Soup:
    """A soup says whose adapters become one for each test task.

    Attributes:
        groups: for each test task the places of the chosen training tasks.
        notes: (test task, training task, cosine or loss) of them, without a number where their name chose them.
        evaluations: where losses chose, {test task: evaluations of an adapter on an example, and how many all would be}.
        weights: of the adapters of each group, where the method searches for them.
    """

    groups: list[list[int]]
    notes: list[tuple[str, str, float] | tuple[str, str]]
    evaluations: dict[str, tuple[int, int]] = field(default_factory=dict)
    weights: list[list[float]] = field(default_factory=list)

    @property
    def runs(self) -> list[int]:
        """The places of all that are in a group, in their order: what of a pool, which may be large, is read."""
        return sorted({run for group in self.groups for run in group})


def start_of(
    cell: Cell,
    params: AdaptParams,
    backbone: PreTrainedModel,
    pretrained: Path,
    start_card: Card[PretrainFacts],
    soup: Soup | None,
    tasks: Sequence[str] = (),
    under: Adapter | None = None,
) -> Start:
    """Return what adaptation starts from; the backbone then has its slots.

    Args:
        cell: which is adapted.
        params: its resolved section.
        backbone: frozen.
        pretrained: the file of its pre-training or average.
        start_card: of the same.
        soup: whose adapters become one, if the method does that.
        tasks: the test tasks.
        under: what is frozen under it, if anything is.
    """
    if cell.row.adds_lora:
        load_adapter(pretrained).put_into(backbone)
        lora = PretrainParams.model_validate(start_card.params["pretrain"])
        with in_section("pretrain"):
            new = new_adapter(backbone, METHODS["lora"], lora, heads=1, seed=cell.seed, tasks=1)
        return Start(new, by_task=False, trains_skills=True)
    if cell.row.router:
        base = _routed(cell.row, params, pretrained, start_card.facts.tasks, tasks)
    else:
        base = _made(soup, cell, params, pretrained, start_card.facts.tasks) if soup else load_adapter(pretrained)
    base = over(under, base)
    attach(backbone, base)
    by_task = soup is not None or (cell.row.router is not None and params.leave_out != "nothing")
    return Start(base, by_task=by_task, trains_skills=cell.row.trains == "adapter")


def _routed(row: Method, params: AdaptParams, pretrained: Path, names: Sequence[str], tasks: Sequence[str]) -> Adapter:
    """Make the router over a pool, with a run for each test task whose own adapter is left out."""
    left_out: list[str] = []
    if params.leave_out != "nothing":
        left_out = [task for task in tasks if candidates(params, names, task)]
    pool = load_adapter(pretrained)
    with in_section("adapt"):
        return router_over_pool(row, pool, names, params.options, left_out=left_out)


def _made(soup: Soup, cell: Cell, params: AdaptParams, pretrained: Path, training_tasks: Sequence[str]) -> Adapter:
    """Make one adapter of each group of a soup."""
    runs = soup.runs
    chosen = load_adapter(pretrained, runs)
    if soup.weights:
        return chosen.mixed_runs(mixing(soup.groups, soup.weights, runs))
    if cell.row.merge == "mean":
        return chosen.mean_of_runs([[runs.index(run) for run in group] for group in soup.groups])
    options = cell.row.adapt_options.model_validate(params.options)
    merge = Merge(RULES[cell.row.merge], **options.model_dump())
    seeded = [{runs.index(run): f"{cell.seed}/{training_tasks[run]}" for run in group} for group in soup.groups]
    return chosen.merge_runs(seeded, merge)


def mixing(groups: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], runs: Sequence[int]) -> Tensor:
    """Return the weights of groups over some runs, [groups, runs], 0 where a run is not of a group."""
    matrix = torch.zeros(len(groups), len(runs))
    for row, group, of_group in zip(matrix, groups, weights, strict=True):
        row[[runs.index(run) for run in group]] = torch.tensor(of_group, dtype=matrix.dtype)
    return matrix


def candidates(params: AdaptParams, names: Sequence[str], task: str) -> list[int]:
    """Return the places of a pool's adapters that a test task may use.

    Args:
        params: the cell's resolved section.
        names: of the adapters.
        task: the test task.

    Raises:
        ParamsError: if there is none.
    """
    places = [place for place, name in enumerate(names) if params.leave_out == "nothing" or name != task]
    if not places:
        raise ParamsError(f"adapt.leave_out {params.leave_out}: the pool has no adapter but that of {task}")
    return places


def open_index(row: Method, index: Path | None, *, prepared: Path, root: Path, device: str) -> tuple[Index, Card[IndexFacts]]:
    """Open the index of what was prepared.

    Args:
        row: the method that needs it.
        index: output of the index stage.
        prepared: output of the prepare stage.
        root: what a relative folder of the index's encoder is relative to.
        device: of the encoder.

    Raises:
        ParamsError: if there is no index.
        ArtifactError: if it was made of other examples.
    """
    if index is None:
        raise ParamsError(f"{row.name} needs the index of training tasks; run `mhrctl index`")
    known = load_index(index, root=root, device=device)
    card = read_card(index, stage="index", command="mhrctl index")
    require_made_from(card, index, {"prepare": prepared})
    return known, card


def soup_by_inputs(
    row: Method,
    params: AdaptParams,
    pool: Path,
    names: Sequence[str],
    shots: Sequence[TaskShots],
    prepared: Path,
    index: Path | None,
    root: Path,
    device: str,
) -> Soup:
    """Choose for each test task the adapters with the most similar inputs, which become one.

    Args:
        row: the method.
        params: the cell's resolved section.
        pool: output of the pre-training.
        names: of its adapters.
        shots: of the test tasks.
        prepared: output of the prepare stage.
        index: output of the index stage.
        root: what a relative folder of the index's encoder is relative to.
        device: of the encoder.

    Raises:
        ParamsError: if there is no index.
        DataError: if the inputs of an adapter are not known.
    """
    tasks, card = open_index(row, index, prepared=prepared, root=root, device=device)
    known = tasks.of_pool(names, read_samples(pool, card.params["examples"]))
    soup = Soup([], [])
    for task in shots:
        usable = {names[place] for place in candidates(params, names, task.name)}
        nearest = [(name, cosine) for name, cosine in known.nearest(task.prompts) if name in usable]
        chosen = [
            nearest[place]
            for place in select([cosine for _, cosine in nearest], top=params.soup_size, min_cosine=params.soup_min_cosine)
        ]
        soup.groups.append([names.index(name) for name, _ in chosen])
        soup.notes.extend((task.name, name, round(cosine, 4)) for name, cosine in chosen)
    return soup
