"""A row knows whether its package is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.errors import TrackingError
from mhrctl.tracking.backend import Backend, Subject


def test_a_package_is_looked_for_without_being_imported() -> None:
    def opens(_: object) -> None:
        pytest.fail("a row must not be opened to look for its package")

    Backend("any", "this", opens).require()  # type: ignore[arg-type]  # importing `this` would print
    with pytest.raises(TrackingError, match=r"^the package a-tracker is not installed; run `pip install a-tracker`$"):
        Backend("a-tracker", "no_such_module", opens).require()  # type: ignore[arg-type]


def test_settings_are_flat_and_say_whose_they_are() -> None:
    settings = {
        "cell": {"method": "mhr", "pretrain_seed": None},
        "pretrain": {"lr": 0.1, "targets": ["q", "v"], "shuffle": True},
    }
    subject = Subject("p", "pretrain", Path(), cell="mhr-h4-s0", group="mhr-h4", settings=settings, key="k")
    assert subject.config == {
        "stage": "pretrain",
        "group": "mhr-h4",
        "key": "k",
        "cell.method": "mhr",
        "pretrain.lr": 0.1,
        "pretrain.targets": '["q", "v"]',
        "pretrain.shuffle": True,
    }
    assert (subject.name, Subject("p", "backbone", Path()).name) == ("pretrain-mhr-h4-s0", "backbone")
