"""What a quick command must not wait for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("config", "artifacts")
MODULES = [f"mhrctl.{room}.{path.stem}" for room in ROOMS for path in (ROOT / "mhrctl" / room).glob("[!_]*.py")]
LIGHT = [*MODULES, "mhrctl.projects.templates", "mhrctl.tools.grid"]
HELP = """
import sys
from mhrctl.cli.app import main
sys.argv = ["mhrctl", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""


@pytest.mark.parametrize("code", ["import " + ", ".join(sorted(LIGHT)), HELP], ids=["modules", "help"])
def test_neither_torch_nor_transformers_is_imported(code: str) -> None:
    heavy = 'import sys; sys.exit(", ".join({"torch", "transformers"} & set(sys.modules)) or 0)'
    done = subprocess.run([sys.executable, "-c", f"{code}\n{heavy}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
