"""`mhrctl check` proves before anything runs that the files which params.yaml names are there and look right.

Nothing is fetched, and nothing large is read: what needs either is said to be unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import facts_in
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import CARD, TASKS, Project
from mhrctl.artifacts.reading import read_json_of
from mhrctl.config.cells import CellParams, Output
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.recipes import RECIPES
from mhrctl.config.sections import QUANTISERS, BackboneParams
from mhrctl.config.sources import HUB_ID
from mhrctl.config.tasks import BACKBONE_KINDS, TRAINED_TOKENIZERS, PrepareParams
from mhrctl.data.loading import json_object
from mhrctl.data.table import shortage
from mhrctl.errors import DataError, ParamsError, in_section, listed, unknown
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.suites.reading import require_folder
from mhrctl.suites.source import source_module
from mhrctl.suites.task import Seen, TaskCounts
from mhrctl.tools.estimate import (
    T5_TYPES,
    Shape,
    backbone_shape,
    config_folder,
    config_of_gguf,
    estimate,
    framing_needed,
    heads_divide,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ONE_TASK = TaskCounts(1, 1, 1)
"""It takes the place of tasks that are not counted yet, where only layers and heads are checked."""
SPECIAL_TOKENS = 35
"""Of a tokenizer trained here: `mhrctl.data.tokenization.SPECIAL`, which takes transformers to import."""


def check_suite(params: Params, project: Project) -> Seen:
    """Look at the files of tasks.

    Raises:
        DataError: naming what is missing or malformed, and the setting.
        ParamsError: if a stage would read what it writes.
    """
    root, tokenizer = project.root, params.prepare.tokenizer
    provenance.of_prepare(params.prepare, root=root).require_apart(project.output("prepare"))
    provenance.of_backbone(params.backbone, prepared=project.output("prepare"), root=root).require_apart(
        project.output("backbone")
    )
    seen = source_module(params.prepare.source).check(params, root, metrics=OVER_CHOICES)
    encoder = params.index.encoder
    if any(METHODS[name].needs_index for name in params.grid.methods) and encoder.startswith((".", "/")):
        require_folder(root / encoder, "index.encoder")  # any other name may be one of the hub
    unchecked, tasks = seen.unchecked, prepared_tasks(project) or seen.tasks
    if tasks and not tasks.training and params.backbone.source == "scratch":
        raise DataError("backbone.source scratch: there are no training tasks to train it on; name a model (hub, local)")
    if params.backbone.source == "hub":
        _require_id(str(params.backbone.name), "backbone.name")
    if tokenizer not in TRAINED_TOKENIZERS and not (root / tokenizer).is_dir():
        _require_id(tokenizer, "prepare.tokenizer")
        unchecked += (f"prepare.tokenizer {tokenizer} on the hub",)
    elif params.prepare.tokenizer_gguf and not params.prepare.chat:
        unchecked += (f"the tokenizer in {params.prepare.tokenizer_gguf}",)
    return Seen(tasks, unchecked, seen.notes)


def _require_id(name: str, setting: str) -> None:
    """Check that what is no folder can be an id of the hub.

    Raises:
        DataError: if it can be none.
    """
    if not HUB_ID.fullmatch(name):
        raise DataError(f"{setting} {name!r}: no such folder, and no id of the hub")


def check_backbone(params: Params, project: Project) -> list[str]:
    """Look at the tokenizer and the backbone's configs: special tokens that fit each other, and what shapes answers.

    Returns:
        What to say of generation, and of a package that is missing.

    Raises:
        DataError: if a special token is not said, or the tokenizer's is another, or a file cannot be read.
        ParamsError: if `prepare.framing` is for the other kind of backbone, or `prepare.vocab_size` cannot hold the special
            tokens.
    """
    notes = _check_quantisation(params)
    _require_framing(params, project)
    tokenizer = _tokenizer(params.prepare, project)
    from mhrctl.models.generation import FILE, answering, described, require_tokenizer, unused_settings

    read = _configs(params.backbone, project.root)
    if read is None:
        chosen = params.backbone.generation
        return [*notes, f"generation: {described(chosen)}, over what the checkpoint says"] if chosen else notes
    where = f"backbone.name {params.backbone.name!r}"
    config, generation, known = read
    how = answering(config, generation, params.backbone.generation, where=where, vocabulary=known)
    if tokenizer is not None:
        place = f"prepare.tokenizer {params.prepare.tokenizer!r}"
        require_tokenizer(tokenizer, how, vocabulary=known, where=where, place=place, chat=params.prepare.chat)
    notes += [f"generation: {described(how.settings)}; backbone.generation sets it otherwise"] if how.settings else []
    if how.unused:
        notes.append(f"not used of {FILE}: {unused_settings(how)}")
    for section, longest in (("adapt", params.adapt.max_new_tokens), ("evaluate", params.evaluate.max_new_tokens)):
        least = max(how.settings.get("min_length", 0) - 1, how.settings.get("min_new_tokens", 0))
        if least > longest:
            notes.append(f"warning: answers have {least} tokens at least, and {section}.max_new_tokens is {longest}: none ends")
    return notes


def _require_framing(params: Params, project: Project) -> None:
    """Check that examples will be framed for the backbone, if its config is at hand.

    Raises:
        ParamsError: if they will not.
    """
    framing, needed = params.prepare.framing, framing_needed(params.backbone, project.root)
    if needed is None or needed == framing:
        return
    whose = params.backbone.name or f"backbone.scratch.architecture {params.backbone.scratch.architecture}"
    raise ParamsError(f"prepare.framing {framing}: {whose} is {BACKBONE_KINDS[needed]}; set prepare.framing: {needed}")


def _check_quantisation(params: Params) -> list[str]:
    """Check that weights that are to be quantised are not to be trained, and say if what quantises them is missing.

    Raises:
        ParamsError: if a method of the grid trains them.
    """
    name = params.backbone.quantisation
    if name is None:
        return []
    from mhrctl.adapters.build import adapter_class

    if tuning := [method for method in params.grid.methods if adapter_class(METHODS[method]).replaces_weights]:
        raise ParamsError(
            f"backbone.quantisation {name}: {listed(tuning)} would change weights that are quantised; leave it out, or the"
            " method out of grid.methods"
        )
    package = QUANTISERS[name].package
    missing = f"warning: backbone.quantisation {name} needs the package {package}, which is not installed here"
    return [] if find_spec(package) else [missing]


def _configs(params: BackboneParams, root: Path) -> tuple[Any, Any, int] | None:
    """The config of a backbone, its settings of generation, and how many tokens it knows; None if they are not at hand."""
    from mhrctl.models.generation import FILE, generation_of, t5_configs

    if (of_gguf := config_of_gguf(params, root)) is not None:
        from transformers import GenerationConfig

        from mhrctl.models.backbones import config_vocabulary

        return of_gguf, GenerationConfig.from_model_config(of_gguf), config_vocabulary(of_gguf)
    folder = config_folder(params, root)
    if folder is None or (params.source == "hub" and not (folder / FILE).exists()):
        return None
    says = json_object(folder / "config.json")
    if says.get("model_type") in T5_TYPES:
        config, generation = t5_configs(folder)
        return config, generation, int(config.vocab_size)
    from mhrctl.models.backbones import config_vocabulary, pretrained_config
    from mhrctl.models.quantised import require_unquantised

    require_unquantised(says, f"backbone.name {params.name!r}")
    read = pretrained_config(str(folder), name=params.name)
    return read, generation_of(folder, read), config_vocabulary(read)


def _tokenizer(params: PrepareParams, project: Project) -> PreTrainedTokenizerBase | None:
    """The user's own tokenizer, if it is in a folder."""
    if params.tokenizer in TRAINED_TOKENIZERS:
        if params.vocab_size <= SPECIAL_TOKENS:
            raise ParamsError(f"prepare.vocab_size {params.vocab_size}: must be more than the {SPECIAL_TOKENS} special tokens")
        return None
    folder = project.root / params.tokenizer
    if not folder.is_dir():
        return None
    if params.tokenizer_gguf and (folder / params.tokenizer_gguf).is_file() and not params.chat:
        return None  # it takes as long to read as `mhrctl prepare` takes
    from mhrctl.data.framing import framed_tokenizer

    with in_section("prepare"):
        return framed_tokenizer(str(folder), gguf=params.tokenizer_gguf, framing=params.framing, chat=params.chat)


