"""Projects of measurements, and the commands of this Python in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.process import SETTINGS

ROOT = Path(__file__).parents[1]


def change_params(project: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Change a project's params.yaml.

    Args:
        project: its folder.
        settings: {section: {key: value}}.
    """
    yaml, file = YAML(), project / "params.yaml"
    content = yaml.load(file)
    for section, values in settings.items():
        content.setdefault(section, {}).update(values)
    yaml.dump(content, file)


def run(project: Path, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of this Python, with the allocator and the compiled modules that users have; so do those of the pipeline.

    Returns:
        What it printed.

    Raises:
        RuntimeError: with all of that, if it fails.
    """
    variables = variables_of(environment or {})
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=project, env=variables, check=False, capture_output=True, text=True)  # noqa: S603 - our own
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def variables_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command, with some variables over it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    kept = {name: value for name, value in os.environ.items() if name not in {*SETTINGS, "PYTHONDONTWRITEBYTECODE"}}
    return kept | {"PATH": path, "PYTHONPATH": python_path, "DVC_NO_ANALYTICS": "1"} | dict(environment)
