"""What is built: a wheel with every file of the package and nothing else, and an sdist that the same wheel is built from."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mhrctl

pytest.importorskip("hatchling", reason="hatchling is in the extra `test`: install that again")

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
NAME = f"mhrctl-{mhrctl.__version__}"
LARGEST = 2_000_000
"""Bytes of either."""
Build = Callable[[str, Path], Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a wheel or an sdist of a source tree."""

    def of(kind: str, source: Path) -> Path:
        out = tmp_path_factory.mktemp(kind)
        code = f"from hatchling.build import build_{kind} as build; print(build({str(out)!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
        (built,) = out.iterdir()
        return built

    return of


@pytest.fixture(scope="session")
def wheel(build: Build) -> Path:
    """The wheel."""
    return build("wheel", ROOT)


@pytest.fixture(scope="session")
def sdist(build: Build) -> Path:
    """The sdist."""
    return build("sdist", ROOT)


def package_files() -> set[str]:
    """The files of the package that git has or would have."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mhrctl"]
    listing = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:  # an sdist, or an export, has no git
        return {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "mhrctl").rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
    return {line for line in listing.stdout.splitlines() if (ROOT / line).exists()}


def wheel_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))


def test_a_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    files = {name for name in wheel_files(wheel) if not name.startswith(f"{NAME}.dist-info/")}
    assert files == package_files()
    assert {Path(name).suffix for name in files} >= {".py", ".jinja", ".json", ".jsonl", ".csv", ".gz", ".typed", ".LICENSE"}
    about = {name.partition("/")[2] for name in wheel_files(wheel) - files}
    assert about == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    assert wheel.stat().st_size < LARGEST


def test_a_wheel_says_what_it_is_for(wheel: Path) -> None:
    about = metadata(wheel)
    assert (about["Requires-Python"], about["License-Expression"]) == (">=3.11", "Apache-2.0")
    assert {"dask", "gguf", "peft", "quantised", "tracking"} <= set(about.get_all("Provides-Extra", []))
    assert any(line.startswith("Paper, https://") for line in about.get_all("Project-URL", []))
    assert "@ file" not in str(about)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{NAME}.dist-info/entry_points.txt").decode().split() == [
            "[console_scripts]",
            "mhrctl",
            "=",
            "mhrctl.__main__:main",
        ]


def test_an_sdist_has_what_a_wheel_is_built_from_and_no_data(sdist: Path, build: Build, tmp_path: Path, wheel: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    assert {name for name in names if not name.startswith("mhrctl/")} == {
        ".gitignore",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
    }
    assert {name for name in names if name.startswith("mhrctl/")} == package_files()
    assert sdist.stat().st_size < LARGEST
    again = build("wheel", tmp_path / NAME)
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MHRCTL_", "VIRTUAL_ENV"))}
    env |= {"PATH": f"{home / 'bin'}{os.pathsep}{env['PATH']}", "HF_HUB_OFFLINE": "1"}

    def run(*words: object, cwd: Path = tmp_path) -> str:
        done = subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    pip = [home / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    asked = [*map(str, pip), "download", "--no-deps", "--dest", str(tmp_path / "probe"), "iniconfig"]
    if subprocess.run(asked, env=env, capture_output=True, check=False).returncode:
        pytest.skip("there is no package registry here, from which the environment would be filled")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel)
    assert f"mhrctl {mhrctl.__version__}" in run("mhrctl", "--version")
    run("mhrctl", "init", "study")
    study = tmp_path / "study"
    assert "ok: nothing to fix" in run("mhrctl", "check", cwd=study)
    assert "can be read: 5 cells" in run("mhrctl", "doctor", cwd=study)
    assert "stages: " in run("mhrctl", "run", "--dry", cwd=study)
    assert str(home) in run("python", "-c", "import mhrctl; print(mhrctl.__file__)", cwd=study)
