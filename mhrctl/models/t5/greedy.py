"""T5 answers greedily here: inputs are encoded once, in one layout for all, and then the decoder makes a token a row at a time.

What a step reads is laid out beforehand: keys and values of the inputs, of each layer, and room for those of the answer. Rows
whose answer has ended leave the batch, and what is kept for them is let go of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mhrctl.models.t5 import pointwise
from mhrctl.models.t5.packing import Packing
from mhrctl.models.t5.segments import Segments

if TYPE_CHECKING:
    from mhrctl.data.batches import Ragged
    from mhrctl.models.t5.model import FastT5

ROOM = 32
"""Tokens of an answer that there is room for at first."""
LEFT = 0.75
"""Part of the rows that are still answered at which the others leave: all that is kept is then copied once."""


@torch.no_grad()
def answers(
    fast: FastT5,
    slots: Mapping[str, Tensor],
    inputs: Ragged,
    owners: Sequence[int],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Answer each row by the most likely token after each other.

    Args:
        fast: runs the model.
        slots: what the adapters of n groups give, in any dtype, all of it finite.
        inputs: rows of input tokens.
        owners: the group of each row, in ascending order.
        ends: tokens that end an answer.
        max_new_tokens: tokens of an answer at most, its end among them.

    Returns:
        The tokens, [rows, longest answer], with padding after the end of each; and whether all logits of a row were finite.
    """
    config: Any = fast.backbone.config
    device = inputs.tokens.device
    groups = _Groups.of({name: slot.to(fast.backbone.dtype) for name, slot in slots.items()}, owners, inputs.lengths)
    decoder = _Decoder(fast, groups, _encoded(fast, groups, inputs))
    padding = torch.full((len(owners),), config.pad_token_id, device=device)
    stops, rows = torch.tensor(ends, device=device), torch.arange(len(owners), device=device)
    columns: list[Tensor] = []
    finite = torch.ones_like(rows, dtype=torch.bool)
    last, is_open = torch.full_like(padding, config.decoder_start_token_id), torch.ones_like(finite)
    for number in range(max_new_tokens):
        largest, last = decoder.step(last, number).max(1)  # NaN and infinity are the largest
        finite[rows] &= torch.isfinite(largest) | ~is_open
        columns.append(padding.index_copy(0, rows, torch.where(is_open, last, config.pad_token_id)))
        is_open = is_open & ~torch.isin(last, stops)
        left = int(is_open.sum())
        if not left:
            break
        if left <= LEFT * len(rows):
            kept = is_open.nonzero().flatten()
            rows, last, is_open = rows[kept], last[kept], is_open[kept]
            decoder.keep(kept)
    return torch.stack(columns, 1) if columns else padding[:, None][:, :0], finite


@dataclass(frozen=True)
class _Groups:
    """The adapters that rows have.

    Attributes:
        slots: of the groups that have rows.
        owners: the group of each row among these.
        tokens: of the inputs of each group.
    """

    slots: Mapping[str, Tensor]
    owners: Tensor
    tokens: Sequence[int]

    @classmethod
    def of(cls, slots: Mapping[str, Tensor], owners: Sequence[int], lengths: Sequence[int]) -> _Groups:
        some = next(iter(slots.values()), None)
        if some is None or len(some) == 1:
            return cls(slots, torch.zeros(len(owners), dtype=torch.long), [sum(lengths)])
        present = sorted(set(owners))
        number = {group: place for place, group in enumerate(present)}
        tokens = [0] * len(present)
        for group, length in zip(owners, lengths, strict=True):
            tokens[number[group]] += length
        if len(present) < len(some):
            index = torch.tensor(present, device=some.device)
            slots = {name: slot.index_select(0, index) for name, slot in slots.items()}
        return cls(slots, torch.tensor([number[group] for group in owners], device=some.device), tokens)


@dataclass(frozen=True)
class _Encoded:
    """Inputs that were encoded.

    Attributes:
        inputs: keys of each decoder layer, [rows, heads, d_kv, longest input], and values, [rows, heads, longest input, d_kv].
        mask: [rows, 1, 1, longest input], what is added to scores; None where all inputs are equally long.
    """

    inputs: list[tuple[Tensor, Tensor]]
    mask: Tensor | None


