"""Samples of a pool are kept beside its adapters, and read evenly spread."""

from __future__ import annotations

from pathlib import Path

from mhrctl.data.samples import read_samples, spread, write_samples


def test_samples_come_back_by_adapter_and_evenly_spread(tmp_path: Path) -> None:
    write_samples({"many": [str(number) for number in range(9)], "few": ["one\ntwo"], "none": []}, tmp_path)
    assert read_samples(tmp_path, 3) == {"many": ["0", "3", "6"], "few": ["one\ntwo"]}
    assert read_samples(tmp_path, 100)["many"] == [str(number) for number in range(9)]


def test_a_pool_may_have_none(tmp_path: Path) -> None:
    assert read_samples(tmp_path, 3) == {}


def test_places_are_spread_over_all() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(2, 4) == [0, 1]
    assert spread(0, 4) == []
