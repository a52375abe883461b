"""What a cell's routing has learned is read from its outputs, written as numbers and drawn as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.granularity import CODERS
from mhrctl.adapters.inventory import Inventory
from mhrctl.analysis.heatmaps import Matrix, Panel, draw_by_skill, draw_by_task
from mhrctl.analysis.layer_names import chosen_parts
from mhrctl.analysis.routing_measures import Array, Inspection, Measures, Routing
from mhrctl.analysis.routing_panels import panels
from mhrctl.analysis.routing_similarity import (
    DIGITS,
    Comparison,
    Pair,
    correlate,
    most_alike,
    routing_similarity,
    similarity_order,
)
from mhrctl.artifacts.cards import (
    Card,
    read_card,
    require_made_from,
    require_parent,
    require_replaceable,
    require_tasks,
    write_card,
)
from mhrctl.artifacts.facts import AdaptFacts, InspectFacts, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, CARD, HEATMAPS, INDEX, ROUTING, SIMILARITY, TEST_EXAMPLES, Project
from mhrctl.artifacts.ownership import require_apart
from mhrctl.artifacts.writing import write_json, writing
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.data.index import load_index
from mhrctl.data.shots import draw_shots
from mhrctl.data.similarity import cosines
from mhrctl.data.table import training_data_sets
from mhrctl.errors import ArtifactError, ParamsError

MAX_PANELS = 24
"""So many heat maps by skill fit on one page."""
WRITTEN_PAIRS = 200
"""So many pairs of tasks, the most alike, are written."""

Stage = Literal["pretrain", "adapt"]


@dataclass(frozen=True)
class Findings:
    """Findings are what an inspection has come to.

    Attributes:
        skills: of the inventory.
        measured: the routing of the stage's tasks.
        training: that of the training tasks, where the stage's are test tasks.
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
    project: Project,
    out: Path,
    layers: Sequence[str] = (),
    heads: Sequence[int] = (),
    device: str = "cpu",
) -> Findings:
    """Measure and draw the routing that a cell has learned: `routing.json`, heat maps by skill and by task into `out`.

    Args:
        cell: whose routing.
        stage: of the training tasks after pre-training, or of the adapted test tasks, beside the training tasks.
        project: with the output of the stage, and of pretrain; with that of prepare too where there is an index.
        out: the folder to write.
        layers: parts of the model to draw, by either of their names; empty for the most and the least decided ones.
        heads: to draw, from 1; empty for all.
        device: where to run the index's encoder.

    Raises:
        ParamsError: if the method learns no routing, or there is no such layer or head.
        ArtifactError: if an input folder is missing or does not fit, or `out` holds other things.
    """
    _require_routing(cell, stage)
    require_replaceable(out, "inspect")
    for each in (project.output("pretrain", cell.pretrain_cell.name), project.output("adapt", cell.name)):
        require_apart(out, each)
    source = _read(cell, stage, project)
    layers = chosen_parts(layers, list(source.routing.logits))
    require_drawable(source.routing, layers, heads)
    measured = Inspection.of(source.tests or source.training)
    similarity = routing_similarity(source.routing)
    index = project.output("index")
    inputs = _input_similarity(source, project, device) if (index / CARD).exists() else None
    comparison = None if inputs is None else _compare(source, similarity, inputs, index)
    findings = Findings(
        source.training.skills,
        measured,
        Inspection.of(source.training) if source.tests else None,
        most_alike(source.routing.tasks, similarity, inputs, tests=source.number_of_tests, at_most=WRITTEN_PAIRS),
        comparison,
    )
    order = _order(source, similarity)
    with writing(out) as folder:
        _draw_by_skill(folder, source, order, panels(source.routing, measured, layers, heads))
        _draw_by_task(folder, source, order, similarity, inputs, comparison)
        write_json(folder / ROUTING, _record(source, findings))
        what = {"cell": source.cell.model_dump(), "stage": stage, "layers": list(layers), "heads": list(heads)}
        parents = {**source.parents} | ({"index": index / INDEX} if comparison else {})
        write_card(folder, Card.of("inspect", what, parents, InspectFacts(suite=source.card.facts.suite)))
    return findings


