"""Routing seen: what a cell's routing has learned, as numbers and as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.analysis.heatmaps import Matrix, Panel, draw_by_skill, draw_by_task
from mhrctl.analysis.routing_measures import (
    DIGITS,
    Array,
    Correlation,
    Inspection,
    Measures,
    Routing,
    correlate,
    pairs_of,
    routing_similarity,
    similarity_order,
)
from mhrctl.artifacts.cards import Card, read_card, require_parent, require_replaceable, require_tasks, write_card
from mhrctl.artifacts.facts import AdaptFacts, InspectFacts, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, CARD, HEATMAPS, INDEX, ROUTING, SIMILARITY, TEST_EXAMPLES
from mhrctl.artifacts.writing import write_json, writing
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.data.index import load_index
from mhrctl.data.shots import draw_shots
from mhrctl.data.similarity import cosines
from mhrctl.data.table import training_data_sets
from mhrctl.errors import ArtifactError, ParamsError, unknown

MAX_PANELS = 24
"""Heat maps by skill on one page."""
WRITTEN_PAIRS = 200
"""Of tasks, the most alike, that are written."""
CODERS = ("encoder", "decoder")

Stage = Literal["pretrain", "adapt"]


@dataclass(frozen=True)
class Pair:
    """Two tasks.

    Attributes:
        tasks: their names; a test task stands first.
        routing: cosine of their routing (see `routing_similarity`).
        inputs: cosine of their inputs by the index; None without one.
    """

    tasks: tuple[str, str]
    routing: float
    inputs: float | None


@dataclass(frozen=True)
class Comparison:
    """The similarity of tasks by their routing against that by their inputs.

    Attributes:
        encoder: what embedded the inputs.
        correlation: of the two; None if one of them is the same for all pairs.
        of_weights: likewise, of the similarity of the routing weights as they are.
    """

    encoder: str
    correlation: Correlation | None
    of_weights: Correlation | None


@dataclass(frozen=True)
class Findings:
    """What an inspection found.

    Attributes:
        skills: of the inventory.
        measured: the routing of the stage's own tasks.
        training: that of the training tasks, where the stage's own are test tasks.
        pairs: of training tasks, or of each test task and the training task that is routed most like it; the most alike first.
        comparison: with the index; None if there is none.
    """

    skills: int
    measured: Inspection
    training: Inspection | None
    pairs: Sequence[Pair]
    comparison: Comparison | None


def inspect(
    cell: Cell,
    *,
    stage: Stage,
    pretrained: Path,
    adapted: Path,
    prepared: Path,
    index: Path,
    root: Path,
    out: Path,
    layers: Sequence[str] = (),
    heads: Sequence[int] = (),
    device: str = "cpu",
) -> Findings:
    """Measure and draw the routing that a cell has learned: `routing.json`, heat maps by skill and by task into `out`.

    Args:
        cell: whose routing.
        stage: of the training tasks after pre-training, or of the adapted test tasks, beside the training tasks.
        pretrained: output of the pretrain stage.
        adapted: output of the adapt stage; read for that stage only.
        prepared: output of the prepare stage; read only beside an index.
        index: output of the index stage, if there is one.
        root: what a relative folder of the index's encoder is relative to.
        out: the folder to write.
        layers: parts of the model to draw; empty for the most and the least decided ones.
        heads: to draw, from 1; empty for all.
        device: where to run the index's encoder.

    Raises:
        ParamsError: if the method learns no routing, or there is no such layer or head.
        ArtifactError: if an input folder is missing or does not fit, or `out` holds other things.
    """
    _require_routing(cell, stage)
    require_replaceable(out, "inspect")
    source = _read(cell, stage, pretrained, adapted)
    measured = Inspection.of(source.tests or source.training)
    drawn = panels(source.routing, measured, layers, heads)
    similarity = routing_similarity(source.routing)
    inputs, comparison = None, None
    if (index / CARD).exists():
        inputs, comparison = _compare(source, similarity, prepared, index, root, device)
    training = Inspection.of(source.training) if source.tests else None
    found = Findings(source.training.skills, measured, training, _pairs(source, similarity, inputs), comparison)
    with writing(out) as folder:
        _draw(folder, source, drawn, similarity, inputs, comparison)
        write_json(folder / ROUTING, _record(source, found))
        what = {"cell": source.cell.model_dump(), "stage": stage, "layers": list(layers), "heads": list(heads)}
        parents = {**source.parents} | ({"index": index / INDEX} if comparison else {})
        write_card(folder, Card.of("inspect", what, parents, InspectFacts(suite=source.card.facts.suite)))
    return found


@dataclass(frozen=True)
class _Source:
    """The routings of a cell.

    Attributes:
        cell: that wrote them.
        folder: of the stage's output.
        card: of the stage.
        training: of the training tasks.
        tests: of the adapted test tasks, for that stage.
        routing: of the training tasks, then of the test tasks.
        parents: {stage: file that was read}.
    """

    cell: Cell
    folder: Path
    card: Card[PretrainFacts | AdaptFacts]
    training: Routing
    tests: Routing | None
    routing: Routing
    parents: Mapping[str, Path]

    @property
    def number_of_tests(self) -> int:
        return 0 if self.tests is None else len(self.tests.tasks)


def _read(cell: Cell, stage: Stage, pretrained: Path, adapted: Path) -> _Source:
    first = cell.pretrain_cell
    card: Card[PretrainFacts | AdaptFacts] = read_card(pretrained, stage="pretrain", command=f"mhrctl pretrain {first.options}")
    parents = {"pretrain": pretrained / ADAPTERS}
    training = Routing.of(_inventory(parents["pretrain"]), card.facts.tasks)
    if stage == "pretrain":
        return _Source(first, pretrained, card, training, None, training, parents)
    again = f"mhrctl adapt {cell.options}"
    card = read_card(adapted, stage="adapt", command=again)
    require_parent(card, adapted, "start", parents["pretrain"], again)
    parents["adapt"] = adapted / ADAPTERS
    tests = Routing.of(_inventory(parents["adapt"]), card.facts.tasks)
    return _Source(cell, adapted, card, training, tests, training.with_tasks(tests), parents)


def _inventory(file: Path) -> Inventory:
    adapter = load_adapter(file)
    if not isinstance(adapter, Inventory) or adapter.routing is None:
        raise TypeError(f"{file} holds {adapter.kind}, without a routing")
    return adapter


_WITHOUT = {
    "none": "has no routing",
    "random": "draws its routing at random and learns none",
    "private": "gives each training task an adapter of its own, without a routing",
}


def _require_routing(cell: Cell, stage: Stage) -> None:
    why = _WITHOUT.get(cell.row.routing)
    if why is None and stage == "adapt" and cell.row.start == "average":
        why = "adapts the average of the skills, without a routing"
    if why:
        learned = [row.name for row in METHODS.values() if row.routing == "learned"]
        routed = [name for name in learned if stage == "pretrain" or METHODS[name].start == "pretrain"]
        raise ParamsError(f"--method {cell.method}: {why}; inspect --stage {stage} is of {', '.join(routed)}")


def panels(routing: Routing, measured: Inspection, layers: Sequence[str] = (), heads: Sequence[int] = ()) -> list[Panel]:
    """Choose what to draw by skill.

    Without a choice: of encoder and of decoder a summary, and the parts whose gates are the most and the least decided. A skill
    has the same number in two layers by chance only, so the summary has each task's skills of each layer and head in the
    order of their weights.

    Args:
        routing: of all tasks.
        measured: decides what is most and least decided.
        layers: parts of the model that share a routing; empty for the choice above.
        heads: from 1; empty for all.

    Raises:
        ParamsError: if there is no such layer or head, or the page would be too full.
    """
    for layer in layers:
        if layer not in routing.logits:
            raise ParamsError(f"--layer: {unknown('layer', layer, routing.logits)}")
    for head in heads:
        if not 1 <= head <= routing.heads:
            raise ParamsError(f"--head {head}: there are the heads 1 to {routing.heads}")
    if len(set(layers)) > MAX_PANELS:
        raise ParamsError(f"--layer: {len(set(layers))} heat maps do not fit on a page; choose at most {MAX_PANELS}")
    summary = [] if layers or heads else _summaries(routing)
    groups = dict.fromkeys(layers, "") if layers else _notable(measured)
    numbers = list(dict.fromkeys(heads)) or list(range(1, routing.heads + 1))
    own = []
    for group, remark in groups.items():
        title = f"{remark}{group}" + (f", head {numbers[0]}" if len(numbers) == 1 < routing.heads else "")
        label = f"head ({routing.skills} skills each)" if len(numbers) > 1 else "skill"
        own.append(Panel(title, routing.weights(group)[:, [number - 1 for number in numbers]], numbers, label))
    return summary + own


def _summaries(routing: Routing) -> list[Panel]:
    found = []
    for name, groups in _parts(list(routing.logits)).items():
        ordered = [np.sort(routing.weights(group), -1)[..., ::-1].mean(1, keepdims=True) for group in groups]
        found.append(Panel(f"{name}: mean of layers and heads", np.mean(ordered, axis=0), (), "skill, strongest first"))
    return found


def _notable(measured: Inspection) -> dict[str, str]:
    """{group: what is notable of it}."""
    bits = {group: own.discreteness for group, own in measured.groups.items()}
    found: dict[str, str] = {}
    for groups in _parts(list(bits)).values():
        several = len(groups) > 1
        found.setdefault(min(groups, key=bits.__getitem__), "most decided: " if several else "")
        found.setdefault(max(groups, key=bits.__getitem__), "least decided: ")
    return found


def _parts(groups: Sequence[str]) -> dict[str, list[str]]:
    """The groups of encoder and of decoder, or all of them where neither has its own."""
    parts = {coder: [group for group in groups if coder in group.split(".")] for coder in CODERS}
    return {name: own for name, own in parts.items() if own} or {"model": list(groups)}


def _compare(
    source: _Source, similarity: Array, prepared: Path, index: Path, root: Path, device: str
) -> tuple[Array, Comparison]:
    """Cosines of the tasks' inputs by the index, [tasks, tasks], and how the routing's agree with them.

    Tasks that are templates of one data set have one vector in the index.
    """
    read_card(prepared, stage="prepare", command="mhrctl prepare")
    card = read_card(index, stage="index", command="mhrctl index")
    data_sets = training_data_sets(prepared)
    require_tasks(card, index, list(data_sets))
    known = load_index(index, root=root, device=device)
    places = {task: place for place, own in enumerate(data_sets.values()) for task in own}
    if missing := [task for task in source.training.tasks if task not in places]:
        raise ArtifactError(f"{index}: made for other tasks (it has no {missing[0]}); run `mhrctl index` or `dvc repro`")
    vectors = known.vectors[[places[task] for task in source.training.tasks]]
    if source.tests is not None:
        again = f"mhrctl adapt {source.cell.options}"
        require_parent(source.card, source.folder, "examples", prepared / TEST_EXAMPLES, again)
        adapt = source.card.params["adapt"]
        shots = draw_shots(prepared, shots=adapt["shots"], validation=adapt["validation"], seed=source.cell.seed)
        vectors = np.concatenate([vectors, np.stack([known.encoder.encode(task.prompts).mean(0) for task in shots])])
    inputs = np.stack([cosines(vector, vectors) for vector in vectors]).astype(np.float64).round(DIGITS)
    of_weights = routing_similarity(source.routing, from_even=False)
    correlations = [correlate(own, inputs, source.number_of_tests) for own in (similarity, of_weights)]
    return inputs, Comparison(card.facts.encoder, *correlations)


def _pairs(source: _Source, similarity: Array, inputs: Array | None) -> list[Pair]:
    tasks, tests = source.routing.tasks, source.number_of_tests
    rows, columns = pairs_of(len(tasks), tests)
    order = np.argsort(-similarity[rows, columns], kind="stable")
    found: list[Pair] = []
    seen: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if len(found) == WRITTEN_PAIRS:
            break
        if tests and row in seen:
            continue
        seen.add(row)
        of_inputs = None if inputs is None else float(inputs[row, column])
        found.append(Pair((tasks[row], tasks[column]), float(similarity[row, column]), of_inputs))
    return found


def _draw(
    folder: Path,
    source: _Source,
    drawn: Sequence[Panel],
    similarity: Array,
    inputs: Array | None,
    comparison: Comparison | None,
) -> None:
    training, tests = len(source.training.tasks), source.number_of_tests
    order = similarity_order(similarity[:training, :training])
    order += [training + place for place in similarity_order(similarity[training:, training:])]
    tasks = [source.routing.tasks[place] for place in order]
    name = f"{source.cell.name} after {'adaptation; test tasks in bold' if tests else 'pre-training'}"
    ordered = [replace(panel, values=panel.values[order]) for panel in drawn]
    draw_by_skill(ordered, tasks, folder / HEATMAPS, title=f"Routing weights of {name}", tests=tests)
    matrices = [Matrix("by routing", similarity[np.ix_(order, order)])]
    if inputs is not None and comparison is not None:
        found = comparison.correlation
        rho = f"; Spearman {found.spearman:.2f} over {found.pairs:,} pairs, p {found.p:.3f}" if found else ""
        matrices.append(Matrix(f"by inputs, {comparison.encoder}{rho}", inputs[np.ix_(order, order)]))
    draw_by_task(matrices, tasks, folder / SIMILARITY, title=f"Similarity of tasks, {name}", tests=tests)


def _record(source: _Source, found: Findings) -> dict[str, Any]:
    """The findings as JSON."""
    own = source.tests or source.training
    record: dict[str, Any] = {"cell": source.cell.name, "stage": source.card.stage, "heads": own.heads, "skills": own.skills}
    record |= {"tasks": list(own.tasks)} | _measures(found.measured)
    if found.training is not None:
        record["training"] = {"tasks": list(source.training.tasks)} | _measures(found.training)
    return record | {
        "most_alike": [asdict(pair) for pair in found.pairs],
        "inputs": found.comparison and asdict(found.comparison),
    }


def _measures(inspection: Inspection) -> dict[str, Any]:
    def rounded(measures: Measures | None) -> Mapping[str, float] | None:
        return None if measures is None else {name: round(value, DIGITS) for name, value in asdict(measures).items()}

    groups = inspection.groups
    return {
        "overall": rounded(inspection.overall),
        **{coder: rounded(inspection.of_coder(coder)) for coder in CODERS},
        "groups": {
            group: {**(rounded(groups[group]) or {}), "heads": [rounded(head) for head in heads]}
            for group, heads in inspection.heads.items()
        },
    }
