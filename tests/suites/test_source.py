"""Every source's module reads and checks with the same arguments."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from mhrctl.config.sources import SOURCES
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.suites.source import SourceModule, source_module
from mhrctl.suites.task import Suite


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("function", ["read", "check"])
def test_every_module_has_the_functions_of_a_source(name: str, function: str) -> None:
    wanted = [*inspect.signature(getattr(SourceModule, function)).parameters.values()][1:]  # without self
    given = [*inspect.signature(getattr(source_module(name), function)).parameters.values()]
    assert [(each.name, each.annotation) for each in given] == [(each.name, each.annotation) for each in wanted]


def test_a_source_gives_a_suite_of_its_name(tmp_path: Path) -> None:
    from mhrctl.config.tasks import PrepareParams
    from mhrctl.progress import silent

    params = PrepareParams(source="compositional", tokenizer="word")
    suite = source_module("compositional").read(params, tmp_path, metrics=OVER_CHOICES, track=silent)
    assert isinstance(suite, Suite)
    assert suite.name == "compositional"


def test_an_unknown_source_is_none() -> None:
    with pytest.raises(KeyError):
        source_module("web")
