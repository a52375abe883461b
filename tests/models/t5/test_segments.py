"""Products by group against a plain loop over groups, by every way that leads to them."""

from __future__ import annotations

import pytest
import torch

from mhrctl.models.t5 import segments as module
from mhrctl.models.t5.packing import Stream
from mhrctl.models.t5.segments import Segments

CPU = torch.device("cpu")


@pytest.mark.parametrize("limit", [0, 2**30], ids=["loop", "padded"])
@pytest.mark.parametrize("sizes", [[7], [3, 3], [1, 5, 0, 2]])
@pytest.mark.parametrize("k", [1, 3])
def test_products(limit: int, sizes: list[int], k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.PADDED_BELOW, torch.float32, limit)
    torch.manual_seed(0)
    segments = Segments(sizes, width=4, dtype=torch.float32, device=CPU)
    assert segments.padded == (limit > 0 and len(set(sizes)) > 1)
    x, y, a = torch.randn(sum(sizes), 4), torch.randn(sum(sizes), 5), torch.randn(len(sizes), k, 4)
    b, vectors, weights = torch.randn(len(sizes), k, 5), torch.randn(len(sizes), 5), torch.rand(sum(sizes), 1)
    parts = list(zip(x.split(sizes), y.split(sizes), weights.split(sizes), strict=True))
    low = segments.weigh(segments.reduce(x, a), weights)
    expected = [(matrix @ part.T) * weight.T for matrix, (part, _, weight) in zip(a, parts, strict=True)]
    updated = y.clone()
    segments.expand_(updated, low, b)
    added = [part + product.T @ row for (_, part, _), product, row in zip(parts, expected, b, strict=True)]
    torch.testing.assert_close(updated, torch.cat(added))
    correlated = torch.stack([product @ part for product, (part, _, _) in zip(expected, parts, strict=True)])
    torch.testing.assert_close(segments.correlate(low, x), correlated)
    scaled = torch.cat([part * vector for (_, part, _), vector in zip(parts, vectors, strict=True)])
    torch.testing.assert_close(segments.scale(y, vectors), scaled)


def test_groups_of_rows() -> None:
    segments = Segments.of(Stream((3, 1, 2, 2), None), 2, width=4, dtype=torch.float32, device=CPU)
    assert segments.sizes == [4, 4]
    assert segments.equal
    with pytest.raises(ValueError, match="4 rows has no 3 equal groups"):
        Segments.of(Stream((3, 1, 2, 2), None), 3, width=4, dtype=torch.float32, device=CPU)