def _encoded(fast: FastT5, groups: _Groups, inputs: Ragged) -> _Encoded:
    """Encode inputs without padding, and project them to what the decoder's layers attend to."""
    model: Any = fast.backbone
    weight, longest, rows = model.shared.weight, inputs.longest, len(inputs.lengths)
    segments = Segments(groups.tokens, width=weight.shape[1], dtype=weight.dtype, device=weight.device)
    run = fast.over(groups.slots, segments)
    inner = model.config.num_heads * model.config.d_kv
    packing = Packing.of(inputs.lengths, [1] * rows, widths=(longest, 1), inner=inner, packed=True, device=weight.device)
    states = run.stack("encoder", model.encoder, inputs.tokens, packing.encoder)
    kept = []
    for number, block in enumerate(model.decoder.block):
        place = f"decoder.block.{number}.layer.1.EncDecAttention"
        k, v = run.project(states, place, block.layer[1].EncDecAttention, ("k", "v"))
        k, v = (_spread(x, inputs).view(rows, longest, model.config.num_heads, -1) for x in (k, v))
        kept.append((k.permute(0, 2, 3, 1).contiguous(), v.transpose(1, 2).contiguous()))
    mask = None
    if min(inputs.lengths) < longest:
        absent = inputs.mask() == 0
        mask = torch.zeros(rows, 1, 1, longest, dtype=weight.dtype, device=weight.device)
        mask.masked_fill_(absent[:, None, None], torch.finfo(weight.dtype).min)
    return _Encoded(kept, mask)


def _spread(x: Tensor, inputs: Ragged) -> Tensor:
    """Tokens of rows as a rectangle, [rows * longest, d]."""
    if min(inputs.lengths) == inputs.longest:
        return x
    return x.new_zeros(len(inputs.lengths) * inputs.longest, x.shape[1]).index_copy_(0, inputs.places, x)


class _Decoder:
    """The decoder while it answers rows, a token each at a time."""

    def __init__(self, fast: FastT5, groups: _Groups, encoded: _Encoded) -> None:
        self._model: Any = fast.backbone
        self._mask, self._rows = encoded.mask, _Rows(groups.owners)
        self._layers = [
            _Layer(groups.slots, f"decoder.block.{number}.layer", block.layer, inputs)
            for number, (block, inputs) in enumerate(zip(self._model.decoder.block, encoded.inputs, strict=True))
        ]
        self._room, self._bias = 0, torch.empty(0)

    def step(self, tokens: Tensor, number: int) -> Tensor:
        """Return the logits of what follows a token of each row, [rows, vocabulary]."""
        model, config = self._model, self._model.config
        if number == self._room:
            self._make_room()
        start = self._room - 1 - number
        bias = self._bias[:, start : self._room][None, :, None]
        step = _Step(number, self._rows, bias, self._mask, config.num_heads, config.layer_norm_epsilon)
        x = F.embedding(tokens, model.decoder.embed_tokens.weight)
        for layer in self._layers:
            layer(x, step)
        states = step.normed(x, model.decoder.final_layer_norm)
        if config.scale_decoder_outputs:
            states *= config.d_model**-0.5
        logits: Tensor = states @ model.lm_head.weight.t()
        return logits

    def keep(self, rows: Tensor) -> None:
        """Let go of all rows but some."""
        self._rows = _Rows(self._rows.owners[rows])
        self._mask = None if self._mask is None else self._mask[rows]
        for layer in self._layers:
            layer.keep(rows)

    def _make_room(self) -> None:
        """Make room for answers twice as long."""
        room = 2 * self._room or ROOM
        for layer in self._layers:
            layer.make_room(room)
        first = self._model.decoder.block[0].layer[0].SelfAttention
        # Of a query in the middle of all distances: a step's are a part of them.
        self._bias, self._room = first.compute_bias(1, 2 * room - 1, past_seen_tokens=room - 1)[0, :, 0], room


class _Rows:
    """Whose adapters the rows of a batch have.

    Attributes:
        owners: the group of each row.
    """

    def __init__(self, owners: Tensor) -> None:
        self.owners = owners
        self._others: dict[tuple[int, int], Tensor] = {}

    def mask_(self, low: Tensor, groups: int) -> Tensor:
        """Put zeros where low-rank activations, [rows, groups * r], are of another's adapter than a row's."""
        if groups == 1:
            return low
        rank = low.shape[1] // groups
        if (groups, rank) not in self._others:
            columns = torch.arange(groups, device=self.owners.device).repeat_interleave(rank)
            self._others[groups, rank] = self.owners[:, None] != columns
        return low.masked_fill_(self._others[groups, rank], 0)


