"""LoRAs of a pool are chosen, of which the skills of an inventory are at the beginning.

Either those under which the losses of the training tasks are least, when each task has the best of them; or one of each
cluster of similar updates: k-means over the flattened B A of all layers, by direction alone, of which the product is never
formed.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter, Shapes
from mhrctl.adapters.files import Pool, load_adapter, mapped
from mhrctl.adapters.inventory import Inventory
from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.artifacts.reading import reading
from mhrctl.config.sections import PretrainParams
from mhrctl.data.examples import Sample
from mhrctl.errors import ParamsError, counted, in_section
from mhrctl.evaluation.choosing import Tried
from mhrctl.training.execution import Execution
from mhrctl.training.objective import objective_of


def begin_with(
    folder: Path,
    adapter: Adapter,
    params: PretrainParams,
    samples: Sequence[Sequence[Sample]],
    backbone: PreTrainedModel,
    *,
    seed: int,
    execution: Execution,
) -> list[str]:
    """Make the skills of a new inventory LoRAs of a pool.

    Args:
        folder: of the pool: output of the pretrain stage, or what was imported in its place.
        adapter: the inventory.
        params: the resolved section of its cell.
        samples: the validation samples of each training task, by which the useful ones are found.
        backbone: frozen, with slots or without.
        seed: of the cell.
        execution: where to run the backbone.

    Returns:
        The names of the LoRAs, a skill each.

    Raises:
        ParamsError: if the pool is too small, or its LoRAs do not fit.
        ArtifactError: if there is no such pool.
    """
    card = read_card(folder, stage="pretrain", command=f"mhrctl pretrain {folder.name}")
    names, file, count = card.facts.tasks, folder / ADAPTERS, params.skills
    if len(names) < count:
        raise ParamsError(f"pretrain.skills {count}: the pool {folder.name} has {counted(len(names), 'adapter')}")
    if params.pool_by == "clusters":
        chosen = clustered(file, names, count=count, seed=seed)
    else:
        tried = Tried(Pool(file), backbone, objective_of(params), execution)
        chosen = useful(names, samples, tried, count=count)
    loras = load_adapter(file, chosen)
    if not (isinstance(adapter, Inventory) and isinstance(loras, Inventory)):
        raise ParamsError(f"pretrain.pool {folder.name}: holds {loras.kind}, of which no skills can be made; name one of LoRAs")
    with in_section("pretrain"):
        adapter.begin_with(loras)
    return [names[place] for place in chosen]


def useful(names: Sequence[str], samples: Sequence[Sequence[Sample]], tried: Tried, *, count: int) -> list[int]:
    """Choose the adapters under which the losses of the training tasks are least.

    Successive halving finds for each task as many of the best as are wanted in all. Of these, one after the other is taken
    by which the sum over tasks, of the least loss under any that was taken, falls the most.

    Args:
        names: of the pool's adapters; by their order those of equal loss are taken.
        samples: of each training task.
        tried: tries adapters on them.
        count: how many are wanted.

    Returns:
        Places of the chosen in the pool, in the order in which they were taken.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    ranks = {place: rank for rank, place in enumerate(order)}
    losses: list[dict[int, float]] = []
    with tried.execution.track("choose", len(samples)) as bar:
        for of_task in samples:
            best = tried.best(order, of_task, keep=count)
            losses.append({ranks[place]: loss for place, loss in zip(best.best, best.losses, strict=True)})
            bar.advance()
    return [order[rank] for rank in covering(losses, candidates=len(order), count=count)]


def covering(losses: Sequence[Mapping[int, float]], *, candidates: int, count: int) -> list[int]:
    """Choose candidates one after the other, each of which lowers the sum over tasks of the least loss the most.

    Args:
        losses: for each task, {candidate: its loss}; any other has the largest of the task's.
        candidates: how many there are; of equals the one that more tasks have a loss of is taken, and then the earlier.
        count: how many to choose.
    """
    chosen: list[int] = []
    known = Counter(candidate for of in losses for candidate in of)
    least = [math.inf] * len(losses)

    def lowered(candidate: int) -> list[float]:
        return [min(before, of.get(candidate, max(of.values()))) for before, of in zip(least, losses, strict=True)]

    for _ in range(count):
        left = [candidate for candidate in range(candidates) if candidate not in chosen]
        chosen.append(min(left, key=lambda candidate: (sum(lowered(candidate)), -known[candidate], candidate)))
        least = lowered(chosen[-1])
    return chosen


def clustered(file: Path, names: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Choose of each cluster the adapter that is nearest to its centre.

    Args:
        file: of the pool.
        names: of its adapters.
        count: how many are wanted, which is how many clusters there are.
        seed: of the centres that k-means begins with.

    Returns:
        Places of the chosen in the pool, in the order of their names.

    Raises:
        ParamsError: if there are fewer adapters that differ.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    with reading(file), mapped(file) as stored:
        shapes = load_adapter(file, [0]).shapes
        products = inner_products(lambda name: torch.from_numpy(stored.get_tensor(name)), shapes)[order][:, order]
    with in_section("pretrain"):
        return [order[place] for place in medoids(products, count=count, seed=seed)]


def inner_products(tensor: Callable[[str], Tensor], shapes: Shapes) -> Tensor:
    """Return the inner products of the updates of LoRAs, [runs, runs]: sums over layers of tr((B_i A_i)^T B_j A_j).

    Args:
        tensor: gives that of a name in an inventory's file, with the LoRAs as its runs.
        shapes: {layer: (d_in, d_out)}.
    """
    total = torch.zeros(0)
    for layer in shapes:
        a = tensor(f"{layer}.lora_A")[:, 0, 0].mT.double()  # [runs, r, d_in]
        b = tensor(f"{layer}.lora_B")[:, 0, 0].double()
        runs, rank, _ = a.shape
        every_a, every_b = a.flatten(0, 1).T, b.flatten(0, 1).T
        rows = [((a[run] @ every_a) * (b[run] @ every_b)).view(rank, runs, rank).sum((0, 2)) for run in range(runs)]
        total = torch.stack(rows) + (total if len(total) else 0)
    return total


def medoids(products: Tensor, *, count: int, seed: int) -> list[int]:
    """Return of each cluster of vectors, by their directions, the one that is nearest to its centre, in ascending order.

    Args:
        products: inner products of the vectors, [n, n].
        count: of clusters.
        seed: of the centres that k-means begins with.

    Raises:
        ParamsError: if there are fewer directions.
    """
    from sklearn.cluster import KMeans  # which takes a second

    norms = products.diagonal().sqrt().clamp(min=torch.finfo(products.dtype).tiny)
    sizes, directions = torch.linalg.eigh(products / norms / norms[:, None])
    points = (directions * sizes.clamp(min=0).sqrt()).numpy()  # whose inner products these are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer directions, which is said below
        fitted = KMeans(count, n_init=10, random_state=seed).fit(points)
    distances = torch.from_numpy(fitted.transform(points))
    labels = torch.from_numpy(fitted.labels_)
    if len(kinds := labels.unique()) < count:
        raise ParamsError(f"skills {count}: the pool has {counted(len(kinds), 'adapter')} that differ in direction")
    members = [(labels == label).nonzero().flatten() for label in range(count)]
    return sorted(int(of[distances[of, label].argmin()]) for label, of in enumerate(members))
