"""The workflows of GitHub Actions name what there is: targets, files, Pythons, with few rights and pinned actions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.packaging.test_constraints import PROJECT, pythons

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github/workflows"
WORKFLOWS = {path.stem: YAML(typ="safe").load(path) for path in sorted(FOLDER.glob("*.yml"))}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
MAKES = ("build", "dist", "site", "study")
"""Folders that steps make."""


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workflow in WORKFLOWS.items():
        for job, body in workflow["jobs"].items():
            yield f"{name}:{job}", body


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs():
        for step in job["steps"]:
            yield name, step


def commands() -> list[tuple[str, str]]:
    return [(name, step["run"]) for name, step in steps() if "run" in step]


def test_there_is_one_for_each_purpose() -> None:
    assert set(WORKFLOWS) == {"tests", "wheel", "docs", "nightly"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_those_to_read(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    written = {job: body.get("permissions", {}) for job, body in jobs() if job.startswith(f"{name}:")}
    more = {job: rights for job, rights in written.items() if rights}
    assert more == {
        "docs": {"docs:deploy": {"pages": "write", "id-token": "write"}},
        "wheel": {"wheel:publish": {"id-token": "write"}},
    }.get(name, {})


def test_what_goes_out_is_of_main_or_of_a_tag() -> None:
    assert WORKFLOWS["docs"]["jobs"]["deploy"]["if"] == "github.ref == 'refs/heads/main'"
    publish = WORKFLOWS["wheel"]["jobs"]["publish"]
    assert publish["if"] == "github.ref_type == 'tag'"
    assert set(publish["needs"]) == {"build", "try"}


def test_actions_have_a_version_and_jobs_an_end() -> None:
    used = {step["uses"] for _, step in steps() if "uses" in step}
    assert [name for name in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+|[0-9a-f]{40})", name)] == []
    assert [name for name, job in jobs() if not 0 < job["timeout-minutes"] <= 120] == []


def test_checkouts_keep_no_credentials() -> None:
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_input_of_others_is_put_into_a_command() -> None:
    assert [text for _, text in commands() if "${{" in text] == []


def test_targets_of_make_exist() -> None:
    asked = {
        word for _, text in commands() for line in text.splitlines() if line.startswith("make ") for word in line.split()[1:]
    }
    assert asked == {"check", "test", "docs"}
    assert asked - TARGETS == set()


def test_files_that_are_named_exist() -> None:
    named = [
        str(step["with"][key])
        for _, step in steps()
        for key in ("path", "cache-dependency-path", "cache-dependency-glob")
        if key in step.get("with", {})
    ]
    named += [step["working-directory"] for _, step in steps() if "working-directory" in step]
    assert [name for name in named if not (ROOT / name).exists() and name.rstrip("/") not in MAKES] == []


def test_every_supported_python_is_tested() -> None:
    for name, job in (("tests", "test"), ("wheel", "try")):
        assert WORKFLOWS[name]["jobs"][job]["strategy"]["matrix"]["python"] == pythons()


def test_the_nightly_run_is_held_by_no_constraint() -> None:
    lines = [text for name, text in commands() if name.startswith("nightly:")]
    assert not any("constraint" in text for text in lines)
    matrix = WORKFLOWS["nightly"]["jobs"]["newest"]["strategy"]["matrix"]["include"]
    assert matrix[0]["packages"].split() == ["transformers", "peft", "dvc"]
    assert "dev" in PROJECT["optional-dependencies"]
    assert YAML(typ="safe").load(FOLDER / "nightly.yml")["on"]["schedule"][0]["cron"].count(" ") == 4
