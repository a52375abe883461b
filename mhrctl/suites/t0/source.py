"""The source `t0` reads P3's training tasks, and T0's 11 test tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mhrctl.config.params import Params
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError, unknown
from mhrctl.progress import Track
from mhrctl.suites.files import data_files
from mhrctl.suites.reading import require_folder
from mhrctl.suites.t0.few_shot import few_shot_files
from mhrctl.suites.t0.held_out import HUB, SUFFIXES, T0_TEST_TASKS, few_shot_training_tasks, test_tasks
from mhrctl.suites.t0.p3 import p3_templates, training_tasks
from mhrctl.suites.t0.promptsource import FORM
from mhrctl.suites.task import Metrics, Seen, Suite, TaskCounts


def read(params: PrepareParams, root: Path, *, metrics: Metrics, track: Track) -> Suite:  # noqa: ARG001 - of every source
    """Read the test tasks, and make training tasks that are streamed from P3, or of few-shot sets."""
    t0 = params.t0
    if both := sorted({*t0.training_few_shot} & {*(params.test_tasks or T0_TEST_TASKS)}):
        raise DataError(f"prepare.t0.training_few_shot: {both[0]} is a test task too; leave it out of prepare.test_tasks")
    few_shot = root / t0.few_shot if t0.few_shot else None
    promptsource = root / t0.promptsource if t0.promptsource else None
    training = _training(params, root, few_shot, promptsource)
    test = test_tasks(
        few_shot=few_shot,
        promptsource=promptsource,
        seeds=t0.seeds,
        anli_shots=t0.anli_shots,
        templates=t0.templates,
        evaluation=t0.evaluation if t0.evaluation == HUB else str(root / t0.evaluation),
        evaluation_seeds=t0.evaluation_seeds,
        tasks=params.test_tasks,
        seed=params.seed,
    )
    streamed = [replace(task, stream_train=t0.train, stream_validation=t0.validation) for task in training.tasks]
    notes = training.notes | _beside(params, root)
    return Suite("t0", [*streamed, *(replace(task, keeps_splits=True) for task in test)], training.dropped, notes)


def check(params: Params, root: Path, *, metrics: Metrics) -> Seen:  # noqa: ARG001 - of every source
    """See that folders are there, test tasks are T0's, and each has the few-shot set of every seed that reads one."""
    prepare, t0 = params.prepare, params.prepare.t0
    tests = prepare.test_tasks or list(T0_TEST_TASKS)
    for name in [*tests, *t0.training_few_shot]:
        if name not in T0_TEST_TASKS:
            raise DataError(f"prepare.test_tasks: {unknown('T0 test task', name, T0_TEST_TASKS)}")
    unchecked = [] if prepare.hub is None else [f"prepare.hub {prepare.hub}"]
    if prepare.path:
        require_folder(root / prepare.path, "prepare.path")
    if t0.few_shot:
        _require_few_shot_sets(params, root / t0.few_shot, tests)
    if t0.promptsource:
        checkout = root / t0.promptsource
        homes = (checkout / "promptsource" / "templates", checkout / "templates")
        if not any((home / "super_glue").is_dir() for home in homes):
            raise DataError(f"{checkout}: no templates in it; prepare.t0.promptsource must be {FORM}")
    if t0.evaluation == HUB and not t0.evaluation_seeds:
        unchecked.append("evaluation splits on the hub")
    elif t0.evaluation != HUB:
        require_folder(root / t0.evaluation, "prepare.t0.evaluation")
    templates = p3_templates()
    data_sets = len({template.data_set for template in templates})
    training = len(templates) if t0.by == "template" else data_sets
    known = None if t0.training_few_shot or prepare.path else TaskCounts(training, data_sets, len(tests))
    return Seen(known, tuple(unchecked), _beside(prepare, root))


def _beside(params: PrepareParams, root: Path) -> dict[str, int]:
    """What lies beside the scored records and is not read."""
    evaluation = params.t0.evaluation
    return {} if evaluation == HUB else data_files(root / evaluation, SUFFIXES, deep=False).notes


def _training(params: PrepareParams, root: Path, few_shot: Path | None, promptsource: Path | None) -> Suite:
    t0 = params.t0
    if t0.training_few_shot and few_shot:
        tasks = few_shot_training_tasks(few_shot, t0.training_few_shot, promptsource=promptsource, by=t0.by, seed=params.seed)
        return Suite("t0", tasks)
    place = params.hub or str(root / (params.path or "."))
    return training_tasks(source=place, revision=params.revision, by=t0.by, max_rows=t0.max_rows)


def _require_few_shot_sets(params: Params, folder: Path, tests: Sequence[str]) -> None:
    """See that every test task has the few-shot set of every seed that reads one."""
    t0 = params.prepare.t0
    for name in [*tests, *t0.training_few_shot]:
        task = T0_TEST_TASKS[name]
        shots = t0.anli_shots if task.shots != task.paper_shots else task.shots
        files = few_shot_files(folder, name, shots=shots)
        wanted = {*t0.seeds, *t0.evaluation_seeds} | (set(params.grid.seeds) if params.adapt.shots is None else set())
        if missing := sorted(wanted - set(files)):
            raise DataError(
                f"{folder}: task {name} has no few-shot set of seed {missing[0]} (it has {', '.join(map(str, files))});"
                " change grid.seeds or prepare.t0"
            )
