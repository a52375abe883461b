"""Decoder-only models read an input and its target in one sequence: Llama, Gemma, Qwen, GPT-2 and their kin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import PreTrainedModel

from mhrctl.data.batches import Ragged
from mhrctl.errors import ParamsError
from mhrctl.models.encoder_decoder import Generation, cast
from mhrctl.models.layer import AdaptedLinear
from mhrctl.models.packed_attention import packed
from mhrctl.models.speed import Speed

PACKS = "packs_sequences"
"""Attribute of a model: whether it passed the test of sequences that are packed into one row (`mhrctl.models.self_test`)."""


class DecoderOnly:
    """A decoder-only model is a backbone whose sequences are packed into one row of tokens, or else padded at their ends.

    Padding at the end is right for every causal model, since no token sees what follows it; packing only for those that passed
    the backbone stage's test. Logits are made at the targets alone.

    Attributes:
        model: the injected transformers model.
        packs: whether sequences are packed.
    """

    def __init__(self, model: PreTrainedModel, speed: Speed) -> None:
        if speed.needs_forward:
            raise ParamsError(
                f"--{speed.needs_forward} is an option of mhrctl's own forward of T5, not of {model.config.model_type}"
            )
        self.model, self.packs = model, speed.packing and bool(getattr(model, PACKS, False))
        self._call, self._generation = _Call(model), Generation(model)

    def token_losses(
        self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """See `mhrctl.models.backbone.Backbone`."""
        logits = self._of_targets(slots, _Pairs(inputs, targets, packed=self.packs))
        losses = F.cross_entropy(logits.float(), targets.tokens, label_smoothing=label_smoothing, reduction="none")
        return _rectangle(losses, targets)

    def logits(self, slots: Mapping[str, Tensor], inputs: Ragged, targets: Ragged) -> Tensor:
        """See `mhrctl.models.backbone.Backbone`."""
        return _rectangle(self._of_targets(slots, _Pairs(inputs, targets, packed=self.packs)), targets)

    @torch.no_grad()
    def generate(self, slots: Mapping[str, Tensor], inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """See `mhrctl.models.backbone.Backbone`."""
        mask = inputs.mask(left=True)
        # A row is padded with its own first token, which the mask hides from the model: what penalises repeated tokens looks at
        # ids alone, and would see the padding token, which may be the end.
        first = inputs.tokens[torch.tensor([0, *inputs.lengths[:-1]], device=inputs.tokens.device).cumsum(0)]
        ids = torch.where(mask.bool(), inputs.padded(0, left=True), first[:, None])
        options |= {"input_ids": ids, "attention_mask": mask}
        with _output_of(self.model):
            tokens: Tensor = functional_call(self._generation, cast(slots, self.model), kwargs=options, tie_weights=False)
        return tokens[:, ids.shape[1] :]

    def _of_targets(self, slots: Mapping[str, Tensor], pairs: _Pairs) -> Tensor:
        """The logits that predict each target token, [target tokens, vocabulary]."""
        rows = pairs.packed_row() if self.packs else pairs.padded_rows(self.model.config.pad_token_id)
        given = cast(slots, self.model) | self._owners(slots, pairs)
        with packed(self.model) if self.packs else nullcontext(), _output_of(self.model, pairs.kept):
            logits: Tensor = functional_call(self._call, given, kwargs=rows, tie_weights=False).logits
        flat = logits.flatten(0, -2)
        return flat if len(flat) == len(pairs.kept) else flat[pairs.kept]  # of a model without an output layer to be seen

    def _owners(self, slots: Mapping[str, Tensor], pairs: _Pairs) -> dict[str, Tensor]:
        """Say to adapted layers whose a token is, where groups have unequal numbers of them; whole weights have no groups."""
        names = {slot.rpartition(".")[0]: len(value) for slot, value in slots.items()}
        layers = {name: layer for name in names if isinstance(layer := self.model.get_submodule(name), AdaptedLinear)}
        groups = max((names[name] for name in layers), default=1)
        if groups == 1:
            return {}
        output = self.model.get_output_embeddings()
        owners, of_targets = pairs.owners(groups), pairs.owners(groups, targets=True)
        read = {
            name: of_targets if layer is output else owners for name, layer in layers.items() if layer is output or self.packs
        }
        return {f"backbone.{name}.owners": value for name, value in read.items()}


@dataclass(frozen=True)
class _Pairs:
    """These are sequences of an input and one of its targets, whose last token is predicted and never read.

    A target without tokens, which is no choice, has no sequence where they are packed; where they are padded it has the input
    alone, so that groups keep equally many rows.

    Attributes:
        inputs: rows of input tokens.
        targets: c successive rows for each input.
        packed: whether they lie in one row.
    """

    inputs: Ragged
    targets: Ragged
    packed: bool

    @cached_property
    def _real(self) -> list[int]:
        """The targets with a sequence."""
        return [row for row, length in enumerate(self.targets.lengths) if length or not self.packed]

    @property
    def _each(self) -> int:
        """Targets of an input."""
        return len(self.targets.lengths) // len(self.inputs.lengths)

    @cached_property
    def _sizes(self) -> np.ndarray[Any, Any]:
        """Tokens of each sequence that are read."""
        return self._prompts + [max(self.targets.lengths[row] - 1, 0) for row in self._real]

    @cached_property
    def _prompts(self) -> np.ndarray[Any, Any]:
        """Tokens of the input of each sequence."""
        return np.array([self.inputs.lengths[row // self._each] for row in self._real])

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self._sizes.max())

    @cached_property
    def _tokens(self) -> Tensor:
        """All that is read, sequence after sequence, [tokens]."""
        inputs = np.cumsum([0, *self.inputs.lengths])
        targets = np.cumsum([0, *self.targets.lengths]) + len(self.inputs.tokens)
        parts = []
        for row in self._real:
            place = row // self._each
            parts += [np.arange(inputs[place], inputs[place + 1]), np.arange(targets[row], targets[row + 1] - 1)]
        return torch.cat([self.inputs.tokens, self.targets.tokens])[self._index(np.concatenate(parts))]

    @cached_property
    def kept(self) -> Tensor:
        """The place among all that is read, row after row, from which each target token is predicted, [target tokens]."""
        starts = np.cumsum([0, *self._sizes[:-1]]) if self.packed else np.arange(len(self._real)) * self.longest
        lengths = [self.targets.lengths[row] for row in self._real]
        parts = zip(starts, self._prompts, lengths, strict=True)
        return self._index(np.concatenate([start + prompt - 1 + np.arange(length) for start, prompt, length in parts]))

    def packed_row(self) -> dict[str, Any]:
        """Return the arguments of a model for one row of tokens."""
        sizes, ends = self._sizes, np.cumsum([0, *self._sizes])
        positions = self._index(np.concatenate([np.arange(size) for size in sizes]))
        boundaries = torch.from_numpy(ends.astype(np.int32)).to(self._device)
        most = int(sizes.max())
        return {
            "input_ids": self._tokens[None],
            "position_ids": positions[None],
            "use_cache": False,
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": most,
            "max_length_k": most,
        }

    def padded_rows(self, pad: int) -> dict[str, Any]:
        """Return the arguments of a model for a row of tokens each."""
        rows = Ragged(self._tokens, tuple(map(int, self._sizes)))
        return {"input_ids": rows.padded(pad), "attention_mask": rows.mask(), "use_cache": False}

    def owners(self, groups: int, *, targets: bool = False) -> Tensor:
        """Return the group of each token that is read, or of each target token, of so many groups of equally many inputs."""
        each = len(self.targets.lengths) // groups
        times = [self.targets.lengths[row] for row in self._real] if targets else self._sizes
        return self._index(np.repeat(np.array(self._real) // each, times))

    @property
    def _device(self) -> torch.device:
        return self.inputs.tokens.device

    def _index(self, numbers: Any) -> Tensor:  # noqa: ANN401
        return torch.from_numpy(np.asarray(numbers, np.int64)).to(self._device, non_blocking=True)


def _rectangle(values: Tensor, targets: Ragged) -> Tensor:
    """Values of target tokens, [target tokens, ...], as [targets, longest, ...] with zeros after the ends."""
    rectangle = values.new_zeros(len(targets.lengths) * targets.longest, *values.shape[1:])
    rectangle = rectangle.index_copy(0, targets.places, values)
    return rectangle.view(len(targets.lengths), targets.longest, *values.shape[1:])


@contextmanager
def _output_of(model: PreTrainedModel, places: Tensor | None = None) -> Iterator[None]:
    """Have the output layer read only some tokens, whatever the model gives it.

    Its rows are contiguous: of a slice, such as each row's last token in generation, torch copies the matrix for every row. In
    bf16 on a CPU that is most of the time of a step, where vocabularies are large.

    Args:
        model: the backbone.
        places: of the tokens among all rows, one after the other; they become one row. None is all, as they are.
    """

    def chosen(_layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states, *others = given
        if places is not None:
            states = states.flatten(0, -2).index_select(0, places.to(states.device))[None]
        return states.contiguous(), *others

    layer = model.get_output_embeddings()
    hook = None if layer is None else layer.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


class _Call(nn.Module):
    """The model as a module of a module, so that slots have the same names wherever functional_call calls."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, **rows: Any) -> Any:  # noqa: ANN401
        return self.backbone(**rows)
