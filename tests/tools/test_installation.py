"""What is installed is held to what the package's metadata asks for."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import mhrctl
from mhrctl.tools import installation
from mhrctl.tools.installation import EXTRAS, Finding, State, extras, requirements, versions

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Made(Distribution):
    """A distribution of mhrctl as a test wants it."""

    def __init__(self, *lines: str, version: str = mhrctl.__version__) -> None:
        self._lines = [f"Version: {version}", *lines]

    def read_text(self, filename: str) -> str | None:
        return "\n".join(["Metadata-Version: 2.4", "Name: mhrctl", *self._lines, ""]) if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has mhrctl installed with such metadata, and these packages beside it."""

    def install(*lines: str, version: str = mhrctl.__version__, **packages: str) -> None:
        def version_of(name: str) -> str:
            if name not in packages:
                raise PackageNotFoundError(name)
            return packages[name]

        monkeypatch.setattr(installation, "distribution", lambda name: Made(*lines, version=version))  # noqa: ARG005
        monkeypatch.setattr(installation, "version", version_of)

    return install


def by_name(findings: Any) -> dict[str, Finding]:
    return {each.name: each for each in findings}


def test_every_extra_says_what_it_is_for() -> None:
    assert set(PROJECT["optional-dependencies"]) - {"test", "dev"} <= set(EXTRAS)


def test_packages_are_held_to_their_ranges(installed: Any) -> None:
    installed(
        "Requires-Dist: torch>=2.11", "Requires-Dist: dvc<4,>=3.66.1", "Requires-Dist: rich>=13", torch="2.13.0+cpu", dvc="4.0"
    )
    packages = by_name(versions())
    assert (packages["torch"].says, packages["torch"].state) == ("2.13.0+cpu", State.OK)
    assert packages["dvc"].says == "4.0, where <4,>=3.66.1 is required"
    assert (packages["rich"].state, packages["rich"].remedy) == (State.BROKEN, "pip install 'rich>=13'")
    assert packages["others"].facts == {"versions": {}}


def test_a_version_of_dvc_that_is_allowed_and_not_tested_is_a_warning(installed: Any) -> None:
    installed("Requires-Dist: dvc>=3", dvc="3.1")
    assert by_name(versions())["dvc"].state is State.WARNING


def test_another_mhrctl_than_the_installed_one_is_a_warning(installed: Any) -> None:
    installed(version="9.9")
    assert by_name(versions())["mhrctl"].says.endswith("; installed is 9.9")
    assert by_name(versions())["mhrctl"].state is State.WARNING


def test_without_metadata_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, "distribution", missing)
    assert "not installed" in by_name(versions())["mhrctl"].says
    assert set(by_name(extras())) == {"trackers", "git"}


def test_extras_name_what_is_missing_and_for_what(installed: Any) -> None:
    dask = ['Requires-Dist: distributed>=2026.8; extra == "dask"', 'Requires-Dist: dask-jobqueue>=0.9; extra == "dask"']
    peft = ['Requires-Dist: peft>=0.18; extra == "peft"', "Requires-Dist: torch>=2"]
    gguf = ['Requires-Dist: gguf>=0.10; extra == "gguf"']
    names = [f"Provides-Extra: {name}" for name in ("dask", "peft", "gguf", "test")]
    installed(*names, *dask, *peft, *gguf, torch="2.6", distributed="2026.8", peft="0.17", gguf="0.19")
    findings = by_name(extras())
    assert findings["dask"].says == "without dask-jobqueue"
    assert findings["dask"].state is State.ABSENT
    assert findings["dask"].remedy == "for mhrctl run --dask, --dask-config: pip install 'mhrctl[dask]'"
    assert (findings["peft"].says, findings["peft"].state) == ("peft 0.17, where >=0.18 is required", State.WARNING)
    assert (findings["gguf"].says, findings["gguf"].remedy) == ("gguf 0.19", "")
    assert "test" not in findings


def test_requirements_of_other_machines_are_left_out() -> None:
    other = 'Requires-Dist: pywin32; sys_platform == "win32"'
    both = 'Requires-Dist: rich; python_version >= "3.11"'
    extra = 'Requires-Dist: gguf; extra == "gguf" and python_version >= "3.11"'
    of = Made("Provides-Extra: gguf", other, both, extra)
    assert [each.name for each in requirements(of, None)] == ["rich"]
    assert [each.name for each in requirements(of, "gguf")] == ["gguf"]


def test_trackers_and_git_that_are_not_here_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(installation, "_is_installed", lambda name: False)  # noqa: ARG005
    findings = by_name(extras())
    assert findings["trackers"].state is findings["git"].state is State.ABSENT
    assert findings["trackers"].says.startswith("none of tensorboard, ")
