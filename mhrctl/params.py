"""params.yaml as frozen, closed, described models: the only place that knows its keys.

Everything in here changes results, so it enters DVC's cache keys. How to run (device, verbosity) is an option of the
command line and never stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mhrctl.errors import ParamsError, unknown
from mhrctl.methods import METHODS, Method, method

PARAMS_FILE = "params.yaml"
TARGETS = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
S = TypeVar("S", bound="Closed")
Fraction = Annotated[float, Field(ge=0, le=1)]


class Closed(BaseModel):
    """Frozen and closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PrepareParams(Closed):
    """Tasks from a source, split, put into prompts and tokenised."""

    source: Literal["compositional", "superni", "jsonl"] = Field(description="where the tasks come from")
    path: str | None = Field(None, description="folder of the source's tasks (superni, jsonl)")
    test_tasks: list[str] = Field([], description="names of the test tasks to use; empty uses all")
    seed: int = Field(42, description="of the training tasks' shuffle and of the reference drawn for scoring")
    examples: Positive = Field(100, description="examples of a task in each of its train, validation and test splits")
    definition: bool = Field(True, description="put the task's definition into the prompt")
    task_name: bool = Field(False, description="put the task's name into the prompt")
    positive_examples: NonNegative = Field(0, description="worked examples in the prompt")
    tokenizer: str = Field(description="`word` or `bpe` (trained on the training tasks), a hub id, or a folder")
    tokenizer_revision: str = Field("main", description="revision of a tokenizer from the hub")
    vocab_size: Positive = Field(8000, description="entries at most of a tokenizer trained here")
    max_input_tokens: Positive = Field(1024, description="longer inputs are cut")
    max_target_tokens: Positive = Field(128, description="longer targets are cut")

    @model_validator(mode="after")
    def _source_has_its_folder(self) -> PrepareParams:
        if self.source != "compositional" and not self.path:
            raise ValueError(f"source {self.source} needs `path`, the folder of its tasks")
        return self


class ScratchParams(Closed):
    """A small T5 trained from nothing; read only where `backbone.source` is `scratch`."""

    d_model: Positive = Field(128, description="width")
    d_ff: Positive = Field(256, description="width of the feed-forward layers")
    d_kv: Positive = Field(32, description="width of an attention head")
    attention_heads: Positive = Field(4, description="attention heads")
    layers: Positive = Field(3, description="encoder layers, and as many decoder layers")
    steps: Positive = Field(3000, description="training steps")
    batch_size: Positive = Field(64, description="examples a step")
    lr: Rate = Field(1e-3, description="peak learning rate of AdamW")
    denoising: Fraction = Field(0.1, description="part of a batch that is span corruption; the rest is single operations")


class BackboneParams(Closed):
    """The frozen encoder-decoder."""

    source: Literal["hub", "local", "scratch"] = Field(description="the hub, a folder, or trained here")
    name: str | None = Field(None, description="hub id or folder (hub, local)")
    revision: str | None = Field(None, description="commit, tag or branch on the hub; required there")
    seed: int = Field(0, description="of a scratch backbone")
    scratch: ScratchParams = Field(ScratchParams(), description="size and training of a scratch backbone")

    @model_validator(mode="after")
    def _source_is_named(self) -> BackboneParams:
        if self.source != "scratch" and not self.name:
            raise ValueError(f"source {self.source} needs `name`")
        if self.source == "hub" and not self.revision:
            raise ValueError("source hub needs `revision`, so that the result can be reproduced")
        return self


class OptimisationParams(Closed):
    """What pre-training and adaptation share."""

    steps: NonNegative = Field(description="optimizer steps")
    batch_size: Positive = Field(description="examples in a micro-batch (of one task when adapting)")
    accumulation: Positive = Field(1, description="micro-batches a step")
    optimizer: Literal["adamw", "adafactor"] = Field("adamw", description="the optimizer")
    scale_parameter: bool = Field(False, description="Adafactor's scale_parameter")
    lr: Rate = Field(1e-3, description="peak learning rate of the adapters")
    routing_lr: Rate = Field(0.1, description="peak learning rate of the routing")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="of the adapters")
    warmup: Fraction = Field(0.06, description="part of the steps in which the rates rise; then they fall linearly to 0")
    clip_norm: Rate = Field(1.0, description="largest gradient norm")
    loss: Literal["token_mean", "example_sum"] = Field(
        "token_mean", description="mean over target tokens, or sum over tokens divided by the number of examples"
    )
    label_smoothing: Fraction = Field(0.0, description="of the cross-entropy")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the frozen backbone; adapters are fp32 always")


