"""DVC's internals: that they are as tested, and that it is reported when they are not."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from mhrctl.running import internals
from mhrctl.running.internals import INTERNALS, InternalsError, check_internals, silent_dvc


def test_the_installed_dvc_is_as_tested() -> None:
    """If this fails after an upgrade: `mhrctl run` falls back to DVC's command line until engine.py is mended."""
    check_internals()


def test_what_the_engine_imports_is_checked() -> None:
    source = Path(internals.__file__).with_name("engine.py").read_text()
    imported = {
        f"{module}:{name.strip()}"
        for line in source.splitlines()
        if line.strip().startswith("from dvc")
        for module, names in [line.strip().removeprefix("from ").split(" import ")]
        for name in names.split(",")
    }
    known = {*INTERNALS, *(name.rsplit(".", 1)[0] for name in INTERNALS)}
    assert imported
    assert imported <= known, imported - known


def test_nothing_else_of_a_run_imports_dvc() -> None:
    folder = Path(internals.__file__).parent
    imports = re.compile(r"^\s*(from|import) dvc\b", re.MULTILINE)
    importing = {path.name for path in folder.glob("*.py") if imports.search(path.read_text())}
    assert importing == {"engine.py"}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dvc.stage:Stage.save", ("self", "with_run_cache"), "Stage.save of dvc.stage is not as tested"),
        ("dvc.stage:Stage.store", ("self",), "Stage.store of dvc.stage is not as tested"),
        ("dvc.nowhere:thing", (), "thing of dvc.nowhere is not as tested"),
    ],
)
def test_changed_internals_are_reported(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setitem(INTERNALS, name, arguments)
    with pytest.raises(InternalsError, match=message):
        check_internals()


def test_an_untested_version_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "version", lambda name: "4.0.1" if name == "dvc" else "0")
    with pytest.raises(InternalsError, match=r"dvc 4\.0\.1 is not among the tested versions"):
        check_internals()


def test_dvc_is_silent_for_a_while() -> None:
    loggers = [logging.getLogger(name) for name in ("dvc.repo.init", "dvc_objects", "dvc_data")]
    before = [logger.getEffectiveLevel() for logger in loggers]
    with pytest.raises(ZeroDivisionError), silent_dvc():
        assert not any(logger.isEnabledFor(logging.ERROR) for logger in loggers)
        raise ZeroDivisionError
    assert [logger.getEffectiveLevel() for logger in loggers] == before
