"""constraints.txt has a version of everything that pyproject.toml asks for, in its range."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
LINES = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
ASKED = [
    *map(Requirement, PYPROJECT["build-system"]["requires"]),
    *map(Requirement, PROJECT["dependencies"]),
    *(Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines),
    *(Requirement(line) for lines in GROUPS.values() for line in lines),
]


def versions() -> dict[str, list[str]]:
    """{package: its versions; several where Pythons or systems differ}."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for line in LINES:
        (pin,) = line.specifier
        assert pin.operator == "=="
        by_name[canonicalize_name(line.name)].append(pin.version)
    return by_name


@pytest.mark.parametrize("asked", [each for each in ASKED if each.name != "mhrctl"], ids=str)
def test_what_is_asked_for_has_a_version_in_its_range(asked: Requirement) -> None:
    pinned = versions().get(canonicalize_name(asked.name), [])
    assert pinned, f"{asked.name} has no line in constraints.txt; run `make constraints`"
    assert all(asked.specifier.contains(version) for version in pinned)


def test_a_package_has_two_lines_only_for_different_machines() -> None:
    lines = [(canonicalize_name(line.name), str(line.marker)) for line in LINES]
    assert len(lines) == len(set(lines))
    repeated = [line for line in LINES if len(versions()[canonicalize_name(line.name)]) > 1]
    assert all(line.marker for line in repeated)


def test_no_package_is_held_back_from_a_python_that_is_supported() -> None:
    for python in pythons():
        environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        here = [line for line in LINES if line.marker is None or Marker(str(line.marker)).evaluate(environment)]
        names = {canonicalize_name(line.name) for line in here}
        assert {"torch", "transformers", "dvc", "pydantic"} <= names
        assert len(names) == len(here)


def pythons() -> list[str]:
    """The versions of Python that the metadata names."""
    return [
        match[1]
        for each in PROJECT["classifiers"]
        if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
    ]


def test_pythons_agree() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert pythons() == [f"3.{minor}" for minor in range(11, 15)]
    assert [each for each in pythons() if each not in supported] == []
    assert "3.10" not in supported


def test_the_files_of_gemma_are_those_that_make_fetches() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    prefix, parts = re.findall(r"^GEMMA_PACKAGES := \$\(addprefix (\S+),(.*)\)$", text, flags=re.MULTILINE)[0]
    assert GROUPS["gemma"] == [f"{prefix}{part}" for part in parts.split()]
