from __future__ import annotations

import pytest
import torch

from mhrctl.adapters.finite import all_finite, is_finite, require_finite
from mhrctl.errors import ArtifactError, DataError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_seen_wherever_it_is(dtype: torch.dtype, bad: float) -> None:
    for place in (0, 5, 11):
        tensor = torch.randn(3, 4).to(dtype)
        assert is_finite(tensor)
        tensor.view(-1)[place] = bad
        assert not is_finite(tensor)


def test_one_of_several_tensors_is_enough() -> None:
    tensors = [torch.ones(3), torch.tensor([1, 2]), torch.empty(0), torch.ones(2, dtype=torch.bfloat16)]
    assert all_finite(tensors)
    assert all_finite([])
    assert not all_finite([*tensors, torch.tensor(float("nan"))])
    assert is_finite(torch.tensor([True]))


def test_the_largest_numbers_are_finite() -> None:
    assert is_finite(torch.full((9,), torch.finfo(torch.float32).max))


def test_the_error_names_what_is_wrong_and_where() -> None:
    bad = torch.tensor([1.0, float("nan")])
    require_finite({"a": torch.ones(2), "b": torch.tensor([1, 2]), "c": torch.empty(0)}, "file")
    with pytest.raises(DataError, match=r"^file: b holds NaN or infinity; mend it$"):
        require_finite({"a": torch.ones(2), "b": bad}, "file", how="mend it")
    with pytest.raises(ArtifactError, match=r"^file: a, b, c and 2 more hold NaN or infinity$"):
        require_finite(dict.fromkeys("abcde", bad), "file", error=ArtifactError)