class _Linears:
    """Linear layers of one input with the adapters of all groups.

    One product has the columns of all: rows are few here, and would be too few for a product a group.
    """

    def __init__(self, slots: Mapping[str, Tensor], place: str, layer: Any, names: Sequence[str]) -> None:  # noqa: ANN401
        self._weights = [getattr(layer, name).weight.t() for name in names]
        self._scales = [slots.get(f"{place}.{name}.scale") for name in names]
        downs = [
            None if scale is not None else slots.get(f"{place}.{name}.down")
            for name, scale in zip(names, self._scales, strict=True)
        ]
        above = [down.flatten(0, 1) for down in downs if down is not None]
        self._down = torch.cat(above).t().contiguous() if above else None
        self._ups = [None if down is None else slots[f"{place}.{name}.up"] for name, down in zip(names, downs, strict=True)]

    def __call__(self, x: Tensor, rows: _Rows) -> list[Tensor]:
        """The outputs for [rows, d]."""
        outputs = [x @ weight for weight in self._weights]
        if self._down is not None:
            low, start = x @ self._down, 0
            for y, up in zip(outputs, self._ups, strict=True):
                if up is not None:
                    flat = up.flatten(0, 1)
                    y.addmm_(rows.mask_(low.narrow(1, start, len(flat)), len(up)), flat)
                    start += len(flat)
        for y, scale in zip(outputs, self._scales, strict=True):
            if scale is not None:
                y.mul_(scale if len(scale) == 1 else scale[rows.owners])
        return outputs


class _Layer:
    """A layer of the decoder, with what is kept of inputs and of answers so far."""

    def __init__(self, slots: Mapping[str, Tensor], place: str, layer: Any, inputs: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
        itself, cross, dense = layer[0].SelfAttention, layer[1].EncDecAttention, layer[2].DenseReluDense
        self._norms = [part.layer_norm for part in layer]
        self._qkv = _Linears(slots, f"{place}.0.SelfAttention", itself, ("q", "k", "v"))
        self._o = _Linears(slots, f"{place}.0.SelfAttention", itself, ("o",))
        self._cross_q = _Linears(slots, f"{place}.1.EncDecAttention", cross, ("q",))
        self._cross_o = _Linears(slots, f"{place}.1.EncDecAttention", cross, ("o",))
        self._is_gated = not hasattr(dense, "wi")
        wide = ("wi_0", "wi_1") if self._is_gated else ("wi",)
        self._wide = _Linears(slots, f"{place}.2.DenseReluDense", dense, wide)
        self._narrow = _Linears(slots, f"{place}.2.DenseReluDense", dense, ("wo",))
        self._inputs = inputs
        keys, values = inputs
        self._answers = keys[..., :0], values[:, :, :0]

    def __call__(self, x: Tensor, step: _Step) -> None:
        """Add what the layer makes of [rows, d_model] to it."""
        rows, (keys, values) = step.rows, self._answers
        q, k, v = self._qkv(step.normed(x, self._norms[0]), rows)
        keys[..., step.number] = k.view(keys.shape[:3])
        values[:, :, step.number] = v.view(keys.shape[:3])
        seen = step.number + 1
        x += self._o(step.attended(q, keys[..., :seen], values[:, :, :seen], step.bias), rows)[0]
        (q,) = self._cross_q(step.normed(x, self._norms[1]), rows)
        x += self._cross_o(step.attended(q, *self._inputs, step.mask), rows)[0]
        wide = self._wide(step.normed(x, self._norms[2]), rows)
        x += self._narrow(pointwise.gate(*wide) if self._is_gated else wide[0].relu_(), rows)[0]

    def make_room(self, room: int) -> None:
        """Make room for answers of so many tokens."""
        keys, values = self._answers
        more = room - keys.shape[3]
        self._answers = F.pad(keys, (0, more)), F.pad(values, (0, 0, 0, more))

    def keep(self, rows: Tensor) -> None:
        """Let go of all rows but some."""
        self._inputs = self._inputs[0][rows], self._inputs[1][rows]
        self._answers = self._answers[0][rows], self._answers[1][rows]


@dataclass(frozen=True)
class _Step:
    """What the layers share at a step.

    Attributes:
        number: of the step.
        rows: whose adapters the rows have.
        bias: of positions, added to the scores of attention to the answer.
        mask: added to those of attention to the input, if some are shorter.
        heads: of attention.
        eps: of the norms.
    """

    number: int
    rows: _Rows
    bias: Tensor
    mask: Tensor | None
    heads: int
    eps: float

    def normed(self, x: Tensor, norm: Any) -> Tensor:  # noqa: ANN401 - transformers' layers are of no common type
        """T5's norm."""
        return pointwise.norm(x, norm.weight, self.eps)[0]

    def attended(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """What queries [rows, heads * d_kv] get, which are one a row."""
        scores = torch.matmul(q.view(len(q), self.heads, 1, -1), keys)
        if mask is not None:
            scores += mask
        return torch.matmul(scores.softmax(-1), values).view(len(q), -1)