def read_routing(cell: Cell, stage: Stage, project: Project) -> Routing:
    """Read what a cell has learned of how tasks are routed.

    Args:
        cell: whose method learns a routing.
        stage: `pretrain` for the training tasks, `adapt` for the test tasks.
        project: with the outputs.

    Raises:
        ParamsError: if the stage of the cell has no routing.
        ArtifactError: if it has not run.
    """
    _require_routing(cell, stage)
    source = cell if stage == "adapt" else cell.pretrain_cell
    folder, command = project.output(stage, source.name), f"mhrctl {stage} {source.name}"
    if stage == "adapt":
        tasks = read_card(folder, stage="adapt", command=command, cell=source).facts.tasks
    else:
        tasks = read_card(folder, stage="pretrain", command=command, cell=source).facts.tasks
    return Routing.read(folder / ADAPTERS, tasks)


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

    @property
    def title(self) -> str:
        """What the pages say that they are of."""
        return f"{self.cell.name} after {'adaptation; test tasks in bold' if self.tests else 'pre-training'}"


def _read(cell: Cell, stage: Stage, project: Project) -> _Source:
    first = cell.pretrain_cell
    pretrained, adapted = project.output("pretrain", first.name), project.output("adapt", cell.name)
    card: Card[PretrainFacts | AdaptFacts] = read_card(
        pretrained, stage="pretrain", command=f"mhrctl pretrain {first.name}", cell=first
    )
    parents = {"pretrain": pretrained / ADAPTERS}
    training = Routing.of(_inventory(parents["pretrain"]), card.facts.tasks)
    if stage == "pretrain":
        return _Source(first, pretrained, card, training, None, training, parents)
    again = f"mhrctl adapt {cell.name}"
    card = read_card(adapted, stage="adapt", command=again, cell=cell)
    require_parent(card, adapted, "start", parents["pretrain"], again)
    parents["adapt"] = adapted / ADAPTERS
    tests = Routing.of(_inventory(parents["adapt"]), card.facts.tasks)
    return _Source(cell, adapted, card, training, tests, training.with_tasks(tests), parents)


def _inventory(file: Path) -> Inventory:
    adapter = load_adapter(file)
    if not isinstance(adapter, Inventory) or adapter.routing is None:
        raise TypeError(f"{file} holds {adapter.kind}, without a routing")
    return adapter


def _require_routing(cell: Cell, stage: Stage) -> None:
    """Check that a stage of a cell has learned a routing.

    Raises:
        ParamsError: if it has not; says why, and which methods do.
    """
    row = cell.row
    if row.is_private:
        why = "gives each training task an adapter of its own, without a routing"
    elif row.routes_tokens:
        why = "routes tokens, in each layer by what it reads, and not tasks"
    elif row.routes_inputs:
        why = "routes examples, in each layer by what it reads of their prompts, and not tasks"
    elif not row.mixes_skills:
        why = "has no routing"
    elif not row.learns_routing:
        why = "draws its routing at random and learns none"
    elif stage == "adapt" and not row.adapts_routing:
        why = "adapts the average of the skills, without a routing"
    else:
        return
    routed = [name for name, each in METHODS.items() if (each.learns_routing if stage == "pretrain" else each.adapts_routing)]
    raise ParamsError(f"--method {cell.method}: {why}; inspect --stage {stage} is of {', '.join(routed)}")


def require_drawable(routing: Routing, layers: Sequence[str] = (), heads: Sequence[int] = ()) -> None:
    """Refuse a choice of what to draw that the routing does not have.

    Args:
        routing: that is to be drawn.
        layers: parts of it, each of which shares a routing.
        heads: from 1.

    Raises:
        ParamsError: if there is no such head, or the page would be too full.
    """
    for head in heads:
        if not 1 <= head <= routing.heads:
            raise ParamsError(f"--head {head}: there are the heads 1 to {routing.heads}")
    if len(set(layers)) > MAX_PANELS:
        raise ParamsError(f"--layer: {len(set(layers))} heat maps do not fit on a page; choose at most {MAX_PANELS}")


