"""A tiny GGUF file, as tests ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTH, HEADS, WIDE, WORDS = 32, 2, 64, 80
TOKENS = ["<pad>", "<end>", "<begin>", "<turn>", "<turn_end>"]
"""Special tokens; the ids of end and begin are those of the model."""


def write_gguf(
    path: Path, *, lost: str = "", tokenizer: bool = False, chat: str | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """A tiny Llama of one block in 8-bit weights, whose output layer is its embedding.

    Args:
        path: of the file.
        lost: a tensor that it has not.
        tokenizer: put one in, of GPT-2's kind, that knows letters, two words and `TOKENS`.
        chat: its chat template.

    Returns:
        {tensor: what it stands for}.
    """
    gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(WORDS)
    if tokenizer:
        _add_tokenizer(writer, gguf, chat)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)
    block = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH)}
    block |= {"ffn_gate": (WIDE, WIDTH), "ffn_up": (WIDE, WIDTH), "ffn_down": (WIDTH, WIDE)}
    shapes = {f"blk.0.{name}.weight": shape for name, shape in block.items()} | {"token_embd.weight": (WORDS, WIDTH)}
    values = {}
    for name, shape in shapes.items():
        quantised = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        values[name] = gguf.quants.dequantize(quantised, gguf.GGMLQuantizationType.Q8_0)
        if name != lost:
            writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def _add_tokenizer(writer: Any, gguf: Any, chat: str | None) -> None:
    """A byte-pair encoding as files of Llama 3 and Qwen have it."""
    letters = [*"abcdefghijklmnopqrstuvwxyz.,?:", "\u0120", "\u010a"]
    merges = ["t h", "th e", "\u0120 the", "a n", "an t", "\u0120 ant"]
    words = [*TOKENS, *letters, *(merge.replace(" ", "") for merge in merges)]
    words += [f"<unused{number}>" for number in range(WORDS - len(words))]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(words)
    writer.add_token_types([control if word in TOKENS else normal for word in words])
    writer.add_token_merges(merges)
    writer.add_pad_token_id(0)
    if chat:
        writer.add_chat_template(chat)
