"""Each kernel of packed attention against attention written out by hand, a sequence and a head at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mhrctl.models import attention_kernels
from mhrctl.models.attention_kernels import Ends, Kernel, Weighing, by_flex, by_sequence, by_varlen, fits_flash, kernel_of

SIZES = ((5, 5), (1, 1), (9, 9), (3, 7), (1, 4))
"""Queries and keys of each sequence."""
HEADS, WIDTH = 4, 8
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # as it is on a CPU
KERNELS = pytest.mark.parametrize("kernel", [by_sequence, by_flex])


def made(key_heads: int, dtype: torch.dtype = torch.float32, width: int = WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a row."""
    generator = torch.Generator().manual_seed(key_heads)
    queries, keys = (sum(sizes) for sizes in zip(*SIZES, strict=True))
    shapes = ((HEADS, queries), (key_heads, keys), (key_heads, keys))
    query, key, value = (torch.randn(1, *shape, width, generator=generator).to(dtype) for shape in shapes)
    return query, key, value


def ends() -> Ends:
    queries, keys = (
        torch.tensor([0, *sizes], dtype=torch.int32).cumsum(0, dtype=torch.int32) for sizes in zip(*SIZES, strict=True)
    )
    return Ends(queries, keys, max(size for size, _ in SIZES), max(size for _, size in SIZES))


def by_hand(parts: tuple[Tensor, Tensor, Tensor], how: Weighing) -> Tensor:
    query, key, value = parts
    output = torch.zeros(1, query.shape[2], HEADS, WIDTH, dtype=query.dtype)
    for head in range(HEADS):
        shared, at, key_at = head * key.shape[1] // HEADS, 0, 0
        for queries, keys in SIZES:
            for token in range(queries):
                last = keys - queries + token
                first = 0 if how.window is None else max(0, last - how.window + 1)
                seen = slice(key_at + first, key_at + last + 1)
                products = key[0, shared, seen] @ query[0, head, at + token] * how.scale
                if how.softcap is not None:
                    products = how.softcap * torch.tanh(products / how.softcap)
                output[0, at + token, head] = products.softmax(0) @ value[0, shared, seen]
            at, key_at = at + queries, key_at + keys
    return output


@KERNELS
@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 3, 50])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_a_token_sees_the_keys_up_to_its_place(
    kernel: Kernel, key_heads: int, window: int | None, softcap: float | None
) -> None:
    parts, how = made(key_heads), Weighing(0.9, window, softcap)
    output = kernel(*parts, ends(), how)
    torch.testing.assert_close(output, by_hand(parts, how), rtol=1e-5, atol=1e-6)
    assert output.is_contiguous()


@pytest.mark.parametrize("how", [Weighing(0.9), Weighing(0.9, 3), Weighing(0.9, 3, 0.7)])
def test_gradients_are_those_by_hand(how: Weighing) -> None:
    given, by = ([each.double().requires_grad_() for each in made(2)] for _ in range(2))
    counts = torch.randn(1, sum(size for size, _ in SIZES), HEADS, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    (by_sequence(given[0], given[1], given[2], ends(), how) * counts).sum().backward()
    (by_hand((by[0], by[1], by[2]), how) * counts).sum().backward()
    for one, other in zip(given, by, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 3])
