"""What the readers share: layers that must agree, errors that name a few, and files that may come from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mhrctl.errors import DataError
from mhrctl.interchange.weights import LayerSkills, load_tensors, no_such_layer, refused, skill_weights

FILE = Path("x.pt")


def skills(*, heads: int = 2, count: int = 3, rank: int = 4, tasks: int | None = 5, width: int = 16) -> LayerSkills:
    routing = None if tasks is None else torch.zeros(tasks, heads, count)
    return LayerSkills(torch.zeros(heads, count, width // heads, rank), torch.zeros(heads, count, rank, 8), routing)


def test_layers_may_differ_in_their_widths_alone() -> None:
    weights = skill_weights(FILE, 1.5, {"a": skills(), "b": skills(width=32)})
    assert (weights.alpha, weights.rank, weights.heads, weights.skills) == (1.5, 4, 2, 3)
    assert list(weights.layers) == ["a", "b"]


@pytest.mark.parametrize("other", [{"heads": 4}, {"count": 2}, {"rank": 1}, {"tasks": 6}, {"tasks": None}])
def test_layers_that_differ_are_named(other: dict[str, int | None]) -> None:
    with pytest.raises(DataError, match=r"^x\.pt: b: differ from a in heads, skills, rank or tasks"):
        skill_weights(FILE, 1.0, {"a": skills(), "b": skills(**other)})  # type: ignore[arg-type]


def test_an_error_names_three_and_counts_the_rest() -> None:
    assert str(refused(FILE, ["a", "b\n", "c", "d", "e"], "why")) == r"x.pt: a, 'b\n', c and 2 more: why"
    assert str(refused(FILE, ["a"], "why")) == "x.pt: a: why"
    assert "named like encoder.q)" in str(no_such_layer(FILE, ["x"], {"encoder.q": (1, 1)}))
    assert "named like none)" in str(no_such_layer(FILE, ["x"], {}))


def test_both_kinds_of_file_are_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(tensors, tmp_path / "x.anything")
    for name in ("x.safetensors", "x.anything"):
        content = load_tensors(tmp_path / name)
        assert isinstance(content, dict)
        torch.testing.assert_close(content, tensors)


def test_a_file_that_is_missing_or_damaged_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.pt: no such file$"):
        load_tensors(tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match=r"x\.safetensors: no safetensors file \(.+\)$") as error:
        load_tensors(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value)
    (tmp_path / "x.pt").write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match=r"x\.pt: not a file that torch\.save wrote, or a damaged one \(\w+\)$"):
        load_tensors(tmp_path / "x.pt")
