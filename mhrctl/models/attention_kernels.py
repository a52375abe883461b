"""Torch has several kernels for the attention of sequences that lie in one row; device and dtype decide which of them can run.

In all of them a query attends to the keys of its sequence up to its place, counted from the sequence's end: the last query of a
sequence sees the last of its keys. There may be more keys than queries.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn

WIDEST = 256
"""The widest attention head of flash attention."""
NARROWEST = 16
"""The narrowest of FlexAttention on a GPU."""
MODERN = (8, 0)
"""The oldest GPU that runs flash attention, by its compute capability."""
SHARES = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Whether torch's kernel for unequal lengths lets queries share keys: from torch 2.12 on."""


class Ends(NamedTuple):
    """Ends are where sequences end, [sequences + 1] in int32, the first 0.

    Attributes:
        queries: in the row of queries.
        keys: in the row of keys.
        most_queries: of a sequence.
        most_keys: likewise.
    """

    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int


class Weighing(NamedTuple):
    """A weighing is how products of queries and keys become weights.

    Attributes:
        scale: of the products.
        window: keys that a query looks back at, that of its place among them; None is all.
        softcap: the bound that products are squeezed below by a tanh; None is none.
        dropout: of the weights.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    dropout: float = 0.0


Kernel = Callable[[Tensor, Tensor, Tensor, Ends, Weighing], Tensor]
"""From queries [1, heads, tokens, width], keys and values [1, key-value heads, keys, width] to [1, tokens, heads, width]."""


def kernel_of(query: Tensor, value: Tensor, how: Weighing) -> Kernel:
    """Return the fastest kernel that can run: flash attention's, FlexAttention, or one sequence after the other."""
    if query.device.type != "cuda" or how.dropout:
        return by_sequence
    flash = query.dtype in (torch.float16, torch.bfloat16) and torch.cuda.get_device_capability(query.device) >= MODERN
    if flash and fits_flash(query, value, how):
        return by_varlen
    return by_flex if min(query.shape[-1], value.shape[-1]) >= NARROWEST else by_sequence


def fits_flash(query: Tensor, value: Tensor, how: Weighing) -> bool:
    """Return whether flash attention has what is asked for: no softcap, and equal widths of at most `WIDEST`."""
    return how.softcap is None and query.shape[-1] == value.shape[-1] <= WIDEST


def by_sequence(query: Tensor, key: Tensor, value: Tensor, ends: Ends, how: Weighing) -> Tensor:
    """Attend by torch's attention of each sequence: see `Kernel`."""
    sizes, seen = ends.queries.diff().tolist(), ends.keys.diff().tolist()
    shared = query.shape[1] != key.shape[1]
    outputs = []
    for q, k, v in zip(query.split(sizes, 2), key.split(seen, 2), value.split(seen, 2), strict=True):
        window = how.window if how.window and k.shape[2] > how.window else None
        if how.softcap is not None:
            outputs.append(_softcapped(q, k, v, how._replace(window=window)))
            continue
        mask = _seen(q, k, window) if window or q.shape[2] != k.shape[2] else None
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=how.dropout, is_causal=mask is None, scale=how.scale, enable_gqa=shared
            )
        )
    return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _softcapped(q: Tensor, k: Tensor, v: Tensor, how: Weighing) -> Tensor:
    """Attention of one sequence by hand, since torch's has no bound of the products."""
    k, v = _for_each_head(q, k, v)
    products = _capped(q @ k.transpose(2, 3) * how.scale, how.softcap or 1.0)
    weights = products.masked_fill(~_seen(q, k, how.window), -torch.inf).float().softmax(-1).to(q.dtype)
    return F.dropout(weights, how.dropout) @ v


def _for_each_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values as often as queries' heads share them; heads are the second dimension."""
    copies = q.shape[1] // k.shape[1]
    return k.repeat_interleave(copies, 1), v.repeat_interleave(copies, 1)


def _capped(products: Tensor, softcap: float) -> Tensor:
    return torch.tanh(products / softcap) * softcap


def _seen(q: Tensor, k: Tensor, window: int | None) -> Tensor:
    """Which keys of a sequence a query attends to, [queries, keys]."""
    more = k.shape[2] - q.shape[2]
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(more)
    return seen & ~seen.tril(more - window) if window else seen


def by_varlen(query: Tensor, key: Tensor, value: Tensor, ends: Ends, how: Weighing) -> Tensor:
    """Attend by flash attention's kernel for unequal lengths, which torch has built in: see `Kernel`."""
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))  # [tokens, heads, width]
    shared = q.shape[1] != k.shape[1]
    sharing: dict[str, Any] = {"enable_gqa": shared} if SHARES else {}
    if shared and not SHARES:
        k, v = _for_each_head(q, k, v)
    output: Any = varlen_attn(
        q,
        k,
        v,
        ends.queries,
        ends.keys,
        ends.most_queries,
        ends.most_keys,
        scale=how.scale,
        window_size=(how.window - 1 if how.window else -1, 0),
        **sharing,
    )
    attended: Tensor = output[None]
    return attended


def by_flex(query: Tensor, key: Tensor, value: Tensor, ends: Ends, how: Weighing) -> Tensor:
    """Attend by FlexAttention, compiled on a GPU: see `Kernel`."""
    attend, softcap = _flex(query.device.type), how.softcap

    def capped(score: Tensor, *_place: Tensor) -> Tensor:
        return _capped(score, softcap or 1.0)

    output: Tensor = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=_block_mask(ends.queries, ends.keys, how.window),
        scale=how.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2).contiguous()


@cache
def _flex(device: str) -> Callable[..., Any]:
    attend: Any = flex_attention
    return torch.compile(attend, dynamic=True) if device == "cuda" else attend


@lru_cache(maxsize=2)
def _block_mask(of_queries: Tensor, of_keys: Tensor, window: int | None) -> BlockMask:
    """Which blocks of queries and keys meet; the layers of a model ask with the same ends, and with one or two windows."""
    queries, keys = _places(of_queries), _places(of_keys)
    from_end = [each - ends[1:][owner] for (owner, each), ends in ((queries, of_queries), (keys, of_keys))]

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        past = from_end[0][query] - from_end[1][key]
        near = (past >= 0) if window is None else (past >= 0) & (past < window)
        return (queries[0][query] == keys[0][key]) & near

    mask: BlockMask = create_block_mask(seen, None, None, len(queries[0]), len(keys[0]), device=str(of_queries.device))
    return mask


def _places(ends: Tensor) -> tuple[Tensor, Tensor]:
    """The sequence of each place of a row, and the place."""
    sequences = torch.repeat_interleave(torch.arange(len(ends) - 1, device=ends.device), ends.diff())
    return sequences, torch.arange(len(sequences), device=ends.device)