def test_flash_attention_is_asked_in_its_words(
    monkeypatch: pytest.MonkeyPatch, key_heads: int, window: int | None, shares: bool
) -> None:
    """Torch's kernel runs on a GPU alone; here its arguments are read as its documentation says."""

    def documented(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, **options: Any
    ) -> Tensor:
        assert (max_q, max_k) == (9, 9)
        assert options.keys() == {"scale", "window_size"} | ({"enable_gqa"} if shares else set())
        assert options.get("enable_gqa", False) == (query.shape[1] != key.shape[1])
        left, right = options["window_size"]
        assert right == 0  # causal
        outputs = []
        sequences = zip(
            query.split(cu_seq_q.diff().tolist()), *(each.split(cu_seq_k.diff().tolist()) for each in (key, value)), strict=True
        )
        for q, k, v in sequences:
            keys, values = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
            products = torch.einsum("qhd,khd->hqk", q, keys) * options["scale"]
            past = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))
            products = products.masked_fill((past < 0) | ((past > left) if left >= 0 else False), -torch.inf)
            outputs.append(torch.einsum("hqk,khd->qhd", products.softmax(-1), values))
        return torch.cat(outputs)

    monkeypatch.setattr(attention_kernels, "varlen_attn", documented)
    monkeypatch.setattr(attention_kernels, "SHARES", shares)
    parts, how = made(key_heads), Weighing(0.9, window)
    torch.testing.assert_close(by_varlen(*parts, ends(), how), by_hand(parts, how), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("how", [Weighing(0.9), Weighing(0.9, 3), Weighing(0.9, 3, 0.7)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpu_attends_as_a_cpu_does(key_heads: int, how: Weighing, dtype: torch.dtype) -> None:
    """The kernel that a GPU takes, and its gradients, against torch's attention of each sequence in double precision."""
    expected = [each.double().requires_grad_() for each in made(key_heads, dtype, 64)]
    given = [each.cuda().requires_grad_() for each in made(key_heads, dtype, 64)]
    here = ends()
    there = here._replace(queries=here.queries.cuda(), keys=here.keys.cuda())
    kernel = kernel_of(given[0], given[2], how)
    assert kernel is (by_varlen if dtype == torch.bfloat16 and how.softcap is None else by_flex)
    output = kernel(given[0], given[1], given[2], there, how)
    right = by_sequence(expected[0], expected[1], expected[2], here, how)
    counts = torch.randn(right.shape, generator=torch.Generator().manual_seed(0)).double()
    (output * counts.to(output)).sum().backward()
    (right * counts).sum().backward()
    most = 2e-2 if dtype == torch.bfloat16 else 2e-3
    assert difference(output, right) < most
    for one, other in zip(given, expected, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert difference(one.grad, other.grad) < most


def difference(one: Tensor, other: Tensor) -> float:
    """Of two tensors, relative to the second."""
    return float(((one.double().cpu() - other).norm() / other.norm()).detach())


def test_flash_attention_takes_what_it_has() -> None:
    query, _, value = made(2)
    assert fits_flash(query, value, Weighing(1.0, 3))
    assert not fits_flash(query, value, Weighing(1.0, softcap=3.0))
    assert not fits_flash(query, value[..., :4], Weighing(1.0))
    assert not fits_flash(torch.zeros(1, 1, 1, 512), torch.zeros(1, 1, 1, 512), Weighing(1.0))


@pytest.mark.parametrize(
    ("dtype", "width", "capability", "how", "kernel"),
    [
        (torch.bfloat16, 64, (9, 0), Weighing(1.0), by_varlen),
        (torch.float16, 8, (8, 0), Weighing(1.0, 7), by_varlen),
        (torch.float32, 64, (9, 0), Weighing(1.0), by_flex),
        (torch.float32, 8, (9, 0), Weighing(1.0), by_sequence),
        (torch.bfloat16, 64, (7, 5), Weighing(1.0), by_flex),
        (torch.bfloat16, 16, (9, 0), Weighing(1.0, softcap=2.0), by_flex),
        (torch.bfloat16, 64, (9, 0), Weighing(1.0, dropout=0.1), by_sequence),
    ],
)
def test_a_gpu_runs_the_fastest_that_it_has(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, width: int, capability: tuple[int, int], how: Weighing, kernel: Kernel
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    row: Any = SimpleNamespace(device=torch.device("cuda", 0), shape=(1, 4, 9, width), dtype=dtype)
    assert kernel_of(row, row, how) is kernel
    query, _, value = made(2, dtype)
    assert kernel_of(query, value, how) is by_sequence  # on a CPU


def test_layers_share_a_mask_of_the_same_sequences() -> None:
    where, parts = ends(), made(2)
    attention_kernels._block_mask.cache_clear()
    for _layer in range(3):
        by_flex(*parts, where, Weighing(1.0, 3))
        by_flex(*parts, where, Weighing(1.0))
    assert attention_kernels._block_mask.cache_info().misses == 2
