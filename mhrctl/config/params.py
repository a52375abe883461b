"""params.yaml is read as frozen, closed, described models: this is the only place that knows its keys.

What is in here changes results and enters DVC's cache keys, but for the section `run`. How to run (device, verbosity) is an
option of the command line.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mhrctl.config.fields import Closed, Fraction, NonNegative, Positive, Rate, Seed, Weight, added
from mhrctl.config.methods import METHODS
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import unknown

PLAIN = "plain"
"""The variant that sets nothing."""
VARIANT_NAME = re.compile(r"(?![hstx]\d+$)[a-z][a-z0-9_]*")


class ScratchParams(Closed):
    """The section describes a small T5 trained from nothing; read only where `backbone.source` is `scratch`."""

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
    """The section says what the frozen encoder-decoder is."""

    source: Literal["hub", "local", "scratch"] = Field(description="the hub, a folder, or trained here")
    name: str | None = Field(None, description="hub id or folder (hub, local)")
    revision: str | None = Field(None, description="commit, tag or branch on the hub; required there")
    seed: Seed = Field(0, description="of a scratch backbone")
    scratch: ScratchParams = Field(ScratchParams(), description="size and training of a scratch backbone")

    @model_validator(mode="after")
    def _source_is_named(self) -> BackboneParams:
        if self.source != "scratch" and not self.name:
            raise ValueError(f"source {self.source} needs `name`")
        if self.source == "hub" and not self.revision:
            raise ValueError("source hub needs `revision`, so that the result can be reproduced")
        return self


class OptimisationParams(Closed):
    """These settings are what pre-training and adaptation share."""

    steps: NonNegative = Field(description="optimizer steps")
    batch_size: Positive = Field(description="examples in a micro-batch (of one task when adapting)")
    accumulation: Positive = Field(1, description="micro-batches a step")
    optimizer: Literal["adamw", "adafactor"] = Field("adamw", description="the optimizer")
    scale_parameter: bool = Field(False, description="Adafactor's scale_parameter")
    lr: Rate = Field(1e-3, description="peak learning rate of the adapters")
    routing_lr: Rate = Field(0.1, description="peak learning rate of the routing")
    weight_decay: Weight = Field(0.01, description="of the adapters")
    warmup: Fraction = Field(0.06, description="part of the steps in which the rates rise; then they fall linearly to 0")
    clip_norm: Rate = Field(1.0, description="largest gradient norm")
    loss: Literal["token_mean", "example_sum"] = Field(
        "token_mean", description="mean over target tokens, or sum over tokens divided by the number of examples"
    )
    mc_weight: Weight = Field(0.0, description="of T-Few's multiple-choice loss, on tasks with answer choices")
    unlikelihood_weight: Weight = Field(0.0, description="of T-Few's unlikelihood loss of wrong answer choices")
    length_norm: Fraction = Field(1.0, description="exponent of the length that choice scores are divided by, in these losses")
    label_smoothing: Fraction = Field(0.0, description="of the cross-entropy")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the frozen backbone; adapters are fp32 always")


class PretrainParams(OptimisationParams):
    """The section sets the multi-task pre-training of the adapters."""

    skills: Positive = Field(8, description="LoRAs in the inventory of a routed method")
    rank: Positive = Field(1, description="rank of a LoRA")
    alpha: Rate = Field(1.0, description="LoRA's alpha; the scaling is alpha / rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="of a LoRA's input while training")
    targets: str | Annotated[list[str], Field(min_length=1)] = Field(
        "full",
        description="the linear layers to adapt: `full` (q k v o wi_0 wi_1 wo), `light` (k v wi_1), a list of names,"
        " or a regular expression of whole names",
    )
    granularity: Literal["layer", "sublayer", "block", "coder", "model"] = Field(
        "layer", description="what shares a routing: each adapted layer, sub-layer, block, encoder/decoder, or the model"
    )
    routing_blocks: Positive = Field(1, description="successive blocks that share a routing, with granularity block")
    relaxed_bernoulli: bool = Field(False, description="sample the routing while training, as Polytropon and SuperNI do")
    temperature: Rate = Field(1.0, description="of the relaxed Bernoulli")
    straight_through: bool = Field(False, description="round the sampled gates to 0 or 1, keeping their gradient")
    uniform_steps: NonNegative = Field(0, description="last steps in which the learned routing fades into the uniform one")
    window: Positive = Field(
        1,
        description="micro-batches whose examples are drawn together and sorted by input length, then target length;"
        " 1 draws each for itself",
    )
    balance: Literal["rows", "tokens"] = Field(
        "rows", description="cut a window into micro-batches of batch_size examples, or of about equally many padded tokens"
    )
    log_every: Positive = Field(50, description="steps between lines of the log")
    validate_examples: NonNegative = Field(10, description="validation examples a training task for the final loss by task")
    options: dict[str, Any] = added({}, description="the method's own settings, such as mosa's copies; see docs/methods.md")
    align_every: NonNegative = Field(0, description="steps between measurements of gradient alignment; 0 for none")
    align_tasks: Annotated[int, Field(ge=2)] = Field(16, description="training tasks drawn for it")
    align_examples: Positive = Field(16, description="training examples of each")

    @model_validator(mode="after")
    def _routing_options_fit(self) -> PretrainParams:
        if self.routing_blocks > 1 and self.granularity != "block":
            raise ValueError(f"routing_blocks {self.routing_blocks} needs granularity block, not {self.granularity}")
        if self.straight_through and not self.relaxed_bernoulli:
            raise ValueError("straight_through rounds sampled gates: it needs relaxed_bernoulli")
        if self.uniform_steps > self.steps:
            raise ValueError(f"uniform_steps {self.uniform_steps} is more than steps {self.steps}")
        return self

    @model_validator(mode="after")
    def _balance_has_a_window(self) -> PretrainParams:
        if self.balance == "tokens" and self.window == 1:
            raise ValueError("balance tokens needs a window of two or more micro-batches, such as window 8")
        return self


class IndexParams(Closed):
    """The section sets the index of training tasks by their inputs, for AdapterSoup."""

    encoder: str = Field("tfidf", description="`tfidf` (needs no model), or a sentence-transformers model: hub id or folder")
    revision: str = Field("main", description="revision of an encoder from the hub")
    examples: Positive = Field(100, description="training inputs of a task at most")


class AdaptParams(OptimisationParams):
    """The section sets the few-shot adaptation to each test task."""

    shots: Positive | None = Field(description="training examples a test task; null takes a seed's whole few-shot set (t0)")
    validation: Positive = Field(100, description="validation examples a test task, where they are held out")
    validate_on: Literal["held_out", "test"] = Field(
        "held_out", description="what chooses the best step: examples held out, or the test split itself (the paper's T0)"
    )
    evaluate_every: Positive = Field(description="steps (or epochs) between validations; the best is kept")
    evaluate_unit: Literal["steps", "epochs"] = Field(
        "steps", description="of `evaluate_every`; an epoch is as many whole batches as a task's training examples fill"
    )
    epoch_steps: dict[str, Positive] = Field({}, description="{task: steps of an epoch} where that is another number")
    keep_start: bool = Field(True, description="whether the start itself can be the best step")
    patience: Positive | None = Field(
        None, description="validations in a row without a better score after which a task stops; null trains all steps"
    )
    select: Literal["task_metric", "loss"] = Field("task_metric", description="validation score that chooses the best step")
    beams: Positive = Field(1, description="beams when validating by the task's metric")
    max_new_tokens: Positive = Field(128, description="longest prediction when validating by the task's metric")
    soup_size: Positive = Field(5, description="adapter_soup: training tasks whose adapters are averaged, at most")
    soup_min_cosine: float = Field(0.15, description="adapter_soup: their least similarity (the best one always counts)")


class EvaluateParams(Closed):
    """The section sets the scoring of the test splits."""

    beams: Positive = Field(1, description="beams of the generation")
    length_norm: Fraction = Field(1.0, description="exponent of the length that choice scores are divided by")
    max_new_tokens: Positive = Field(128, description="longest prediction")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the backbone")


class ReportParams(Closed):
    """The section says what the report stage writes."""

    tables: list[int] = Field([1, 2], description="the paper's tables to write")


class RunParams(Closed):
    """The section says how `mhrctl run` shares a machine among stages; it changes no result and no stage depends on it."""

    slots: dict[
        Literal["prepare", "backbone", "pretrain", "average", "index", "adapt", "evaluate", "report"],
        Annotated[float, Field(gt=0)],
    ] = Field({}, description="{stage: slots that one of its jobs takes}, such as GPUs or parts of one; 1 if not said")


class Variant(Closed):
    """A variant is another pre-training of a method: its layout, granularity or skills, and what adaptation needs with it."""

    pretrain: dict[str, Any] = Field(min_length=1, description="settings over the `pretrain` section")
    adapt: dict[str, Any] = Field({}, description="settings over the `adapt` section")


class MethodAxes(Closed):
    """A method of the grid has its own axes, and its own settings over the stages' sections."""

    heads: list[Positive] = Field([], description="head counts, for mhr and its variants")
    variants: list[str] = Field([PLAIN], min_length=1, description="of grid.variants; `plain` is the method as it is")
    extra_steps: list[Positive] = Field(
        [], description="further multi-task training of a single adapter (lora, the averages), evaluated zero-shot"
    )
    pretrain: dict[str, Any] = Field({}, description="settings over the `pretrain` section")
    adapt: dict[str, Any] = Field({}, description="settings over the `adapt` section")
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="{key: values} of the `adapt` section; each combination is a trial, the best in validation is reported"
    )

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The settings of each trial of the search; a single trial without settings where nothing is searched."""
        return [dict(zip(self.search, values, strict=True)) for values in itertools.product(*self.search.values())]


class GridParams(Closed):
    """The grid has methods, heads and seeds."""

    seeds: list[Seed] = Field(min_length=1, description="one cell of every method for each")
    pretrain_seed: Seed | None = Field(
        None,
        description="pre-train once with this seed and adapt with each of `seeds`, as the paper did; empty pre-trains for each",
    )
    methods: dict[str, Annotated[MethodAxes, BeforeValidator(lambda axes: axes or {})]] = Field(
        min_length=1, description="rows of the methods table"
    )
    variants: dict[str, Variant] = Field({}, description="{name: settings} of other pre-trainings, as a further axis")
    overrides: dict[str, dict[Literal["pretrain", "adapt", "evaluate"], dict[str, Any]]] = Field(
        {}, description="{cell: {section: {key: value}}} for single cells"
    )

    @field_validator("variants")
    @classmethod
    def _variants_make_names(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            if name == PLAIN or not VARIANT_NAME.fullmatch(name):
                raise ValueError(f"variant {name!r}: a name is lower-case letters, digits, _, not `plain`, h8, s0, t1 or x100")
        return variants

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
            if missing := [variant for variant in axes.variants if variant not in (PLAIN, *self.variants)]:
                raise ValueError(f"methods.{name}.variants: {unknown('variant', missing[0], [PLAIN, *self.variants])}")
            if axes.extra_steps and not row.is_single:
                raise ValueError(
                    f"{name} has no `extra_steps`: they train a single adapter on, such as lora, poly_mu or mhr_mu"
                )
            if missing := [key for key in axes.search if key not in AdaptParams.model_fields]:
                raise ValueError(f"methods.{name}.search: {unknown('setting of adapt', missing[0], AdaptParams.model_fields)}")
        return self


class Params(Closed):
    """These params are the whole of params.yaml."""

    recipe: Literal["t0", "superni", "superni_attention"] | None = Field(
        None, description="settings of the paper's experiments, for what this file leaves out (see `mhrctl/config/recipes.py`)"
    )
    prepare: PrepareParams
    backbone: BackboneParams
    pretrain: PretrainParams
    index: IndexParams = IndexParams()
    adapt: AdaptParams
    evaluate: EvaluateParams
    report: ReportParams = ReportParams()
    run: RunParams = RunParams()
    grid: GridParams