class PretrainParams(OptimisationParams):
    """Multi-task pre-training of the adapters."""

    skills: Positive = Field(8, description="LoRAs in the inventory of a routed method")
    rank: Positive = Field(1, description="rank of a LoRA")
    alpha: Rate = Field(1.0, description="LoRA's alpha; the scaling is alpha / rank")
    targets: list[str] = Field(TARGETS, min_length=1, description="names of the linear layers to adapt")
    relaxed_bernoulli: bool = Field(False, description="sample the routing while training, as Polytropon and SuperNI do")
    temperature: Rate = Field(1.0, description="of the relaxed Bernoulli")
    log_every: Positive = Field(50, description="steps between lines of the log")
    validate_examples: NonNegative = Field(10, description="validation examples a training task for the final loss by task")


class AdaptParams(OptimisationParams):
    """Few-shot adaptation to each test task."""

    shots: Positive = Field(description="training examples a test task")
    validation: Positive = Field(description="validation examples a test task")
    evaluate_every: Positive = Field(description="steps between validations; the best is kept")
    select: Literal["task_metric", "loss"] = Field("task_metric", description="validation score that chooses the best step")
    beams: Positive = Field(1, description="beams when validating by the task's metric")
    max_new_tokens: Positive = Field(128, description="longest prediction when validating by the task's metric")


class EvaluateParams(Closed):
    """Scoring of the test splits."""

    beams: Positive = Field(1, description="beams of the generation")
    max_new_tokens: Positive = Field(128, description="longest prediction")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the backbone")


class ReportParams(Closed):
    """What the report stage writes."""

    tables: list[int] = Field([1, 2], description="the paper's tables to write")


class MethodAxes(Closed):
    """A method of the grid: its own axes, and its own settings over the stages' sections."""

    heads: list[Positive] = Field([], description="head counts, for mhr and its variants")
    pretrain: dict[str, Any] = Field({}, description="settings over the `pretrain` section")
    adapt: dict[str, Any] = Field({}, description="settings over the `adapt` section")


class GridParams(Closed):
    """Methods, heads and seeds."""

    seeds: list[int] = Field(min_length=1, description="one cell of every method for each")
    pretrain_seed: int | None = Field(
        None,
        description="pre-train once with this seed and adapt with each of `seeds`, as the paper did; empty pre-trains for each",
    )
    methods: dict[str, Annotated[MethodAxes, BeforeValidator(lambda axes: axes or {})]] = Field(
        min_length=1, description="rows of the methods table"
    )
    overrides: dict[str, dict[Literal["pretrain", "adapt", "evaluate"], dict[str, Any]]] = Field(
        {}, description="{cell: {section: {key: value}}} for single cells"
    )

    @model_validator(mode="after")
    def _methods_and_heads_fit(self) -> GridParams:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds occur twice")
        for name, axes in self.methods.items():
            if name not in METHODS:
                raise ValueError(unknown("method", name, METHODS))
            row = METHODS[name]
            if row.multi_head != bool(axes.heads):
                raise ValueError(f"{name} {'needs' if row.multi_head else 'has no'} `heads`")
            if row.pretrain != name and axes.pretrain:
                raise ValueError(f"{name} shares the pre-training of {row.pretrain}: set `pretrain` there")
        return self


class Params(Closed):
    """The whole of params.yaml."""

    prepare: PrepareParams
    backbone: BackboneParams
    pretrain: PretrainParams
    adapt: AdaptParams
    evaluate: EvaluateParams
    report: ReportParams = ReportParams()
    grid: GridParams


class Cell(Closed):
    """A point of the grid.

    Attributes:
        method: a row of the methods table.
        heads: routing heads; 1 for what is not multi-head.
        seed: of everything random in the cell.
        pretrain_seed: of the pre-training that it adapts from, if that is another.
    """

    method: str
    heads: Positive = 1
    seed: int = 0
    pretrain_seed: int | None = None

    @model_validator(mode="after")
    def _heads_fit_the_method(self) -> Cell:
        if not method(self.method).multi_head and self.heads != 1:
            raise ParamsError(f"--heads {self.heads}: {self.method} has one head; use mhr or its variants for more")
        return self

    @property
    def row(self) -> Method:
        """The cell's row of the methods table."""
        return METHODS[self.method]

    @property
    def name(self) -> str:
        """The name of the cell's files and DVC stages, such as `mhr_z-h8-s0`."""
        heads = f"-h{self.heads}" if self.row.multi_head else ""
        return f"{self.method}{heads}-s{self.seed}"

    @property
    def options(self) -> str:
        """The cell as options of the command line."""
        heads = f" --heads {self.heads}" if self.row.multi_head else ""
        return f"--method {self.method}{heads} --seed {self.seed}"

    @property
    def pretrain_cell(self) -> Cell:
        """The cell whose pre-training this one adapts from."""
        seed = self.seed if self.pretrain_seed is None else self.pretrain_seed
        return Cell(method=self.row.pretrain, heads=self.heads, seed=seed)


