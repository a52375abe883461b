"""A cell's needs are estimated from shapes before anything runs: disk for its outputs, memory for its training.

Memory counts the weights, and what is trained with its gradients and optimizer state. What a batch leaves behind for the
backward pass is estimated by the inputs and outputs of the linear layers: it depends on the attention's implementation too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhrctl.config.cells import CellParams
from mhrctl.config.methods import Method
from mhrctl.config.sections import QUANTISERS, BackboneParams, OptimisationParams, QuantisationName
from mhrctl.config.tasks import SCRATCH_FRAMINGS, FramingName
from mhrctl.data.loading import json_object
from mhrctl.errors import DataError, ParamsError, in_section
from mhrctl.models.layouts import LAYOUTS, layers_of, require_experts, unreachable_experts
from mhrctl.models.speed import Speed
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.operations import NOTHING, Lengths, Side, sides

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from mhrctl.adapters.adapter import Adapter

FP32 = 4
BYTES = {"fp32": 4, "bf16": 2}
"""Of a number of the frozen backbone; what is trained is fp32."""
SLOTS = {"adamw": 2, "adafactor": 1}
"""Numbers that an optimizer keeps for each trained one; Adafactor's rows and columns are at most as many."""
T5_BUCKETS = 32
T5_TYPES = ("t5", "mt5")
T5_DEFAULTS = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 6, "vocab_size": 32128}
"""Sizes that a config.json may leave out."""
DEEPEST, LARGEST = 1000, 10_000_000
"""Blocks, and other sizes, that no model has more of."""
WELL_KNOWN = {
    **{
        f"google/{name}": f"t5-{size}"
        for size in ("small", "base", "large", "xl", "xxl")
        for name in (f"t5-v1_1-{size}", f"t5-{size}-lm-adapt", f"flan-t5-{size}")
    },
    "bigscience/T0_3B": "t5-xl",
    **{f"bigscience/{name}": "t5-xxl" for name in ("T0", "T0p", "T0pp", "T0_original_task_only", "T0_single_prompt")},
}
"""{hub id: its size in `models.backbones.T5_SIZES`} of T5 v1.1 and its descendants; T5's first version has other sizes."""


@dataclass(frozen=True)
class Shape:
    """A shape is a backbone by its sizes.

    Attributes:
        linears: {layer name: (d_in, d_out)} of its linear layers, in its order.
        weights: numbers in all.
        experts: of a layer of a mixture, which are no linear layers.
        quantisation: of the linear layers' weights.
    """

    linears: Mapping[str, tuple[int, int]]
    weights: int
    experts: int = 0
    quantisation: QuantisationName | None = None

    def size(self, number: int) -> int:
        """Return the bytes of the weights.

        Args:
            number: bytes of one that is not quantised.
        """
        if self.quantisation is None:
            return number * self.weights
        quantised = sum(self.linears[name][0] * self.linears[name][1] for name in layers_of("full", self.linears))
        return number * (self.weights - quantised) + int(QUANTISERS[self.quantisation].bits / 8 * quantised)


@dataclass(frozen=True)
class Estimate:
    """An estimate is what a cell takes, in bytes.

    Attributes:
        outputs: {(stage, cell): on disk}, of every output that the cell needs; cells share some of them.
        checkpoint: those on disk while pre-training, at the most.
        memory: at the most.
    """

    outputs: Mapping[tuple[str, str], int]
    checkpoint: int
    memory: int

    @property
    def disk(self) -> int:
        """All outputs together."""
        return sum(self.outputs.values())


