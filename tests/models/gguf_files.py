"""A tiny GGUF file, as tests ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTH, HEADS, WIDE, WORDS = 32, 2, 64, 80


def write_gguf(path: Path, *, lost: str = "") -> dict[str, np.ndarray[Any, Any]]:
    """A tiny Llama of one block in 8-bit weights, whose output layer is its embedding.

    Args:
        path: of the file.
        lost: a tensor that it has not.

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
