"""`mhrctl report --html` of 45 cells, from the start of the process to its end."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ruamel.yaml import YAML

from benchmarks.projects import variables_of
from benchmarks.results import Measured, Row
from benchmarks.timing import spread
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import AdaptFacts, EvaluateFacts, Facts, Parameters, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS, PREDICTIONS
from mhrctl.artifacts.writing import as_json, write_csv, write_text
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.evaluation.scores import CellMetrics, TaskScores
from mhrctl.evaluation.scores import Parameters as Counts

TARGETS = (2.0, 1.0)
CELLS = 45
"""Cells that the gate is for."""
GROUPS = {
    **dict.fromkeys(("lora", "ia3", "poly", "poly_z", "poly_mu", "random_mu"), 1),
    **dict.fromkeys(("mhr", "mhr_z", "mhr_mu"), 8),
}
"""{method: its heads}, of the grid's cells."""
TRAINED, TESTS, EXAMPLES = 80, 12, 100
"""Tasks that are trained on and tested on, and examples of one."""
STEPS = range(50, 3050, 50)
WIDTH = 64
LAYERS = {
    f"{stack}.block.{block}.layer.{layer}.{name}": (WIDTH, WIDTH)
    for stack, layer, attention in (("encoder", 0, "Self"), ("decoder", 0, "Self"), ("decoder", 1, "EncDec"))
    for block in range(2)
    for name in (f"{attention}Attention.{letter}" for letter in "qkvo")
}
"""Adapted layers, of a small T5."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        seeds: of each method.
        repetitions: of the command.
    """

    seeds: int
    repetitions: int


PLANS = {False: Plan(5, 7), True: Plan(1, 1)}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time the command, a process each time."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        cells = write_project(project, plan.seeds)
        run(project)  # fills the system's cache of files
        times = [run(project) for _ in range(plan.repetitions)]
    walls, processors = zip(*times, strict=True)
    what = f"seconds of `mhrctl report --html` of {cells} cells"
    targets = TARGETS if cells >= CELLS else (None, None)
    rows = [Row(f"{what}, wall time", spread(walls), *targets), Row(f"{what}, CPU time", spread(processors))]
    return Measured(rows, notes=[f"scores of {TESTS} tasks, logs of {len(STEPS)} lines, routings of {TRAINED} tasks, all made"])


def run(project: Path) -> tuple[float, float]:
    """Run the command; wall and CPU seconds."""
    command = [sys.executable, "-m", "mhrctl", "report", "--html", "--project", str(project)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=variables_of({}), check=False, capture_output=True, text=True)  # noqa: S603 - our own
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"mhrctl report failed:\n{done.stdout}{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_project(project: Path, seeds: int) -> int:
    """Write a project whose grid has run; returns the number of its cells."""
    methods = {name: {"heads": [heads]} if heads > 1 else None for name, heads in GROUPS.items()}
    params = {
        "prepare": {"source": "compositional", "tokenizer": "word"},
        "backbone": {"source": "scratch"},
        "pretrain": {"steps": STEPS.stop, "skills": 8, "batch_size": 16},
        "adapt": {"steps": 100, "batch_size": 8, "evaluate_every": 50, "shots": 16, "validation": 16},
        "evaluate": {},
        "recipe": None,
        "grid": {"seeds": list(range(seeds)), "methods": methods},
    }
    YAML().dump(params, project / "params.yaml")
    data, random = project / "data", np.random.default_rng(0)
    cells = [Cell(method=method, heads=heads, seed=seed) for method, heads in GROUPS.items() for seed in range(seeds)]
    for cell in cells:
        if METHODS[cell.method].start == "pretrain" and METHODS[cell.method].trains == "adapter":
            _write_pretrain(data, cell, random)
        _write_evaluate(data, cell, random)
    return len(cells)