def estimate(
    params: CellParams, shape: Shape, tasks: TaskCounts, longest: Lengths = NOTHING, together: int = Speed.together
) -> Estimate:
    """Estimate what a cell takes, from its adapters made without storage.

    Args:
        params: the resolved cell.
        shape: of the backbone.
        tasks: of the suite.
        longest: input and target, with which a batch takes most memory; none leaves activations out.
        together: tasks in one batch.

    Raises:
        ParamsError: if a target is no layer, a layout passes over experts, or the heads do not divide a layer.
    """
    import torch

    from mhrctl.adapters.build import adapter_class
    from mhrctl.models.attach import shape_adapters
    from mhrctl.training.checkpoint import COPIES

    cell, row = params.cell, params.cell.row
    imported = len(params.pretrain.loras)  # at least, since a folder may hold many
    of_each = imported or tasks.datasets + tasks.test * params.pretrain.test_tasks
    rows = max(1, of_each if row.is_private else tasks.training)
    try:
        with in_section("pretrain"):
            if row.adds_lora or not adapter_class(row).replaces_weights:
                require_experts(params.pretrain.targets, shape.experts)
            before, start = shape_adapters(row, params.pretrain, shape.linears, shape.weights, heads=cell.heads, tasks=rows)
    except ValueError as error:
        raise ParamsError(f"cell {cell.name}: {error}") from None
    outputs = {("pretrain", cell.pretrain_cell.name): _file(before)}
    if cell.origin[0] == "average":
        outputs["average", cell.pretrain_cell.name] = _file(start)
    at_once = min(before.runs, together)
    trained, memory = _trained(before) // before.runs * at_once, 0
    if cell.extra_steps:
        outputs["pretrain", cell.name] = _file(start)
        trained, at_once = _trained(start), 1
    elif row.routes_queries:
        outputs["adapt", cell.name] = _routes(row, tasks)
    else:
        with torch.device("meta"):
            after = start.for_new_tasks([0] * tasks.test, train_skills=row.trains == "adapter")
        outputs["adapt", cell.name] = _file(after)
        beside = 1 if after.replaces_weights else min(tasks.test, together)
        adapted = _numbers(after) - _trained(after) + _trained(after) // tasks.test * beside
        memory = _memory(params.adapt, shape, adapted, longest, beside)
    if imported:
        return Estimate(outputs, 0, max(memory, shape.size(BYTES[params.adapt.precision])))
    numbers = 1 + SLOTS[params.pretrain.optimizer] + (params.pretrain.keep == "best")
    checkpoint = COPIES * FP32 * numbers * trained
    return Estimate(outputs, checkpoint, max(memory, _memory(params.pretrain, shape, trained, longest, at_once)))


def heads_divide(params: CellParams, shape: Shape) -> bool:
    """Return whether the heads of a cell divide each layer that it adapts, without torch where its targets are a layout.

    Raises:
        ParamsError: if a target is no layer.
    """
    targets = params.pretrain.targets
    if isinstance(targets, str) and targets in LAYOUTS:
        with in_section("pretrain"):
            layers = layers_of(targets, shape.linears)
    else:
        from mhrctl.models.attach import find_layers

        with in_section("pretrain"):
            layers = list(find_layers(shape.linears, targets))
    return not any(width % params.cell.heads for name in layers for width in shape.linears[name])


def _memory(params: OptimisationParams, shape: Shape, trained: int, longest: Lengths, at_once: int) -> int:
    """Bytes of the frozen weights, of what is trained (the number, its gradient, what the optimizer keeps) and of a batch."""
    rows, size = params.batch_size * at_once, BYTES[params.precision]
    return shape.size(size) + FP32 * (2 + SLOTS[params.optimizer]) * trained + rows * size * activations(shape, longest)


def activations(shape: Shape, longest: Lengths) -> int:
    """Return the numbers that an example leaves behind for its backward pass: what goes into linear layers and comes out."""
    targets, both = longest.targets, longest.inputs + longest.targets
    tokens: dict[Side, float] = {"inputs": longest.inputs, "targets": targets, "both": both, "output": targets}
    sizes = ((side, shape.linears[name]) for name, side in sides(shape.linears).items())
    return round(sum(tokens[side] * (d_in + d_out) for side, (d_in, d_out) in sizes))


def _routes(row: Method, tasks: TaskCounts) -> int:
    """Bytes of what a router needs, with vectors of TF-IDF, which are the longest, and places of adapters."""
    from mhrctl.data.similarity import FEATURES

    rows = tasks.datasets + (tasks.test if row.compares == "tasks" else 0)
    return FP32 * FEATURES * (rows + 1) + 2 * FP32 * (tasks.test + 1) * rows


