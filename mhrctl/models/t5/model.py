"""T5 with adapters runs faster here: the mathematics is that of transformers' model over the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, T5ForConditionalGeneration

from mhrctl.models.layer import AdaptedLinear
from mhrctl.models.sharding import with_weights
from mhrctl.models.t5 import pointwise, regions
from mhrctl.models.t5.attention import attend, cross_attention_masks, self_attention_masks
from mhrctl.models.t5.blocks import Attention, FeedForward, Layer, Sizes, run_block
from mhrctl.models.t5.functions import gated_project, project, rms_norm, token_losses
from mhrctl.models.t5.packing import Packing, Plan, Stream, input_sizes, target_sizes
from mhrctl.models.t5.pointwise import Pointwise
from mhrctl.models.t5.segments import Segments

PAYS = 2**16
"""Padding tokens times d_model from which on leaving them out saves more than it costs, as measured on CPU."""
Lengths = tuple[Sequence[int], Sequence[int]]
"""Tokens of each input, and of each label row."""


class FastT5:
    """This model is the forward of a frozen T5 with adapters attached, for training and scoring.

    It reads the weights where transformers' model has them and copies nothing, so it follows that model's device, dtype
    and training mode. Padding is left out of all products; inputs are encoded, and projected to keys and values, once for
    all their targets; projections of one input share one low-rank product; norms and gated activations are made
    again in backward. Dropout is that of transformers, with other random numbers.

    Attributes:
        backbone: the transformers model, injected or not.
        packed: whether padding is left out; None leaves it out where that pays.
        checkpointing: whether only the inputs of blocks are kept for backward, in which blocks are then run again.
        compiled: whether what lies between attentions is compiled.
        trains: False where the adapters' inputs have dropout, which this forward has not.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        packed: bool | None = None,
        checkpointing: bool = False,
        compiled: bool = False,
    ) -> None:
        """Look at a model, after its layers were injected.

        Raises:
            ValueError: if the model has an `unsupported_reason`.
        """
        reason = unsupported_reason(backbone)
        if reason or not isinstance(backbone, T5ForConditionalGeneration):
            raise ValueError(reason)
        self.backbone, self.packed, self.checkpointing = backbone, packed, checkpointing
        self.compiled = compiled
        layers = {name: module for name, module in backbone.named_modules() if hasattr(module, "in_features")}
        self._names = layers.keys() - {"lm_head"}  # which the losses read as it is
        self.trains = not any(layer.dropout for layer in layers.values() if isinstance(layer, AdaptedLinear))

    def token_losses(
        self,
        slots: Mapping[str, Tensor],
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        labels: Tensor,
        label_smoothing: float = 0.0,
        lengths: Lengths | None = None,
    ) -> Tensor:
        """Compute the cross-entropy of each target token, as `mhrctl.models.losses.token_losses` of transformers' logits.

        Args:
            slots: what the adapters give (see `mhrctl.models.layer.AdaptedLinear`), in any dtype; n groups of equally many
                rows each.
            input_ids: [rows, length].
            attention_mask: [rows, length], ones followed by zeros.
            decoder_input_ids: [rows * c, target length], c successive rows for each input.
            labels: likewise; -100 is not counted.
            label_smoothing: part of the target mass that is spread over the vocabulary.
            lengths: tokens of each input and of each label row, where they are known; it spares the wait for a device.

        Returns:
            [rows * c, target length], in fp32; 0 where the label is -100.
        """
        inputs, targets = lengths or (input_sizes(attention_mask), target_sizes(labels))
        packing = self._packing(inputs, targets, (attention_mask.shape[1], labels.shape[1]))
        states = self._states(slots, packing, input_ids, decoder_input_ids)
        losses = token_losses(states, self.backbone.lm_head.weight, packing.targets.take(labels), label_smoothing)
        return packing.targets.put(losses, labels)

    def _packing(self, inputs: Sequence[int], targets: Sequence[int], widths: tuple[int, int]) -> Packing:
        config = self.backbone.config
        padding = len(inputs) * widths[0] + len(targets) * widths[1] - sum(inputs) - sum(targets)
        packed = padding * config.d_model >= PAYS if self.packed is None else self.packed
        inner, device = config.num_heads * config.d_kv, self.backbone.shared.weight.device
        return Packing.of(inputs, targets, widths=widths, inner=inner, packed=packed, device=device)

    def _states(self, slots: Mapping[str, Tensor], packing: Packing, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """What the output layer reads, [target tokens, d_model]."""
        model = self.backbone
        if model.training and not self.trains:
            raise ValueError("this forward has no dropout of the adapters' inputs")
        if unknown := sorted({name.rpartition(".")[0] for name in slots} - self._names):
            raise ValueError(f"{unknown[0]} is no layer of the model that this forward adapts")
        dtype = model.shared.weight.dtype
        cast = {name: slot.to(dtype) for name, slot in slots.items()}
        encoder, decoder = (self._pass(cast, stream) for stream in (packing.inputs, packing.targets))
        ids, target_ids = packing.inputs.take(input_ids), packing.targets.take(decoder_input_ids)
        encoded = encoder.stack("encoder", model.encoder, ids, packing.encoder)
        masks = cross_attention_masks(packing.cross, dtype)
        states = decoder.stack(
            "decoder", model.decoder, target_ids, packing.decoder, _Inputs(encoder, encoded, packing.cross, masks)
        )
        # T5 scales them where the output layer is the embedding; transformers keeps whether it does apart from the tie itself.
        return states * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else states

    def _pass(self, slots: Mapping[str, Tensor], stream: Stream) -> _Pass:
        weight = self.backbone.shared.weight
        groups = len(next(iter(slots.values()))) if slots else 1  # all slots have one group a routing row of the batch
        segments = Segments.of(stream, groups, width=weight.shape[1], dtype=weight.dtype, device=weight.device)
        return self.over(slots, segments)

    def over(self, slots: Mapping[str, Tensor], segments: Segments) -> _Pass:
        """Return what runs stacks over the tokens of a stream.

        Args:
            slots: of the adapters, in the backbone's dtype.
            segments: the groups of the stream.
        """
        model = self.backbone
        dropout = model.config.dropout_rate if model.training else 0.0
        return _Pass(
            slots,
            segments,
            model.config.num_heads,
            model.config.layer_norm_epsilon,
            dropout,
            self.compiled,
            self.checkpointing,
        )


@dataclass(frozen=True)
class _Inputs:
    """What a decoder attends to.

    Attributes:
        stream: the pass of the encoder.
        encoded: [input tokens, d_model].
        plan: of the attention.
        masks: for each block of the plan.
    """

    stream: _Pass
    encoded: Tensor
    plan: Plan
    masks: list[Tensor | None]


@dataclass(frozen=True)
class _Pass:
    """A stream of tokens on its way through a stack.

    Layers are those of transformers; `place` is a layer's name in the model, by which it finds its adapters.

    Attributes:
        slots: of the adapters, in the backbone's dtype.
        segments: the groups of the stream.
        heads: of attention.
        eps: of the norms.
        dropout: 0 unless training.
        compiled: whether what lies between attentions is compiled.
        checkpointing: whether blocks are run again in backward.
    """

    slots: Mapping[str, Tensor]
    segments: Segments
    heads: int
    eps: float
    dropout: float
    compiled: bool
    checkpointing: bool

    @cached_property
    def scales(self) -> bool:
        """Whether a layer's output is multiplied by a vector."""
        return any(name.endswith(".scale") for name in self.slots)

    @property
    def pointwise(self) -> Pointwise:
        """The functions around matrix products that are in no compiled region."""
        return pointwise.compiled() if self.compiled else pointwise.EAGER

    def stack(self, place: str, stack: Any, ids: Tensor, plan: Plan, inputs: _Inputs | None = None) -> Tensor:  # noqa: ANN401
        """All blocks of an encoder, or of a decoder with its inputs: token ids [tokens] to states [tokens, d_model]."""
        x = self._drop(F.embedding(ids, stack.embed_tokens.weight))
        first = stack.block[0]
        of_first = partial(self_attention_masks, first.layer[0].SelfAttention, plan, causal=inputs is not None)
        masks = with_weights(first, of_first)
        for number, block in enumerate(stack.block):
            run = partial(self._block, f"{place}.block.{number}.layer", block, plan, masks, inputs)
            if self.checkpointing:
                run = partial(checkpoint, run, use_reentrant=False)
            x = with_weights(block, run, x, None if inputs is None else inputs.encoded)
        return self._drop(rms_norm(x, stack.final_layer_norm.weight, self.eps, self.pointwise))

    def _block(
        self,
        place: str,
        block: Any,  # noqa: ANN401
        plan: Plan,
        masks: list[Tensor | None],
        inputs: _Inputs | None,
        x: Tensor,
        encoded: Tensor | None,
    ) -> Tensor:
        if inputs is not None and encoded is not None:
            inputs = replace(inputs, encoded=encoded)
        if self._is_whole(plan, inputs, block):
            return self._whole_block(place, block, plan, masks, inputs, x)
        x = self._self_attention(x, f"{place}.0.SelfAttention", block.layer[0], plan, masks)
        if inputs is not None:
            x = self._cross_attention(x, f"{place}.1.EncDecAttention", block.layer[1], inputs)
        return self._feed_forward(x, f"{place}.{len(block.layer) - 1}.DenseReluDense", block.layer[-1])

    def _is_whole(self, plan: Plan, inputs: _Inputs | None, block: Any) -> bool:  # noqa: ANN401
        """Whether a block is compiled as one: rows and groups are equally long, and nothing stands between its products."""
        plans = [plan] if inputs is None else [plan, inputs.plan]
        passes = [self] if inputs is None else [self, inputs.stream]
        plain = all(each.queries is None and each.keys is None and len(each.shapes) == 1 for each in plans)
        equal = all(each.segments.equal and not each.scales for each in passes)
        return self.compiled and plain and equal and not self.dropout and hasattr(block.layer[-1].DenseReluDense, "wi_0")

    def _whole_block(
        self,
        place: str,
        block: Any,  # noqa: ANN401
        plan: Plan,
        masks: list[Tensor | None],
        inputs: _Inputs | None,
        x: Tensor,
    ) -> Tensor:
        def layer(name: str, module: Any) -> Layer:  # noqa: ANN401
            return module.weight, *(self._update(name) or (None, None))

        def attention(number: int, kind: str, mask: Tensor | None) -> Attention:
            of, norm = getattr(block.layer[number], kind), block.layer[number].layer_norm.weight
            q, k, v, o = (layer(f"{place}.{number}.{kind}.{name}", getattr(of, name)) for name in ("q", "k", "v", "o"))
            return Attention(norm, q, k, v, o, mask)

        last = len(block.layer) - 1
        dense, norm = block.layer[last].DenseReluDense, block.layer[last].layer_norm.weight
        names = ("wi_0", "wi_1", "wo")
        feed = FeedForward(norm, *(layer(f"{place}.{last}.DenseReluDense.{name}", getattr(dense, name)) for name in names))
        cross = None if inputs is None else attention(1, "EncDecAttention", inputs.masks[0])
        sizes = Sizes(self.heads, self.eps, plan.shapes[0][0])
        encoded = None if inputs is None else inputs.encoded
        return run_block(x, encoded, attention(0, "SelfAttention", masks[0]), cross, feed, sizes)

    def project(self, x: Tensor, place: str, layer: Any, names: Sequence[str], norm: Any = None) -> tuple[Tensor, ...]:  # noqa: ANN401
        """The outputs of the named linear layers of one input, adapters included."""
        weights = [getattr(layer, name).weight for name in names]
        updates = [self._update(f"{place}.{name}") for name in names]
        scale = None if norm is None else norm.weight
        if self.compiled:
            outputs = regions.project(x, weights, updates, self.segments, norm=scale, eps=self.eps)
        else:
            outputs = project(x, weights, updates, self.segments, norm=scale, eps=self.eps)
        return tuple(self._scaled(y, f"{place}.{name}") for y, name in zip(outputs, names, strict=True))

    def _self_attention(self, x: Tensor, place: str, layer: Any, plan: Plan, masks: list[Tensor | None]) -> Tensor:  # noqa: ANN401
        q, k, v = self.project(x, place, layer.SelfAttention, ("q", "k", "v"), layer.layer_norm)
        mixed = attend(q, k, v, plan, masks, heads=self.heads, dropout=self.dropout)
        return self._added(x, mixed, f"{place}.o", layer.SelfAttention.o)

    def _cross_attention(self, x: Tensor, place: str, layer: Any, inputs: _Inputs) -> Tensor:  # noqa: ANN401
        (q,) = self.project(x, place, layer.EncDecAttention, ("q",), layer.layer_norm)
        # By the encoder's pass: these are its tokens, in its segments. They are projected once, however many targets read them.
        k, v = inputs.stream.project(inputs.encoded, place, layer.EncDecAttention, ("k", "v"))
        mixed = attend(q, k, v, inputs.plan, inputs.masks, heads=self.heads, dropout=self.dropout)
        return self._added(x, mixed, f"{place}.o", layer.EncDecAttention.o)

    def _added(self, x: Tensor, mixed: Tensor, place: str, layer: Any) -> Tensor:  # noqa: ANN401
        """The output layer of an attention, added to x."""
        update = self._update(place)
        if self.compiled and not self.dropout and f"{place}.scale" not in self.slots:
            (y,) = regions.project(mixed, (layer.weight,), (update,), self.segments, residual=x)
            return y
        (y,) = project(mixed, (layer.weight,), (update,), self.segments)
        return self._drop(self._scaled(y, place)).add_(x)

    def _feed_forward(self, x: Tensor, place: str, layer: Any) -> Tensor:  # noqa: ANN401
        dense, norm = layer.DenseReluDense, layer.layer_norm
        names = [f"{place}.{name}" for name in ("wi_0", "wi_1", "wo")]
        if (
            self.compiled
            and not self.dropout
            and hasattr(dense, "wi_0")
            and all(f"{name}.scale" not in self.slots for name in names)
        ):
            weights = dense.wi_0.weight, dense.wi_1.weight, dense.wo.weight
            updates = self._update(names[0]), self._update(names[1]), self._update(names[2])
            return regions.feed_forward(x, weights, updates, self.segments, norm=norm.weight, eps=self.eps)
        if hasattr(dense, "wi"):
            (hidden,) = self.project(x, place, dense, ("wi",), norm)
            hidden = F.relu(hidden)
        else:
            gate, value = self.project(x, place, dense, ("wi_0", "wi_1"), norm)
            if not self.dropout:  # which would stand between the product and wo, where `gated_project` makes it again
                update = self._update(f"{place}.wo")
                y = gated_project(gate, value, dense.wo.weight, update, self.segments, pointwise=self.pointwise)
                return self._scaled(y, f"{place}.wo").add_(x)
            hidden = F.gelu(gate, approximate="tanh") * value
        return self._drop(*self.project(self._drop(hidden), place, dense, ("wo",))).add_(x)

    def _update(self, name: str) -> tuple[Tensor, Tensor] | None:
        """A and B of a layer; a scale goes before them."""
        if f"{name}.down" not in self.slots or f"{name}.scale" in self.slots:
            return None
        return self.slots[f"{name}.down"], self.slots[f"{name}.up"]

    def _scaled(self, y: Tensor, name: str) -> Tensor:
        vectors = self.slots.get(f"{name}.scale")
        return y if vectors is None else self.segments.scale(y, vectors)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout else x


def unsupported_reason(backbone: nn.Module, adapted: Iterable[str] = ()) -> str | None:
    """Return why a model that adapts some layers cannot be run by `FastT5`, or None if it can."""
    if not isinstance(backbone, T5ForConditionalGeneration):
        return f"{type(backbone).__name__} is not transformers' T5ForConditionalGeneration"
    if backbone.config.feed_forward_proj not in ("gated-gelu", "relu"):
        return f"the activation {backbone.config.feed_forward_proj} is neither gated-gelu nor relu"
    if any(parameter.requires_grad for parameter in backbone.parameters()):
        return "the weights of the model are trained, not frozen"
    if len({parameter.dtype for parameter in backbone.parameters()}) > 1:
        return "the weights of the model have several dtypes"
    if any(getattr(module, "bias", None) is not None for module in backbone.modules()):
        return "a layer of the model has a bias"
    if "lm_head" in adapted:
        return "the output layer is adapted"
    return None
