"""The shell completes commands, cells and methods, without loading what takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command

from mhrctl.artifacts.names import Project
from mhrctl.cli.app import app
from mhrctl.cli.completion import complete_cell, complete_method, complete_recipe, synced_name
from mhrctl.errors import ParamsError
from tests.conftest import Run

ROOT = Path(__file__).parents[2]
ALONE = """\
import sys
from mhrctl.cli.app import main
sys.argv = ["mhrctl"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
sys.exit(", ".join({"torch", "transformers", "datasets", "accelerate", "pyarrow", "numpy"} & set(sys.modules)) or 0)
"""


def completed(words: str, project: Path) -> list[str]:
    """What a shell is offered for the last word."""
    asked = {"_MHRCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env={**os.environ, **asked, "PYTHONPATH": str(ROOT), "MHRCTL_PROJECT": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_shell_is_offered_commands_cells_and_methods(project: Path, run: Run) -> None:
    assert run("grid", "sync", "-C", project) == 0
    assert completed("mhrctl pr", project) == ["prepare", "pretrain", "predict"]
    assert completed("mhrctl adapt mhr-", project) == ["mhr-h4-s0"]
    assert completed("mhrctl adapt --method poly_", project) == ["poly_z", "poly_mu"]


def test_cells_are_those_of_the_project_that_is_named(
    project: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert run("grid", "sync", "-C", project) == 0
    context = Context(get_command(app))
    context.params = {"project": project}
    assert complete_cell(context, "l") == ["lora-s0"]
    assert "backbone" not in complete_cell(context, "")
    context.params = {"project": tmp_path_factory.mktemp("empty")}
    assert complete_cell(context, "") == []


def test_methods_and_recipes() -> None:
    assert complete_method("mhr_") == ["mhr_z", "mhr_mu"]
    assert complete_recipe("t") == ["t0"]


def test_a_synced_cell_goes_by_a_part_of_its_name(project: Path, run: Run) -> None:
    params = project / "params.yaml"
    params.write_text(
        params.read_text().replace("seeds: [0]", "seeds: [10, 2]").replace("mhr_z: {heads: [4]}", "mhr_z: {heads: [4, 2]}")
    )
    assert run("grid", "sync", "-C", project) == 0
    where = Project(project)
    assert synced_name(where, "mhr-h4") == "mhr-h4-s2"
    assert synced_name(where, "mhr h4") == "mhr-h4-s2"
    assert synced_name(where, "MHR_MU") == "mhr_mu-h4-s2"
    assert synced_name(where, "lora-s9") == "lora-s9"
    with pytest.raises(ParamsError, match="mhr_z can be mhr_z-h2, mhr_z-h4; name one of them"):
        synced_name(where, "mhr_z")
