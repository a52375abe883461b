"""`mhrctl doctor`: its table, its document, its exit code, and what it leaves unimported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mhrctl.tools import doctor as tools_doctor
from tests.cli.conftest import Capture, complaint
from tests.conftest import Run

ROOT = Path(__file__).parents[2]
ALONE = """\
import sys
from mhrctl.cli.app import main
sys.argv = ["mhrctl", "doctor", "--json"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
sys.exit(", ".join({"torch", "transformers", "datasets", "accelerate", "pyarrow"} & set(sys.modules)) or 0)
"""


def test_a_table_says_how_things_are_and_fits_a_terminal(copy: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("doctor", "-C", copy) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "can be read: 5 cells" in shown.out
    for heading in (
        "versions",
        "only for some commands",
        "devices",
        "storage",
        "what stages rely on",
        "environment",
        "project",
    ):
        assert f" {heading} " in shown.out


def test_what_is_broken_is_exit_code_1(project: Path, run: Run, capfd: Capture) -> None:
    (project / "params.yaml").write_text("grid: [")
    capfd.readouterr()
    assert run("doctor", "-C", project) == 1
    shown = capfd.readouterr()
    assert "`mhrctl check` says all that is wrong" in shown.out
    assert shown.out.splitlines()[-1].startswith("1 broken")
    assert run("doctor", "--json", "-C", project) == 1
    assert json.loads(capfd.readouterr().out)["ok"] is False


def test_the_document_has_facts(copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHRCTL_TREADS", "4")
    capfd.readouterr()
    assert run("doctor", "--json", "-C", copy) == 0
    document = json.loads(capfd.readouterr().out)
    sections = {heading: {each["name"]: each for each in group} for heading, group in document["sections"].items()}
    assert sections["project"]["params.yaml"]["facts"] == {"cells": 5}
    assert sections["environment"]["MHRCTL_TREADS"]["state"] == "warning"
    assert "MHRCTL_DEVICE" not in sections["environment"]  # it is one
    assert isinstance(sections["storage"]["disk"]["facts"]["free"], int)


def test_variables_of_all_options_are_known(run: Run, capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def look(folder: Path, variables: set[str]) -> dict[str, object]:  # noqa: ARG001 - the arguments of `doctor`
        seen.update(variables)
        return {}

    monkeypatch.setattr(tools_doctor, "doctor", look)
    assert run("doctor", "-C", tmp_path) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "ok: nothing to put right"
    assert seen >= {"MHRCTL_THREADS", "MHRCTL_DEVICE", "MHRCTL_PROJECT", "MHRCTL_TRACK", "MHRCTL_CHECKPOINT_SECONDS"}


def test_a_folder_that_is_not_there_is_one_line(run: Run, capfd: Capture, tmp_path: Path) -> None:
    capfd.readouterr()
    assert run("doctor", "-C", tmp_path / "nowhere") == 2
    assert "no such folder" in complaint(capfd)


def test_it_imports_no_torch_where_there_is_no_gpu(tmp_path: Path) -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ALONE], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