def shortages(cells: Iterable[CellParams], project: Project) -> list[str]:
    """Say, for what the cells ask for, which test tasks have fewer examples; nothing before the prepare stage has run."""
    prepared = project.output("prepare")
    if not (prepared / TASKS).exists():
        return []
    asked = dict.fromkeys((each.adapt.shots, each.adapt.validation) for each in cells)
    lines = [shortage(prepared, shots=shots, validation=validation) for shots, validation in asked]
    return [line for line in lines if line]


def unmeasured(cells: Iterable[CellParams]) -> str | None:
    """Say of which pre-trainings `pretrain.align_every` asks for what cannot be measured, in a line; None if there are none."""
    asked = [each for each in cells if each.pretrain.align_every]
    if not asked:
        return None
    from mhrctl.analysis.alignment import why_unshared

    trained = [each.cell if each.cell.extra_steps else each.cell.pretrain_cell for each in asked]
    refused = {cell.name: cell for cell in trained if why_unshared(cell.row)}
    if not refused:
        return None
    methods = listed(list(dict.fromkeys(cell.method for cell in refused.values())))
    return (
        f"pretrain.align_every: the training tasks of {methods} share no adapter, so `mhrctl pretrain` will refuse"
        f" {listed(list(refused))}; set it at single methods (grid.methods.NAME.pretrain), or to 0 for these (grid.overrides)"
    )