def _input_similarity(source: _Source, project: Project, device: str) -> Array:
    """Cosines of the tasks' inputs by the index, [tasks, tasks]; templates of one data set have one vector in the index."""
    prepared, index = project.output("prepare"), project.output("index")
    read_card(prepared, stage="prepare", command="mhrctl prepare")
    card = read_card(index, stage="index", command="mhrctl index")
    data_sets = training_data_sets(prepared)
    require_tasks(card, index, list(data_sets))
    require_made_from(card, index, {"prepare": prepared})
    known = load_index(index, root=project.root, device=device)
    places = {task: place for place, templates in enumerate(data_sets.values()) for task in templates}
    if missing := [task for task in source.training.tasks if task not in places]:
        raise ArtifactError(f"{index}: made for other tasks (it has no {missing[0]}); run `mhrctl index`")
    vectors = known.vectors[[places[task] for task in source.training.tasks]]
    if source.tests is not None:
        # A test task has no vector in the index: its inputs are the shots that its adaptation saw, and no others.
        again = f"mhrctl adapt {source.cell.name}"
        require_parent(source.card, source.folder, "examples", prepared / TEST_EXAMPLES, again)
        adapt = source.card.params["adapt"]
        shots = draw_shots(prepared, shots=adapt["shots"], validation=adapt["validation"], seed=source.cell.seed)
        vectors = np.concatenate([vectors, np.stack([known.mean(task.prompts) for task in shots])])
    return np.stack([cosines(vector, vectors) for vector in vectors]).astype(np.float64).round(DIGITS)


def _compare(source: _Source, similarity: Array, inputs: Array, index: Path) -> Comparison:
    """How far the similarity of the routing, and that of its weights as they are, agree with that of the inputs."""
    of_weights = routing_similarity(source.routing, from_even=False)
    correlations = [correlate(of_routing, inputs, source.number_of_tests) for of_routing in (similarity, of_weights)]
    encoder = read_card(index, stage="index", command="mhrctl index").facts.encoder
    return Comparison(encoder, *correlations)


def _order(source: _Source, similarity: Array) -> list[int]:
    """Training tasks, then test tasks, similar ones beside each other."""
    training = len(source.training.tasks)
    tests = similarity_order(similarity[training:, training:])
    return similarity_order(similarity[:training, :training]) + [training + place for place in tests]


def _draw_by_skill(folder: Path, source: _Source, order: list[int], chosen: Sequence[Panel]) -> None:
    tasks = [source.routing.tasks[place] for place in order]
    ordered = [replace(panel, values=panel.values[order]) for panel in chosen]
    title = f"Routing weights of {source.title}"
    draw_by_skill(ordered, tasks, folder / HEATMAPS, title=title, tests=source.number_of_tests)


def _draw_by_task(
    folder: Path,
    source: _Source,
    order: list[int],
    similarity: Array,
    inputs: Array | None,
    comparison: Comparison | None,
) -> None:
    tasks = [source.routing.tasks[place] for place in order]
    matrices = [Matrix("by routing", similarity[np.ix_(order, order)])]
    if inputs is not None and comparison is not None:
        agreement = comparison.correlation
        rho = ""
        if agreement:
            rho = f"; Spearman {agreement.spearman:.2f} over {agreement.pairs:,} pairs, p {agreement.p:.3f}"
        matrices.append(Matrix(f"by inputs, {comparison.encoder}{rho}", inputs[np.ix_(order, order)]))
    title = f"Similarity of tasks, {source.title}"
    draw_by_task(matrices, tasks, folder / SIMILARITY, title=title, tests=source.number_of_tests)


def _record(source: _Source, findings: Findings) -> dict[str, Any]:
    """The findings as JSON."""
    routing = source.tests or source.training
    record: dict[str, Any] = {"cell": source.cell.name, "stage": source.card.stage}
    record |= {"heads": routing.heads, "skills": routing.skills}
    record |= {"tasks": list(routing.tasks)} | _measures(findings.measured)
    if findings.training is not None:
        record["training"] = {"tasks": list(source.training.tasks)} | _measures(findings.training)
    return record | {
        "most_alike": [asdict(pair) for pair in findings.pairs],
        "inputs": findings.comparison and asdict(findings.comparison),
    }


def _measures(inspection: Inspection) -> dict[str, Any]:
    def rounded(measures: Measures | None) -> Mapping[str, float] | None:
        return None if measures is None else {name: round(value, DIGITS) for name, value in asdict(measures).items()}

    parts = inspection.parts
    return {
        "overall": rounded(inspection.overall),
        **{coder: rounded(inspection.of_coder(coder)) for coder in CODERS},
        "groups": {
            part: {**(rounded(parts[part]) or {}), "heads": [rounded(head) for head in heads]}
            for part, heads in inspection.heads.items()
        },
    }
