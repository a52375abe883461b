"""The sections of params.yaml that set the stages are frozen, closed, described models.

What is in here changes results and enters DVC's cache keys, but for the section `run`. How to run (device, verbosity) is an
option of the command line. `prepare` is in `mhrctl.config.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from mhrctl.config.fields import (
    MAX_COUNT,
    Batch,
    Beams,
    Closed,
    Compiles,
    Fraction,
    Layers,
    NonNegative,
    Once,
    Positive,
    Rate,
    Seed,
    SettingError,
    Shots,
    Tokens,
    Weight,
    Width,
    added,
)
from mhrctl.config.generation import checked_settings

QuantisationName = Literal["nf4", "llm_int8", "int8"]


class Quantiser(NamedTuple):
    """A quantiser makes linear layers' weights smaller.

    Attributes:
        package: that does it.
        bits: of a weight, what its block of weights shares included.
    """

    package: str
    bits: float


QUANTISERS: Mapping[QuantisationName, Quantiser] = {
    "nf4": Quantiser("bitsandbytes", 4.13),
    "llm_int8": Quantiser("bitsandbytes", 8),
    "int8": Quantiser("torchao", 8),
}
"""{`backbone.quantisation`: what does it}."""


class ScratchParams(Closed):
    """The section describes a small model trained from nothing; read only where `backbone.source` is `scratch`."""

    d_model: Width = Field(128, description="width")
    d_ff: Width = Field(256, description="width of the feed-forward layers")
    d_kv: Width = Field(32, description="width of an attention head")
    attention_heads: Width = Field(4, description="attention heads")
    layers: Layers = Field(3, description="encoder layers, and as many decoder layers; of a llama its layers")
    steps: Positive = Field(3000, description="training steps")
    batch_size: Batch = Field(64, description="examples a step")
    lr: Rate = Field(1e-3, description="peak learning rate of AdamW")
    denoising: Fraction = Field(
        0.1,
        description="part of a batch that is span corruption (of a llama, plain language modelling of prompts); the rest is"
        " single operations",
    )
    architecture: Literal["t5", "llama"] = added(
        "t5", description="an encoder-decoder, or a causal model, which needs prepare.framing causal"
    )


class BackboneParams(Closed):
    """The section says what the frozen language model is."""

    source: Literal["hub", "local", "scratch"] = Field(description="the hub, a folder, or trained here")
    name: str | None = Field(None, description="hub id or folder (hub, local)")
    revision: str | None = Field(None, description="commit, tag or branch on the hub; required there")
    seed: Seed = Field(0, description="of a scratch backbone")
    scratch: ScratchParams = Field(ScratchParams(), description="size and training of a scratch backbone")
    gguf: str | None = added(
        None, description="hub, local: a GGUF file there, whose weights are dequantised; see docs/backbones.md"
    )
    quantisation: QuantisationName | None = added(
        None, description="hub, local: 4 bits (nf4) or 8 (llm_int8, int8) for linear layers' weights; see docs/backbones.md"
    )
    generation: dict[str, Any] = added(
        {}, description="{key: value} over the checkpoint's generation_config.json; see docs/backbones.md"
    )

    @field_validator("generation")
    @classmethod
    def _generation_is_known(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return checked_settings(settings)

    @model_validator(mode="after")
    def _source_is_named(self) -> BackboneParams:
        if self.source != "scratch" and not self.name:
            raise SettingError(f"source {self.source} needs `name`", "source")
        if self.source == "hub" and not self.revision:
            raise SettingError("source hub needs `revision`, so that the result can be reproduced", "source")
        return self

    @model_validator(mode="after")
    def _nothing_is_set_in_vain(self) -> BackboneParams:
        if self.source == "scratch" and self.name is not None:
            raise SettingError("source scratch has no `name`, since it is trained here; leave it out", "name")
        if self.source == "scratch" and self.gguf is not None:
            raise SettingError("source scratch has no `gguf`, since it is trained here; leave it out", "gguf")
        if self.source == "scratch" and self.quantisation is not None:
            raise SettingError("source scratch has no `quantisation`, since it is trained here; leave it out", "quantisation")
        if self.source != "hub" and self.revision is not None:
            raise SettingError(
                f"source {self.source} has no `revision`, which only a model of the hub has; leave it out", "revision"
            )
        if self.source != "scratch" and self.seed:
            raise SettingError(f"source {self.source} has no `seed`, which only a scratch backbone has; leave it out", "seed")
        return self


class OptimisationParams(Closed):
    """These settings are what pre-training and adaptation share."""

    steps: NonNegative = Field(description="optimizer steps")
    batch_size: Batch = Field(description="examples in a micro-batch (of one task when adapting)")
    accumulation: Batch = Field(1, description="micro-batches a step")
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

    skills: Width = Field(8, description="LoRAs in the inventory of a routed method")
    rank: Width = Field(1, description="rank of a LoRA")
    alpha: Rate = Field(1.0, description="LoRA's alpha; the scaling is alpha / rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="of a LoRA's input while training")
    targets: (
        Annotated[str, Field(min_length=1), Compiles] | Annotated[list[str], Field(min_length=1, max_length=10_000), Once]
    ) = Field(
        "full",
        description="the linear layers to adapt: `full` (all but the output layer), `light` (keys, values and what widens in"
        " the feed-forward: T5's k v wi_1), `attention` (queries, keys, values and outputs), a list of names, or a regular"
        " expression of whole names",
    )
    granularity: Literal["layer", "sublayer", "block", "coder", "model"] = Field(
        "layer", description="what shares a routing: each adapted layer, sub-layer, block, encoder/decoder, or the model"
    )
    routing_blocks: Layers = Field(1, description="successive blocks that share a routing, with granularity block")
    relaxed_bernoulli: bool = Field(False, description="sample the routing while training, as Polytropon and SuperNI do")
    temperature: Rate = Field(1.0, description="of the relaxed Bernoulli")
    straight_through: bool = Field(False, description="round the sampled gates to 0 or 1, keeping their gradient")
    uniform_steps: NonNegative = Field(0, description="last steps in which the learned routing fades into the uniform one")
    window: Batch = Field(
        1,
        description="micro-batches whose examples are drawn together and sorted by input length, then target length;"
        " 1 draws each for itself",
    )
    balance: Literal["rows", "tokens"] = Field(
        "rows", description="cut a window into micro-batches of batch_size examples, or of about equally many padded tokens"
    )
    log_every: Positive = Field(50, description="steps between lines of the log")
    validate_examples: NonNegative = Field(10, description="validation examples a training task for the final loss by task")
    validate_every: NonNegative = added(
        0, description="steps between validations by the same loss, into the log; 0 for none before the end"
    )
    keep: Literal["last", "best"] = added(
        "last",
        description="the step to keep: the last, or of those that are validated, the last among them, the one of least loss",
    )
    options: dict[str, Any] = added({}, description="the method's own settings, such as mosa's copies; see docs/methods.md")
    test_tasks: bool = added(
        False,
        description="adapter_soup: train an adapter of its own for each test task too, on its examples outside of its test"
        " split, with as many steps as for a training task; see docs/pools.md",
    )
    under: str | None = added(
        None, description="a cell, such as lora-s100, whose single adapter is frozen under what is trained; see docs/stacks.md"
    )
    pool: str | None = added(
        None, description="a cell of adapter_soup, of whose LoRAs the skills are at the beginning; see docs/pools.md"
    )
    pool_by: Literal["useful", "clusters"] = added(
        "useful",
        description="which of the pool's: those under which the losses of the training tasks are least, or one of each cluster"
        " of similar updates",
    )
    loras: list[Annotated[str, Field(min_length=1)]] = added(
        [],
        description="adapter_soup: LoRAs that others trained, taken in place of training: folders, lists (.jsonl), or"
        " owner/name@revision on the hub; see docs/pools.md",
    )
    align_every: NonNegative = Field(0, description="steps between measurements of gradient alignment; 0 for none")
    align_tasks: Annotated[int, Field(ge=2, le=MAX_COUNT)] = Field(16, description="training tasks drawn for it")
    align_examples: Positive = Field(16, description="training examples of each")

    @model_validator(mode="after")
    def _routing_options_fit(self) -> PretrainParams:
        if self.routing_blocks > 1 and self.granularity != "block":
            said = f"routing_blocks {self.routing_blocks} needs granularity block, not {self.granularity}"
            raise SettingError(said, "routing_blocks")
        if self.straight_through and not self.relaxed_bernoulli:
            raise SettingError("straight_through rounds sampled gates: it needs relaxed_bernoulli", "straight_through")
        if self.uniform_steps > self.steps:
            raise SettingError(f"uniform_steps {self.uniform_steps} is more than steps {self.steps}", "uniform_steps")
        return self

    @model_validator(mode="after")
    def _what_is_validated_is_there(self) -> PretrainParams:
        if self.keep == "best" and not self.validate_every:
            raise SettingError("keep best chooses among validated steps: it needs validate_every, such as 5000", "keep")
        if self.validate_every and not self.validate_examples:
            said = f"validate_every {self.validate_every} needs validate_examples of 1 or more, not 0"
            raise SettingError(said, "validate_examples")
        return self

    @model_validator(mode="after")
    def _adapters_of_others_fit(self) -> PretrainParams:
        if self.under and self.pool:
            raise SettingError("skills of a pool are trained with nothing under them: leave out `pool` or `under`", "under")
        if self.under and self.align_every:
            raise SettingError("align_every measures an adapter with nothing under it; leave it out", "align_every")
        if self.pool and self.pool_by == "useful" and not self.validate_examples:
            said = "pool_by useful tries the pool on validation examples: it needs validate_examples of 1 or more"
            raise SettingError(said, "validate_examples")
        if self.pool is None and self.pool_by != "useful":
            raise SettingError(f"pool_by {self.pool_by} chooses of a pool; name one with `pool`", "pool_by")
        return self

    @model_validator(mode="after")
    def _nothing_is_trained_beside_loras(self) -> PretrainParams:
        for key in ("test_tasks", "under", "pool"):
            if self.loras and getattr(self, key):
                raise SettingError(f"loras are taken as they are, and {key} says how to train some; leave one out", key)
        return self

    @model_validator(mode="after")
    def _balance_has_a_window(self) -> PretrainParams:
        if self.balance == "tokens" and self.window == 1:
            raise SettingError("balance tokens needs a window of two or more micro-batches, such as window 8", "balance")
        return self


class IndexParams(Closed):
    """The section sets the index of training tasks by their inputs, for soups and routers."""

    encoder: str = Field("tfidf", description="`tfidf` (needs no model), or a sentence-transformers model: hub id or folder")
    revision: str = Field("main", description="revision of an encoder from the hub")
    examples: Positive = Field(100, description="training inputs of a task at most")

    @model_validator(mode="after")
    def _the_revision_is_of_the_hub(self) -> IndexParams:
        if self.revision != "main" and (self.encoder == "tfidf" or self.encoder.startswith((".", "/"))):
            raise SettingError(
                f"encoder {self.encoder} has no `revision`, which only a model of the hub has; leave it out", "revision"
            )
        return self


class AdaptParams(OptimisationParams):
    """The section sets the few-shot adaptation to each test task."""

    shots: Shots | None = Field(description="training examples a test task; null takes a seed's whole few-shot set (t0)")
    validation: Shots = Field(100, description="validation examples a test task, where they are held out")
    validate_on: Literal["held_out", "test"] = Field(
        "held_out", description="what chooses the best step: examples held out, or the test split itself (the paper's T0)"
    )
    evaluate_every: Positive = Field(description="steps (or epochs) between validations; the best is kept")
    evaluate_unit: Literal["steps", "epochs"] = Field(
        "steps", description="of `evaluate_every`; an epoch is as many whole batches as a task's training examples fill"
    )
    epoch_steps: dict[str, Positive] = Field({}, description="{task: steps of an epoch} where that is another number")
    keep_start: bool = Field(True, description="whether the start itself can be the best step")
    keep_last: bool = added(
        True, description="whether the last step can be where `evaluate_every` does not meet it; of epochs it never can"
    )
    patience: Positive | None = Field(
        None, description="validations in a row without a better score after which a task stops; null trains all steps"
    )
    select: Literal["task_metric", "loss"] = Field("task_metric", description="validation score that chooses the best step")
    beams: Beams = Field(1, description="beams when validating by the task's metric")
    max_new_tokens: Tokens = Field(128, description="longest prediction when validating by the task's metric")
    soup_size: Positive = Field(5, description="adapter_soup and merges: training tasks whose adapters become one, at most")
    soup_min_cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.15, description="adapter_soup and merges: their least similarity (the best one always counts)"
    )
    soup_by: Literal["inputs", "loss", "name"] = added(
        "inputs",
        description="adapter_soup and merges: the adapters that become one are those of the tasks whose inputs are the most"
        " similar, those with the least loss on the shots, of which there are `soup_size`, or the one of the test task's name",
    )
    leave_out: Literal["nothing", "adapter", "examples"] = added(
        "nothing",
        description="of a pool: nothing, the adapter of the test task's own name, or that and the test task's examples, which"
        " then choose nothing",
    )
    options: dict[str, Any] = added(
        {}, description="the method's own settings, such as the density of ties; see docs/methods.md"
    )
    under: str | None = added(
        None, description="as pretrain.under, of the adaptation; null for what pre-training has; see docs/stacks.md"
    )

    @model_validator(mode="after")
    def _an_adapter_of_a_name_is_not_left_out(self) -> AdaptParams:
        if self.soup_by == "name" and self.leave_out != "nothing":
            raise SettingError(f"leave_out {self.leave_out}: soup_by name takes the adapter that this leaves out", "leave_out")
        return self


class EvaluateParams(Closed):
    """The section sets the scoring of the test splits."""

    beams: Beams = Field(1, description="beams of the generation")
    length_norm: Fraction = Field(1.0, description="exponent of the length that choice scores are divided by")
    max_new_tokens: Tokens = Field(128, description="longest prediction")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the backbone")
    under: str | None = added(
        None, description="a cell whose adapter takes the place of what lay under in training; see docs/stacks.md"
    )


class ReportParams(Closed):
    """The section says what the report stage writes."""

    tables: Annotated[list[Literal[1, 2, 3, 4, 5, 6, "pool"]], Once] = Field(
        [1, 2], description="the paper's tables to write, and `pool`: whether adapters are to be trained apart or together"
    )
    trials: Literal["by_task", "overall"] = Field(
        "by_task", description="of a search: the trial that is best in validation for each test task, or on the mean over tasks"
    )
    claims: bool = added(False, description="write whether the paper's claims hold; wants `data/report/claims.md` in dvc.yaml")
    margin: Annotated[float, Field(gt=0)] = added(
        1.0, description="points of score by which two methods may differ and still count as equal, where claims say so"
    )


class RunParams(Closed):
    """The section says how `mhrctl run` shares a machine among stages; it changes no result and no stage depends on it."""

    slots: dict[
        Literal["prepare", "backbone", "pretrain", "average", "index", "adapt", "evaluate", "report"],
        Annotated[float, Field(gt=0, le=10_000)],
    ] = Field({}, description="{stage: slots that one of its jobs takes}, such as GPUs or parts of one; 1 if not said")