def unmade(cells: Sequence[CellParams], project: Project) -> str | None:
    """Say which outputs that settings name are neither there nor of a cell of the grid, in a line; None if there are none."""
    made = {(stage, cell.name) for each in cells for stage, cell in _made_for(each)}
    named = dict.fromkeys((stage, cell.name) for each in cells for stage, cell in each.others())
    lacking = [output for output in named if output not in made and not (project.output(*output) / CARD).exists()]
    if not lacking:
        return None
    missing = [f"{stage}/{name}" for stage, name in lacking]
    return f"settings name {listed(missing)}, which are not there and which the grid does not make; import or pre-train them"


def untrained(cells: Iterable[CellParams], tasks: TaskCounts | None, project: Project) -> str | None:
    """Say which pre-trainings have no training task, in a line; None if there are none, or they were imported."""
    if tasks is None or tasks.training:
        return None
    trained = [each for each in cells if not each.pretrain.loras and not each.pretrain.test_tasks]
    names = dict.fromkeys(each.cell.pretrain_cell.name for each in trained)
    lacking = [name for name in names if not (project.output("pretrain", name) / CARD).exists()]
    if not lacking:
        return None
    how = "take LoRAs that others trained (pretrain.loras of adapter_soup, `mhrctl import`), or leave them out"
    return f"there are no training tasks to pre-train {listed(lacking)} on; {how}"


def _made_for(params: CellParams) -> list[Output]:
    """What the grid makes for a cell that another can lie on, or take skills from."""
    cell = params.cell
    return [("pretrain", cell.pretrain_cell), cell.origin, cell.start]


def prepared_tasks(project: Project) -> TaskCounts | None:
    """Return the tasks that the prepare stage has written, if it ran."""
    path = project.output("prepare") / TASKS
    if not path.exists():
        return None
    rows = read_json_of(path)["tasks"]
    training = [row for row in rows if row["role"] == "training"]
    return TaskCounts(len(training), len({row["dataset"] for row in training}), sum(row["role"] == "test" for row in rows))


def unknown_task(epoch_steps: Mapping[str, int], project: Project) -> str | None:
    """Say which task of `adapt.epoch_steps` is no test task of the project, in a line; None if all are, or it is not prepared.

    What a recipe names is of its whole suite, of which a project may have a part.
    """
    path = project.output("prepare") / TASKS
    if not epoch_steps or not path.exists():
        return None
    names = [row["name"] for row in read_json_of(path)["tasks"] if row["role"] == "test"]
    of_recipes = {task for each in RECIPES.values() for task in each.sections["adapt"].get("epoch_steps", {})}
    wrong = [task for task in epoch_steps if task not in names and task not in of_recipes]
    return f"adapt.epoch_steps: {unknown('test task', wrong[0], names)}" if wrong else None


def vocab_size(params: PrepareParams, project: Project) -> int:
    """Return how many entries the tokenizer has, or has at most if prepare has not run."""
    facts = facts_in(project.output("prepare"), PrepareFacts)
    return facts.vocab_size if facts else params.vocab_size


def shape_of(params: Params, project: Project) -> Shape | None:
    """Return the sizes of the backbone of a project; None if they are not known before it is loaded."""
    return backbone_shape(params.backbone, project.root, vocab_size(params.prepare, project))


def require_heads(cell: CellParams, params: Params, project: Project) -> None:
    """Check that the heads of a cell divide its layers, if the backbone's are known.

    Args:
        cell: with its resolved sections.
        params: of the project.
        project: whose backbone it is.

    Raises:
        ParamsError: if they do not; says which would.
    """
    if cell.cell.heads > 1 and (shape := shape_of(params, project)) and not heads_divide(cell, shape):
        estimate(cell, shape, ONE_TASK)
