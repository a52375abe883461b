"""What a cell will take, reckoned from shapes before anything runs: disk for its outputs, memory for its training.

Memory counts what can be counted: the weights, and what is trained with its gradients and optimizer state. Activations come on
top; they depend on lengths and on the attention's implementation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhrctl.config.cells import Cell, CellParams
from mhrctl.config.params import BackboneParams, OptimisationParams, PretrainParams
from mhrctl.errors import DataError, ParamsError
from mhrctl.models.speed import Speed
from mhrctl.suites.task import TaskCounts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FP32 = 4
BYTES = {"fp32": 4, "bf16": 2}
"""Of a number of the frozen backbone; what is trained is fp32."""
SLOTS = {"adamw": 2, "adafactor": 1}
"""Numbers that an optimizer keeps for each trained one; Adafactor's rows and columns are at most as many."""
T5_BUCKETS = 32
T5_TYPES = ("t5", "mt5")
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
    """A backbone by its sizes.

    Attributes:
        linears: {layer name: (d_in, d_out)} of its linear layers, in its order.
        weights: numbers in all.
    """

    linears: Mapping[str, tuple[int, int]]
    weights: int


@dataclass(frozen=True)
class Estimate:
    """What a cell takes, in bytes.

    Attributes:
        outputs: {(stage, cell): on disk}, of every output that the cell needs; cells share some of them.
        checkpoint: on disk while pre-training.
        memory: at the most, without activations.
    """

    outputs: Mapping[tuple[str, str], int]
    checkpoint: int
    memory: int

    @property
    def disk(self) -> int:
        """All outputs together."""
        return sum(self.outputs.values())


def estimate(params: CellParams, shape: Shape, tasks: TaskCounts) -> Estimate:
    """Reckon what a cell takes.

    Args:
        params: the resolved cell.
        shape: of the backbone.
        tasks: of the suite.

    Raises:
        ParamsError: if a target is no layer, or the heads do not divide a layer.
    """
    cell = params.cell
    before = _pretrained(cell, params.pretrain, shape, tasks)
    lora = _lora(params.pretrain, shape)
    single = lora if cell.row.start in ("average", "soup", "new_lora") else before.skills
    outputs = {("pretrain", cell.pretrain_cell.name): FP32 * before.file}
    if cell.origin[0] == "average":
        outputs["average", cell.pretrain_cell.name] = FP32 * lora
    trained, adapted = before.together, 0
    if cell.extra_steps:
        outputs["pretrain", cell.name] = FP32 * single
        trained = single
    else:
        own, shared = _adapted(cell, params.pretrain, shape, single)
        outputs["adapt", cell.name] = FP32 * (own * tasks.test + shared)
        adapted = own * (1 if _one_by_one(cell) else min(tasks.test, Speed.together)) + shared
    checkpoint = FP32 * (1 + SLOTS[params.pretrain.optimizer]) * trained
    memory = max(_memory(params.pretrain, shape, trained), _memory(params.adapt, shape, adapted))
    return Estimate(outputs, checkpoint, memory)


def _memory(params: OptimisationParams, shape: Shape, trained: int) -> int:
    """Bytes of the frozen weights and of what is trained: the number, its gradient, and what the optimizer keeps."""
    return BYTES[params.precision] * shape.weights + FP32 * (2 + SLOTS[params.optimizer]) * trained


@dataclass(frozen=True)
class _Pretrained:
    """Numbers of a pre-training: of one adapter without its routing, in its file, and trained at once."""

    skills: int
    file: int
    together: int


def _pretrained(cell: Cell, params: PretrainParams, shape: Shape, tasks: TaskCounts) -> _Pretrained:
    row = cell.row
    if row.adapter == "weights":
        return _Pretrained(shape.weights, shape.weights, shape.weights)
    if row.adapter == "ia3":
        vectors = sum(d_out for _, d_out in _adapted_layers(params, shape).values())
        return _Pretrained(vectors, vectors, vectors)
    skills, routing = _inventory(cell, params, shape, tasks=tasks.training)
    if row.routing == "private":
        return _Pretrained(skills, skills * tasks.datasets, skills * min(tasks.datasets, Speed.together))
    return _Pretrained(skills, skills + routing, skills + routing)