def _write_pretrain(data: Path, cell: Cell, random: np.random.Generator) -> None:
    folder, log = data / "pretrain" / cell.name, data / "metrics" / "pretrain" / f"{cell.name}.csv"
    folder.mkdir(parents=True)
    tasks = [f"task{number}_made" for number in range(TRAINED)]
    if METHODS[cell.method].learns_routing:
        adapter = Inventory(LAYERS, InventoryConfig(heads=cell.heads, skills=8), tasks=TRAINED)
        assert adapter.routing is not None  # noqa: S101 - for the type checker
        torch.nn.init.normal_(adapter.routing, std=2)
        save_adapter(adapter, folder / ADAPTERS)
    losses = 2 * np.exp(-np.array(STEPS) / 1000) + random.normal(0, 0.05, len(STEPS))
    write_csv(log, ("step", "loss", "lr"), zip(STEPS, losses.round(5).tolist(), [0.001] * len(STEPS), strict=True))
    counts = Parameters(multi_task=100_000, routing=1000)
    facts = PretrainFacts(suite="compositional", tasks=tasks, backbone="made", parameters=counts, kept=[])
    _write_card(folder, cell, "pretrain", facts, log)


def _write_evaluate(data: Path, cell: Cell, random: np.random.Generator) -> None:
    folder, scores = data / "evaluate" / cell.name, data / "metrics" / "evaluate" / f"{cell.name}.json"
    adapted = data / "adapt" / cell.name
    folder.mkdir(parents=True)
    adapted.mkdir(parents=True)
    tasks = [f"test{number}_made" for number in range(TESTS)]
    of_rows = {task: random.integers(0, 101, EXAMPLES) for task in tasks}
    means = {task: round(float(values.mean()), 4) for task, values in of_rows.items()}
    by_task = {
        task: TaskScores(metric="rouge_l", zero_shot=20.0, adapted=mean, validation=mean) for task, mean in means.items()
    }
    score = round(float(np.mean(list(means.values()))), 4)
    metrics = CellMetrics(
        method=cell.method,
        heads=cell.heads,
        seed=cell.seed,
        layout="full",
        suite="compositional",
        backbone="made",
        metric="rouge_l",
        zero_shot={"score": 20.0, "rouge_l": 20.0, "exact_match": 10.0},
        adapted={"score": score, "rouge_l": score, "exact_match": 30.0},
        validation=score,
        by_task=by_task,
        parameters=Counts(multi_task=100_000, adaptation=1000 + 100 * list(GROUPS).index(cell.method)),
        tasks=TESTS,
        examples=TESTS * EXAMPLES,
    )
    write_text(scores, as_json(metrics.model_dump()))
    _write_predictions(folder, of_rows)
    _write_card(folder, cell, "evaluate", EvaluateFacts(tasks=tasks), scores)
    shots = dict.fromkeys(tasks, (EXAMPLES, EXAMPLES))
    facts = AdaptFacts(
        suite="compositional",
        tasks=tasks,
        shots=shots,
        validation=means,
        backbone="made",
        parameters=Parameters(adaptation=1000),
    )
    _write_card(adapted, cell, "adapt", facts)


def _write_predictions(folder: Path, scores: dict[str, Any]) -> None:
    rows = [
        {
            "task": task,
            "phase": phase,
            "id": f"{task}-{number}",
            "prediction": "an answer",
            "references": ["the answer"],
            "rouge_l": float(value),
        }
        for phase in ("zero_shot", "adapted")
        for task, values in scores.items()
        for number, value in enumerate(values.tolist())
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / PREDICTIONS, compression="zstd")


def _write_card(folder: Path, cell: Cell, stage: str, facts: Facts, *beside: Path) -> None:
    of_cell = {"method": cell.method, "heads": cell.heads, "seed": cell.seed, "variant": cell.variant}
    card = replace(Card.of(stage, {"cell": of_cell, stage: {}}, {}, facts), threads=1)
    write_card(folder, card, beside={path.name: path for path in beside})