def _file(adapter: Adapter) -> int:
    """Bytes of the tensors of an adapter's file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in adapter.tensors().values())


def _numbers(adapter: Adapter) -> int:
    return sum(parameter.numel() for parameter in adapter.parameters())


def _trained(adapter: Adapter) -> int:
    return sum(parameter.numel() for parameter in adapter.parameters() if parameter.requires_grad)


def backbone_shape(params: BackboneParams, root: Path, vocab_size: int) -> Shape | None:
    """Return the sizes of a backbone, from params.yaml, a folder's config, a config in the hub's cache, or a well-known name.

    Args:
        params: the section of params.yaml.
        root: what a relative folder is relative to.
        vocab_size: of the tokenizer; a scratch backbone has as many entries.

    Returns:
        None if the config is not at hand and the name says nothing.

    Raises:
        DataError: if a local backbone has no config, or it is of no backbone.
    """
    shape = _whole_shape(params, root, vocab_size)
    return None if shape is None else replace(shape, quantisation=params.quantisation)


def _whole_shape(params: BackboneParams, root: Path, vocab_size: int) -> Shape | None:
    """The sizes of a backbone that is not quantised."""
    if params.source == "scratch":
        scratch = params.scratch
        if scratch.architecture == "llama":
            from mhrctl.models.backbones import shape_model
            from mhrctl.stages.backbone import causal_config

            return _model_shape(shape_model(causal_config(scratch, vocab_size)))
        sizes = {"d_model": scratch.d_model, "d_ff": scratch.d_ff, "d_kv": scratch.d_kv, "num_layers": scratch.layers}
        return t5_shape({**sizes, "num_heads": scratch.attention_heads, "vocab_size": vocab_size, **_GATED_AND_TIED})
    where = f"backbone.name {params.name!r}"
    if (of_gguf := config_of_gguf(params, root)) is not None:
        from mhrctl.models.backbones import shape_model

        return _model_shape(shape_model(of_gguf, where=where))
    folder = config_folder(params, root)
    if folder is None:
        return _known_shape(str(params.name))
    says = json_object(folder / "config.json")
    if says.get("model_type") in T5_TYPES:  # which need not be built to be counted
        return t5_shape(_t5_sizes(says, folder / "config.json"))
    from mhrctl.models.backbones import pretrained_config, shape_model

    return _model_shape(shape_model(pretrained_config(str(folder), name=params.name), where=where))


def framing_needed(params: BackboneParams, root: Path) -> FramingName | None:
    """Return how examples must be framed for a backbone; None if its config is not at hand and its name says nothing.

    Args:
        params: the section of params.yaml.
        root: what a relative folder is relative to.

    Raises:
        DataError: if a local backbone has no config, or it is of no backbone.
    """
    if params.source == "scratch":
        return SCRATCH_FRAMINGS[params.scratch.architecture]
    if (of_gguf := config_of_gguf(params, root)) is not None:
        from mhrctl.models.backbones import framing_of

        return framing_of(of_gguf)
    folder = config_folder(params, root)
    if folder is None:
        return "encoder_decoder" if params.name in WELL_KNOWN else None
    return framing_in(folder, str(params.name))


def framing_in(folder: Path, name: str) -> FramingName:
    """Return how examples must be framed for a backbone by its config.

    Args:
        folder: with config.json.
        name: what params.yaml calls the backbone, for the error.

    Raises:
        DataError: if the config is of no backbone.
    """
    if json_object(folder / "config.json").get("model_type") in T5_TYPES:
        return "encoder_decoder"
    from mhrctl.models.backbones import framing_of, pretrained_config

    return framing_of(pretrained_config(str(folder), name=name))


def _t5_sizes(says: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a T5's config.json says, with the sizes that it leaves out.

    Raises:
        DataError: if a size is none that a model has.
    """
    sizes = T5_DEFAULTS | {name: value for name, value in says.items() if value is not None}
    for name in (*T5_DEFAULTS, "num_decoder_layers"):
        most = DEEPEST if name.endswith("layers") else LARGEST
        if name in sizes and not (type(sizes[name]) is int and 0 < sizes[name] <= most):
            raise DataError(f"{path}: {name} {sizes[name]!r}: must be a whole number from 1 to {most}")
    return sizes


