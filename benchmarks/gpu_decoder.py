"""A decoder of 1.7 billion random weights on a CUDA device, in sizes of Qwen 3: steps, packed and padded, and their memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from benchmarks.decoder_peers import causal_lora, causal_mhr, causal_ours, frozen_packed
from benchmarks.decoder_shapes import LENGTHS, batch_of, packing, padded_tokens, real_tokens, samples_of, twin
from benchmarks.gpu_timing import forget, peak_memory, timed
from benchmarks.peers import Ours, Precision, Trainer, always, require_equal
from benchmarks.results import Measured, Row
from benchmarks.timing import Ratio, Times, milliseconds, ratio
from mhrctl.models.backbones import PRECISIONS

HEADS = 8
ALIKE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.03}
"""{precision: relative difference of losses that counts as equal}."""
SPREAD = 0.5
"""Of the numbers in B: random weights do not mind, and a loss sees them."""
GB = 1e9
SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
}
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        sizes: of the decoder, as its config calls them.
        lengths: (tokens of prompt, of target) in the batch.
        precision: of the backbone.
        device: a CUDA device, or the CPU for a dry run.
        warmup: untimed steps.
        repetitions: timed steps.
    """

    sizes: dict[str, Any]
    lengths: Sequence[tuple[int, int]]
    precision: Precision
    device: torch.device
    warmup: int
    repetitions: int


def full() -> Plan:
    """A Qwen 3 of 1.7 billion weights in bf16, a batch of 16 lengths of Super-NaturalInstructions."""
    return Plan(SIZES, LENGTHS[0], "bf16", torch.device("cuda"), 5, 20)


def dry() -> Plan:
    """The same on the CPU, in seconds."""
    return Plan(SMALL, LENGTHS[0][2:5], "fp32", torch.device("cpu"), 1, 2)


def measure(plan: Plan) -> Measured:
    """A step of each: milliseconds, real tokens a second, peak memory; the frozen weights are there once."""
    model = new_qwen(plan)
    batch = batch_of(samples_of(plan.lengths, plan.sizes["vocab_size"])).to(plan.device)
    rows, precision = len(plan.lengths), plan.precision

    def ours(*, packing: bool = True) -> Ours:
        return causal_ours(twin(model), heads=HEADS, rows=rows, packing=packing, precision=precision, spread=SPREAD)

    mine = ours()
    expected, adapter = mine.losses(batch), mine.adapter.cpu()
    del mine

    def peft_trainer() -> Trainer:
        theirs = causal_mhr(twin(model), heads=HEADS)
        theirs.copy(adapter)
        require_equal("loss of MHR", expected, theirs.loss(batch), tolerance=ALIKE[precision])
        return theirs.trainer(always(batch))

    makers: dict[str, Callable[[], Trainer]] = {
        "MHR": lambda: ours().trainer(always(batch)),
        "MHR, padded": lambda: ours(packing=False).trainer(always(batch)),
        "peft MHR": peft_trainer,
        "peft LoRA": lambda: causal_lora(twin(model)).trainer(always(batch)),
        "peft LoRA, all logits": lambda: causal_lora(twin(model), all_logits=True).trainer(always(batch)),
        "frozen, packed": lambda: frozen_packed(twin(model), batch),
    }
    times: Times = {}
    figures: dict[str, float] = {}
    for name, make in makers.items():
        forget(plan.device)
        times[name] = timed(make(), device=plan.device, warmup=plan.warmup, repetitions=plan.repetitions)
        figures[f"{name}: real tokens a second"] = round(real_tokens(plan.lengths) * plan.repetitions / sum(times[name]), 1)
        figures[f"{name}: peak memory, GB"] = round(peak_memory(plan.device) / GB, 2)
    pairs = {
        "MHR step / peft MHR, equal padding, target logits": ("MHR, padded", "peft MHR"),
        "MHR step, packed / peft LoRA, padded, target logits": ("MHR", "peft LoRA"),
        "MHR step, packed / peft LoRA, padded, all logits": ("MHR", "peft LoRA, all logits"),
        f"MHR step, {rows} tasks in a batch / frozen packed forward and backward": ("MHR", "frozen, packed"),
    }
    measured = [Row(what, ratio(times[above], times[below])) for what, (above, below) in pairs.items()]
    if used := figures["peft LoRA, all logits: peak memory, GB"]:
        part = figures["MHR: peak memory, GB"] / used
        measured.append(Row("peak memory of MHR / peft LoRA, all logits", Ratio(part, part, part)))
    weights = sum(weight.numel() for weight in model.parameters()) / 1e9
    padding = 1 - real_tokens(plan.lengths) / padded_tokens(plan.lengths)
    note = f"{model.config.model_type} of {weights:.2f} billion random weights; {rows} rows, {padding:.0%} of padding"
    return Measured(measured, milliseconds(times) | figures, [note])


def new_qwen(plan: Plan) -> PreTrainedModel:
    """A frozen Qwen 3 with random weights, that packs its sequences."""
    config = Qwen3Config(**plan.sizes, tie_word_embeddings=True, pad_token_id=0)
    torch.manual_seed(0)
    with torch.device(plan.device):
        model = AutoModelForCausalLM.from_config(config, dtype=PRECISIONS[plan.precision])
    return packing(model)
