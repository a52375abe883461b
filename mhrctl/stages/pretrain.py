"""The stage `pretrain` learns adapters on all training tasks together, over a frozen backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter, trainable
from mhrctl.adapters.build import adapter_class
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.stack import load_lower, over
from mhrctl.analysis.alignment import gradient_alignment, require_shared, task_batches
from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, require_backbone, require_made_from, write_card
from mhrctl.artifacts.facts import Parameters, PretrainFacts
from mhrctl.artifacts.lower import lower_of, require_lower
from mhrctl.artifacts.names import ADAPTERS, LOG, TEST_EXAMPLES, TRAINING_EXAMPLES, VALIDATION
from mhrctl.artifacts.writing import replacing, write_csv, write_rows, write_text, writing
from mhrctl.config.cells import Cell
from mhrctl.config.sections import PretrainParams
from mhrctl.data.examples import Examples
from mhrctl.data.own_examples import OwnExamples
from mhrctl.data.samples import write_samples
from mhrctl.data.table import training_data_sets
from mhrctl.errors import DataError, ParamsError, counted, in_section
from mhrctl.evaluation.pretraining import Pretraining
from mhrctl.interchange.pool import members_of
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach, new_adapter
from mhrctl.models.backbones import load_backbone, require_prepared
from mhrctl.models.precision import set_precision
from mhrctl.models.quantised import require_changeable
from mhrctl.training.checkpoint import checkpoints_of
from mhrctl.training.execution import Execution
from mhrctl.training.imported import Target, write_pool

WITHOUT_TRAINING = "mark some as such, or take LoRAs that others trained (pretrain.loras of adapter_soup, `mhrctl import`)"


def pretrain(
    cell: Cell,
    params: PretrainParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None = None,
    under: Path | None = None,
    pool: Path | None = None,
    root: Path = Path(),
    out: Path,
    log: Path,
    scratch: Path,
    execution: Execution,
) -> Card[PretrainFacts]:
    """Write `adapters.safetensors`, `validation.csv` (loss by training task) and `log.jsonl` into `out`, and the log as CSV.

    LoRAs that `params.loras` names are taken as they are: then there is neither a validation nor a log but an empty CSV.

    Args:
        cell: method, heads and seed.
        params: the cell's resolved section.
        prepared: output of the prepare stage.
        backbone: output of the backbone stage.
        start: the single adapter that a cell with extra steps trains on; None starts from nothing.
        under: output of the pretrain or average stage whose adapter is frozen under what is trained.
        pool: output of the pretrain stage of whose adapters the skills are at the beginning.
        root: what relative folders of `params.loras` are relative to.
        out: the output folder.
        log: the same log as a CSV for git and DVC's plots: step, loss, rates, tokens seen, and any gradient alignment and
            validation loss.
        scratch: folder for the checkpoints of a run in progress.
        execution: how to train; several tasks with an adapter of their own are trained in one batch. The recorder takes
            each line of the log, with the tokens a second since the one before, and the mean validation loss.

    Raises:
        ParamsError: if the heads do not divide a layer, a target is no layer, there is no alignment to measure, or weights are
            to be divided among processes that cannot be.
        DataError: if alignment is to be measured on one training task, there is nothing to train or to validate on, or a LoRA
            cannot be used.
        ArtifactError: if an input folder is missing or does not fit.
        DivergedError: if a loss, a gradient or what is trained is not finite; the last good checkpoint stays.
        StoppedError: if it was asked to stop, and has left a checkpoint.
    """
    if params.loras:
        many = execution.accelerator.num_processes
        return _import(cell, params, prepared=prepared, backbone=backbone, root=root, out=out, log=log, processes=many)
    if params.align_every:
        require_shared(cell, f"pretrain.align_every {params.align_every}")
    if execution.sharding and adapter_class(cell.row).replaces_weights:
        raise ParamsError(f"--shard: {cell.row.name} trains all weights, and only frozen ones are divided among processes")
    prepared_card = read_card(prepared, stage="prepare", command="mhrctl prepare")
    require_prepared(prepared, backbone)
    private = cell.row.is_private
    examples, data_sets, of_tests = _examples(prepared, scratch, private=private, test_tasks=params.test_tasks)
    tasks = list(data_sets) if private else examples.tasks
    with execution.loading() as place:
        frozen, fingerprint = load_backbone(backbone)
        if adapter_class(cell.row).replaces_weights:
            require_changeable(frozen, f"--method {cell.method}")
        if start is None:
            adapter = _new(frozen, cell, params, tasks=len(tasks))
        else:
            stage, origin = cell.origin
            origin_card = read_card(start, stage=stage, command=f"mhrctl {stage} {origin.name}", cell=origin)
            require_backbone(origin_card, start, fingerprint, backbone)
            require_made_from(origin_card, start, {"prepare": prepared})
            require_lower(origin_card, start, under)
            adapter = load_adapter(start / ADAPTERS)
        adapter = over(load_lower(under, fingerprint), adapter)
        attach(frozen, adapter)
        set_precision(frozen, params.precision)
        place(frozen)
    counts = Parameters(multi_task=trainable(adapter.skill_parameters()), routing=trainable(adapter.routing_parameters()))
    facts = PretrainFacts(
        suite=prepared_card.facts.suite,
        tasks=tasks,
        backbone=fingerprint,
        parameters=counts,
        under=lower_of(under),
    )
    many = execution.accelerator.num_processes
    made = provenance.of_pretrain(
        cell, params, prepared=prepared, backbone=backbone, start=start, under=under, pool=pool, processes=many
    )
    card = made.card(facts, threads=execution.threads)
    key = json.dumps(card.record)
    trained = f"{counted(len(tasks), 'task')}, {counted(counts.multi_task + counts.routing, 'parameter')}"
    align = _alignment(examples, params, cell.seed) if params.align_every else None
    training = Pretraining(frozen, examples, data_sets, cell, params, scratch, key, execution, trained, align)
    if params.validate_every:
        with in_section("pretrain"):
            training.validation.require_samples()
    skills = training.begin(adapter, pool) if pool else []
    rows, kept = training.private(adapter) if private else training.shared(adapter)
    losses = training.validation_losses(adapter, list(data_sets))
    card = replace(card, facts=facts.model_copy(update={"kept": kept, "skills": skills}))
    if execution.accelerator.is_main_process:
        columns = training.columns
        with replacing(log) as table, writing(out) as folder:
            save_adapter(adapter, folder / ADAPTERS)
            write_csv(folder / VALIDATION, ("task", "loss"), losses.items())
            write_text(folder / LOG, "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
            write_rows(table, columns, rows)
            write_samples(of_tests, folder)
            write_card(folder, card, beside={log.name: table})
        for path in checkpoints_of(scratch, cell.name):
            path.unlink()
    if losses:
        execution.recorder.summary({"validation_loss": fmean(losses.values())})
    return card


def _import(
    cell: Cell, params: PretrainParams, *, prepared: Path, backbone: Path, root: Path, out: Path, log: Path, processes: int
) -> Card[PretrainFacts]:
    """Take LoRAs that others trained in place of training."""
    if processes > 1:
        raise ParamsError("pretrain.loras: are taken by one process; run it without a launcher")
    made = provenance.of_pretrain(cell, params, prepared=prepared, backbone=backbone, start=None, root=root)
    target = Target.of(prepared, backbone)
    return write_pool(members_of(params.loras, root), target, out=out, log=log, card_of=made.card)


def _examples(
    prepared: Path, scratch: Path, *, private: bool, test_tasks: bool
) -> tuple[Examples, dict[str, list[str]], dict[str, list[str]]]:
    """What is trained on, the data sets with an adapter each, and {test task: its own inputs} of those among them.

    Raises:
        DataError: if there is nothing to train on.
    """
    examples = Examples.open(prepared / TRAINING_EXAMPLES, scratch)
    data_sets = training_data_sets(prepared) if private else {}
    if not (examples.tasks or test_tasks):
        raise DataError(f"{prepared}: there are no training tasks to pre-train on; {WITHOUT_TRAINING}")
    if not test_tasks:
        return examples, data_sets, {}
    of_tests = OwnExamples.read(prepared / TEST_EXAMPLES)
    return of_tests.beside(examples), data_sets | {task: [task] for task in of_tests.inputs}, of_tests.inputs


def _new(frozen: PreTrainedModel, cell: Cell, params: PretrainParams, *, tasks: int) -> Adapter:
    """A new adapter of a cell, for which the backbone gets its slots."""
    try:
        with in_section("pretrain"):
            return new_adapter(frozen, cell.row, params, heads=cell.heads, seed=cell.seed, tasks=tasks)
    except ValueError as error:
        raise ParamsError(f"--heads {cell.heads}: {error}") from None


def _alignment(examples: Examples, params: PretrainParams, seed: int) -> Callable[[AdaptedModel], list[float]]:
    """What measures the alignment of some tasks' gradients, each time on the same examples."""
    batches = task_batches(examples, tasks=params.align_tasks, size=params.align_examples, seed=seed)
    return lambda model: gradient_alignment(model, batches).logged
