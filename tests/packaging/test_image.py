"""The Dockerfile copies what there is and what is sent to it, and its image runs the demo as nobody special."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.packaging.test_constraints import PROJECT, pythons

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LINES = [line for line in re.sub(r"\\\n", " ", TEXT).splitlines() if line and not line.startswith("#")]
SENT = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]


def instructions(kind: str) -> list[str]:
    return [line.partition(" ")[2].strip() for line in LINES if line.partition(" ")[0] == kind]


def copied() -> list[str]:
    return [word for line in instructions("COPY") for word in shlex.split(line)[:-1] if not word.startswith("--")]


def test_every_copied_path_exists_and_is_sent() -> None:
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert [path for path in copied() if not any(sent == path or sent.startswith(f"{path}/") for sent in SENT)] == []
    assert [sent for sent in SENT if not (ROOT / sent).exists()] == []


def test_nothing_is_sent_but_what_is_named() -> None:
    assert "\n*\n" in (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert set(SENT) == {path for path in copied() if path not in (".dvc", "data")} | {
        ".dvc/config",
        ".dvc/plots",
        "data/cells",
        "data/metrics",
    }


def test_the_package_has_what_it_is_built_from() -> None:
    build = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "mhrctl"}
    assert build <= set(copied())


def test_base_image_and_index_are_arguments_and_the_base_a_supported_python() -> None:
    arguments = dict(line.split("=", 1) for line in instructions("ARG"))
    assert set(arguments) == {"BASE", "TORCH_INDEX", "EXTRAS"}
    assert instructions("FROM") == ["${BASE}"]
    assert arguments["TORCH_INDEX"].endswith("/cpu")
    assert re.fullmatch(r"python:(3\.\d+)-slim", arguments["BASE"])[1] in pythons()
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


def test_it_runs_as_nobody_special_and_make_finds_its_environment() -> None:
    assert instructions("USER") == ["1000:1000"]
    assert LINES.index("USER 1000:1000") < next(number for number, line in enumerate(LINES) if "data data" in line)
    variables = dict(each.split("=", 1) for line in instructions("ENV") for each in shlex.split(line))
    assert variables["MAKEFLAGS"] == f"VENV={variables['VIRTUAL_ENV']}"
    assert variables["PATH"].startswith(f"{variables['VIRTUAL_ENV']}/bin:")
    assert any(f"touch {variables['VIRTUAL_ENV']}/ready" in line for line in instructions("RUN"))


def test_the_layer_of_torch_depends_on_its_version_alone() -> None:
    torch = next(number for number, line in enumerate(LINES) if line.rstrip().endswith("torch"))
    assert [line for line in LINES[:torch] if line.startswith("COPY")] == ["COPY constraints.txt ./"]
