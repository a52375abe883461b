"""Layers have names that people read beside those of the model: `decoder 1 cross-attention v`, `block 3 attention q`.

Blocks are counted from 0, as in the model's names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mhrctl.adapters.granularity import by_coder
from mhrctl.errors import ParamsError, unknown

_IN_BLOCK = re.compile(r"^(?:[^.\d][^.]*\.)*?(?P<number>\d+(?:-\d+)?)(?:\.(?P<rest>.+))?$")
"""The first number in a name, or the numbers of several blocks, and what is within."""
_SUBLAYER_OF_T5 = re.compile(r"^layer\.\d+\.")
_WORDS = (
    (re.compile(r"encdecattention|(encoder|cross)_?attn|cross_?attention", re.IGNORECASE), "cross-attention"),
    (re.compile(r"(self_?)?(attn|attention)(?!_?(layer_?)?norm)", re.IGNORECASE), "attention"),
    (re.compile(r"densereludense|mlp|ffn|feed_?forward|block_sparse_moe", re.IGNORECASE), "feed-forward"),
)
"""What libraries call the parts of a block."""
_ALONE = re.compile(r"fc\d")
"""Layers of a feed-forward that is no module."""


def readable_names(parts: Sequence[str]) -> dict[str, str]:
    """Name the parts of a model as people read them.

    Args:
        parts: names of layers, or of what shares a routing, all of one model.

    Returns:
        {part: its name}, no two alike: what has no block, or would be called as another, keeps the model's name.
    """
    coder_of = {part: coder for coder, within in by_coder(parts).items() for part in within}
    names = {part: _readable(part, coder_of) for part in parts}
    counts = Counter(names.values())
    return {part: name if counts[name] == 1 else part for part, name in names.items()}


def chosen_parts(wanted: Iterable[str], parts: Sequence[str]) -> list[str]:
    """Find parts of a model by either name.

    Raises:
        ParamsError: if there is none of such a name.
    """
    names = readable_names(parts)
    by_name = {name: part for part, name in names.items()}
    chosen = []
    for name in wanted:
        plain = " ".join(name.split())
        if name not in names and plain not in by_name:
            raise ParamsError(f"--layer: {unknown('layer', name, by_name if ' ' in plain else names)}")
        chosen.append(name if name in names else by_name[plain])
    return chosen


def _readable(part: str, coder_of: Mapping[str, str]) -> str:
    block = _IN_BLOCK.match(part)
    if block is None:
        return part
    words = [f"{coder_of.get(part, 'block')} {block['number']}"]
    rest = _SUBLAYER_OF_T5.sub("", block["rest"] or "")
    for piece in rest.split(".") if rest else ():
        word = next((word for pattern, word in _WORDS if pattern.fullmatch(piece)), piece)
        if word == "attention" and part in coder_of:
            word = "self-attention"
        words += ["feed-forward", piece] if _ALONE.fullmatch(piece) and "feed-forward" not in words else [word]
    return " ".join(words).removesuffix("_proj")