class CellParams(Closed):
    """All that decides a cell's results, as `data/cells/<cell>.json` holds it for DVC."""

    cell: Cell
    pretrain: PretrainParams
    adapt: AdaptParams
    evaluate: EvaluateParams


def load_params(path: Path, sets: Sequence[str] = ()) -> Params:
    """Read params.yaml, with `section.key=value` overrides on top.

    Args:
        path: the file.
        sets: overrides in the form of `--set`; values are read as YAML.

    Raises:
        ParamsError: in one line with file, line, key and what is allowed.
    """
    tree = _read_yaml(path)
    overridden = [_apply_set(tree, text) for text in sets]
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first)
        where = "--set" if key in overridden else f"{path}:{_line(path, first['loc'])}"
        raise ParamsError(f"{where}: {key}: {_message(first)}") from None


def resolve_cell(params: Params, cell: Cell) -> CellParams:
    """Fold a method's own settings and a cell's overrides into the sections that the cell's stages read.

    Raises:
        ParamsError: if a setting has no such key or a wrong value; names the cell.
    """
    grid = params.grid
    own = grid.methods.get(cell.method, MethodAxes())
    shared = grid.methods.get(cell.pretrain_cell.method, MethodAxes())
    at_pretrain = grid.overrides.get(cell.pretrain_cell.name, {})
    at_cell = grid.overrides.get(cell.name, {})
    try:
        return CellParams(
            cell=cell,
            pretrain=_over(params.pretrain, shared.pretrain, at_pretrain.get("pretrain", {})),
            adapt=_over(params.adapt, own.adapt, at_cell.get("adapt", {})),
            evaluate=_over(params.evaluate, at_cell.get("evaluate", {})),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ParamsError(f"{PARAMS_FILE}: grid, cell {cell.name}: {_key(first)}: {_message(first)}") from None


def grid_cells(params: Params) -> list[Cell]:
    """Every cell of the grid, in the order of params.yaml."""
    return [
        Cell(method=name, heads=heads, seed=seed, pretrain_seed=params.grid.pretrain_seed)
        for name, axes in params.grid.methods.items()
        for heads in axes.heads or [1]
        for seed in params.grid.seeds
    ]


def _over(section: S, *layers: Mapping[str, Any]) -> S:
    merged = section.model_dump()
    for layer in layers:
        merged |= layer
    return type(section).model_validate(merged)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run mhrctl in a project folder, or name one with --project") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ParamsError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}:1: expected the sections {', '.join(Params.model_fields)}")
    return tree


def _apply_set(tree: dict[str, Any], text: str) -> str:
    key, sign, value = text.partition("=")
    *sections, last = key.strip().split(".")
    if not sign or not sections:
        raise ParamsError(f"--set {text}: expected section.key=value")
    node: Any = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ParamsError(f"--set {text}: {section} is not a section")
    node[last] = YAML(typ="safe", pure=True).load(value)
    return key.strip()


def _key(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _line(path: Path, loc: Sequence[int | str]) -> int:
    """The line of the deepest key of `loc` that the file has, counted from 1."""
    node: Any = YAML(typ="rt").load(path)
    line = 1
    for part in loc:
        try:
            position = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
            node, line = node[part], position[0] + 1
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _message(error: ErrorDetails) -> str:
    """What pydantic found, with what is allowed."""
    if error["type"] == "extra_forbidden":
        parent: Any = Params
        for part in error["loc"][:-1]:
            parent = parent.model_fields[part].annotation if part in getattr(parent, "model_fields", {}) else None
        known = list(getattr(parent, "model_fields", {}))
        return unknown("key", str(error["loc"][-1]), known) if known else "unknown key"
    if error["type"] == "missing":
        return "is missing"
    text = error["msg"].removeprefix("Value error, ")
    return text if error["type"] == "value_error" else f"{text} (got {error['input']!r})"