def _adapted(cell: Cell, params: PretrainParams, shape: Shape, single: int) -> tuple[int, int]:
    """Numbers of an adapted task of its own, and those that all tasks share."""
    row = cell.row
    if row.adapter == "lora" and row.routing == "learned" and row.start == "pretrain":
        skills, routing = _inventory(cell, params, shape, tasks=1)
        return (routing, skills) if row.trains == "routing" else (skills + routing, 0)
    return single, 0


def _one_by_one(cell: Cell) -> bool:
    """Whether a batch has the weights of one task only."""
    return cell.row.adapter == "weights" and cell.row.start == "pretrain"


def _inventory(cell: Cell, params: PretrainParams, shape: Shape, *, tasks: int) -> tuple[int, int]:
    """Numbers of a method's skills, and of its routing."""
    import torch

    from mhrctl.adapters.adapter import trainable
    from mhrctl.adapters.inventory import Inventory

    routed = cell.row.routing in ("learned", "random")
    try:
        with torch.device("meta"):
            inventory = Inventory(
                _adapted_layers(params, shape),
                heads=cell.heads,
                skills=params.skills if routed else 1,
                rank=params.rank,
                tasks=tasks,
                routing="random" if cell.row.routing == "random" else "learned",
                granularity=params.granularity,
                routing_blocks=params.routing_blocks,
            )
    except ValueError as error:
        raise ParamsError(f"cell {cell.name}: {error}; choose heads that divide every adapted layer") from None
    return trainable(inventory.skill_parameters()), trainable(inventory.routing_parameters())


def _lora(params: PretrainParams, shape: Shape) -> int:
    return params.rank * sum(d_in + d_out for d_in, d_out in _adapted_layers(params, shape).values())


def _adapted_layers(params: PretrainParams, shape: Shape) -> dict[str, tuple[int, int]]:
    from mhrctl.models.attach import find_layers

    return find_layers(shape.linears, params.targets)


def backbone_shape(params: BackboneParams, root: Path, vocab_size: int) -> Shape | None:
    """The sizes of a backbone, from params.yaml, a folder's config, a config in the hub's cache, or a well-known name.

    Args:
        params: the section of params.yaml.
        root: what a relative folder is relative to.
        vocab_size: of the tokenizer; a scratch backbone has as many entries.

    Returns:
        None if the config is not at hand and the name says nothing.

    Raises:
        DataError: if a local backbone has no config, or it is no encoder-decoder's.
    """
    if params.source == "scratch":
        own = params.scratch
        sizes = {"d_model": own.d_model, "d_ff": own.d_ff, "d_kv": own.d_kv, "num_layers": own.layers}
        return t5_shape({**sizes, "num_heads": own.attention_heads, "vocab_size": vocab_size, **_GATED_AND_TIED})
    path = root / str(params.name) / "config.json" if params.source == "local" else _cached(params)
    if path is None:
        return _known_shape(str(params.name))
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no config of a backbone can be read: {error}; set backbone.name to its folder") from None
    if config.get("model_type") in T5_TYPES:
        return t5_shape(config)
    from mhrctl.models.backbones import pretrained_config, shape_model

    return _model_shape(shape_model(pretrained_config(str(path.parent))))


def _known_shape(name: str) -> Shape | None:
    """The sizes of a backbone on the hub whose name tells them."""
    if name not in WELL_KNOWN:
        return None
    from mhrctl.models.backbones import sized_model

    return _model_shape(sized_model(WELL_KNOWN[name]))


def _model_shape(model: PreTrainedModel) -> Shape:
    from mhrctl.models.attach import linear_shapes

    return Shape(linear_shapes(model), model.num_parameters())


_GATED_AND_TIED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": True}


def _cached(params: BackboneParams) -> Path | None:
    """The config of a backbone on the hub, if it was fetched before; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(str(params.name), "config.json", revision=params.revision)
    return Path(found) if isinstance(found, str) else None


def t5_shape(config: Mapping[str, Any]) -> Shape:
    """The sizes of a T5 by its config, without torch: names and order are those of transformers."""
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
    """Bytes as people read them: `940 B`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