def config_folder(params: BackboneParams, root: Path) -> Path | None:
    """Return the folder that has the config of a backbone; None if it is trained here, or not in the hub's cache yet.

    Raises:
        DataError: if a local backbone has none.
    """
    if params.gguf is not None:  # which has its config within
        return None
    if params.source == "local":
        folder = root / str(params.name)
        if not (folder / "config.json").is_file():
            raise DataError(
                f"{folder / 'config.json'}: no config of a backbone can be read: there is none; set backbone.name to its folder"
            )
        return folder
    cached = _cached(params) if params.source == "hub" else None
    return cached.parent if cached else None


def config_of_gguf(params: BackboneParams, root: Path) -> PretrainedConfig | None:
    """Read the config of a backbone out of its GGUF file; None if it has none at hand, or nothing that reads it is installed.

    Raises:
        DataError: if a local backbone has no such file, or its config is of no backbone.
    """
    if params.gguf is None or params.source != "local":
        return None
    from mhrctl.models.gguf import gguf_config, require_file

    require_file(root / str(params.name), params.gguf)
    return gguf_config(root / str(params.name), params.gguf) if find_spec("gguf") else None


def _known_shape(name: str) -> Shape | None:
    """The sizes of a backbone on the hub whose name says them."""
    if name not in WELL_KNOWN:
        return None
    from mhrctl.models.backbones import sized_model

    return _model_shape(sized_model(WELL_KNOWN[name]))


def _model_shape(model: PreTrainedModel) -> Shape:
    from mhrctl.models.attach import linear_shapes

    linears = linear_shapes(model)
    return Shape(linears, model.num_parameters(), unreachable_experts(model.config, linears))


_GATED_AND_TIED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": True}


def _cached(params: BackboneParams) -> Path | None:
    """The config of a backbone on the hub, if it was fetched before; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(str(params.name), "config.json", revision=params.revision)
    return Path(cached) if isinstance(cached, str) else None


def t5_shape(config: Mapping[str, Any]) -> Shape:
    """Return the sizes of a T5 by its config, without torch: names and order are those of transformers."""
    width, inner, ff = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    attention = {"q": (width, inner), "k": (width, inner), "v": (width, inner), "o": (inner, width)}
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    names = ("wi_0", "wi_1") if gated else ("wi",)
    dense = {**dict.fromkeys(names, (width, ff)), "wo": (ff, width)}
    encoder = (("SelfAttention", attention), ("DenseReluDense", dense))
    decoder = (("SelfAttention", attention), ("EncDecAttention", attention), ("DenseReluDense", dense))
    blocks = config["num_layers"], config.get("num_decoder_layers") or config["num_layers"]
    linears: dict[str, tuple[int, int]] = {}
    norms = 0
    for coder, sublayers, number in (("encoder", encoder, blocks[0]), ("decoder", decoder, blocks[1])):
        norms += number * len(sublayers) + 1
        for block in range(number):
            for place, (module, layers) in enumerate(sublayers):
                stem = f"{coder}.block.{block}.layer.{place}.{module}"
                linears |= {f"{stem}.{name}": size for name, size in layers.items()}
    embedding = config["vocab_size"] * width
    weights = sum(d_in * d_out for d_in, d_out in linears.values()) + embedding + norms * width
    weights += 2 * config.get("relative_attention_num_buckets", T5_BUCKETS) * config["num_heads"]
    if not config.get("tie_word_embeddings", True):
        weights += embedding
    return Shape({**linears, "lm_head": (width, config["vocab_size"])}, weights)


def human_size(size: float) -> str:
    """Write bytes as people read them: `940 B`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
