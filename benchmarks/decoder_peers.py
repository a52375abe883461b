"""What is compared on a decoder: mhrctl, peft's LoRA and Poly over padded rows, and the frozen model over packed ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import peft
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from benchmarks.peers import SKILLS, Ours, Peer, Precision, Trainer, ours_over
from benchmarks.shapes import TASKS
from mhrctl.data.batches import IGNORED, Batch, Ragged
from mhrctl.models.packed_attention import packed
from mhrctl.models.speed import Speed

PAD = 0
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SPREAD = 0.02
"""Of the numbers in B: larger ones leave nothing of what a pre-trained model computes."""


@dataclass(frozen=True)
class CausalPeer(Peer):
    """A decoder of peft over padded rows.

    Attributes:
        all_logits: whether logits are made of all tokens, as transformers makes them where it is given labels, or of what
            predicts a target token alone.
    """

    all_logits: bool = False

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """The arguments of the model."""
        rows = sequences(batch, last=self.all_logits)
        inputs: dict[str, Any] = {"input_ids": rows.padded(PAD), "attention_mask": rows.mask(), "use_cache": False}
        if self.all_logits:
            inputs["labels"] = _labels(batch, rows)
        return inputs | ({"task_ids": batch.task_ids.flatten()} if self.routed else {})

    def loss(self, batch: Batch) -> Tensor:
        """The loss without noise."""
        self.model.eval()
        with torch.no_grad():
            loss = self.training_loss(batch)
        self.model.train()
        return loss

    def training_loss(self, batch: Batch) -> Tensor:
        """The mean over target tokens, of logits in fp32."""
        if self.all_logits:
            return super().training_loss(batch)
        with output_at(self.model, places(batch, packed=False)):
            logits = self.model(**self.inputs(batch)).logits[0]
        return F.cross_entropy(logits.float(), batch.targets.tokens)

    def generate(self, inputs: Ragged, **options: Any) -> Tensor:  # noqa: ANN401
        """The tokens of answers."""
        ids, mask = inputs.padded(PAD, left=True), inputs.mask(left=True)
        tokens: Tensor = self.model.generate(input_ids=ids, attention_mask=mask, **options)  # type: ignore[operator]
        return tokens[:, ids.shape[1] :]


def causal_ours(
    backbone: PreTrainedModel,
    *,
    heads: int | None,
    rows: int,
    packing: bool = True,
    precision: Precision = "fp32",
    spread: float = SPREAD,
) -> Ours:
    """A model of mhrctl over a decoder, which gets adapters in place; heads and spread as in `ours_over`."""
    speed = Speed(packing=packing)
    return ours_over(backbone, rows=rows, heads=heads, speed=speed, precision=precision, spread=spread)


def causal_lora(backbone: PreTrainedModel, *, all_logits: bool = False) -> CausalPeer:
    """LoRA of peft, rank 1 on all linear layers but the output layer; the backbone gets it in place."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=1, lora_alpha=1, target_modules=LINEARS)
    return CausalPeer(peft.get_peft_model(backbone, config), routed=False, all_logits=all_logits)


def causal_mhr(backbone: PreTrainedModel, *, heads: int) -> CausalPeer:
    """Poly of peft on the same layers; with splits it is MHR."""
    config = peft.PolyConfig(task_type="CAUSAL_LM", r=1, n_tasks=TASKS, n_skills=SKILLS, n_splits=heads, target_modules=LINEARS)
    return CausalPeer(peft.get_peft_model(backbone, config), routed=True)


def frozen_packed(backbone: PreTrainedModel, batch: Batch) -> Trainer:
    """Forward and backward of the bare model over packed rows, down to its first layer: no adapters can do without them."""
    first = backbone.get_submodule("model.layers.0.input_layernorm")
    first.register_forward_hook(lambda _norm, _inputs, output: output.requires_grad_())
    rows, kept = packed_row(batch), places(batch, packed=True)
    backbone.train()

    def step() -> None:
        with packed(backbone), output_at(backbone, kept):
            logits = backbone(**rows).logits[0]
        F.cross_entropy(logits.float(), batch.targets.tokens).backward()

    return step


def sequences(batch: Batch, *, last: bool) -> Ragged:
    """Each input and its target in one row; the target's last token, which is only predicted, where it is asked for."""
    cut = 0 if last else 1
    inputs, targets = (rows.tokens.split(list(rows.lengths)) for rows in (batch.inputs, batch.targets))
    rows = [torch.cat([left, right[: len(right) - cut]]) for left, right in zip(inputs, targets, strict=True)]
    return Ragged(torch.cat(rows), tuple(map(len, rows)))


def places(batch: Batch, *, packed: bool) -> Tensor:
    """Where the tokens that predict the targets are among all rows' tokens, with padding or without."""
    rows = sequences(batch, last=False)
    within, at = [], 0
    for prompt, length, row in zip(batch.inputs.lengths, batch.targets.lengths, rows.lengths, strict=True):
        within.append(torch.arange(at + prompt - 1, at + prompt - 1 + length))
        at += row if packed else rows.longest
    return torch.cat(within).to(batch.inputs.tokens.device)


def packed_row(batch: Batch) -> dict[str, Any]:
    """The arguments of a model for all rows in one, as they are for flash attention."""
    rows = sequences(batch, last=False)
    lengths = torch.tensor(rows.lengths)
    ends = F.pad(lengths.cumsum(0), (1, 0)).int().to(rows.tokens.device)
    positions = torch.cat([torch.arange(length) for length in rows.lengths]).to(rows.tokens.device)
    longest = {"max_length_q": rows.longest, "max_length_k": rows.longest}
    arguments = {"input_ids": rows.tokens[None], "position_ids": positions[None], "use_cache": False}
    return arguments | longest | {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}


@contextmanager
def output_at(model: Any, where: Tensor) -> Iterator[None]:  # noqa: ANN401 - a model of transformers, or one of peft around it
    """Have the output layer read some tokens alone, of all rows one after the other."""

    def chosen(_layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].flatten(0, 1)[where][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()


def _labels(batch: Batch, rows: Ragged) -> Tensor:
    """The tokens of padded rows that are targets, the others ignored."""
    labels = rows.padded(IGNORED)
    prompts = torch.arange(rows.longest) < torch.tensor(batch.inputs.lengths)[:, None]
    return labels.masked_fill(prompts.to(labels.device), IGNORED)
