"""Every row fits accelerate, and is refused in one line where its package is missing."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from mhrctl.errors import ParamsError, TrackingError
from mhrctl.tracking import accelerated, backend, tensorboard, trackio, wandb
from mhrctl.tracking.backend import Subject
from mhrctl.tracking.table import TRACKERS, named, require_trackers
from tests.conftest import Run

SUBJECT = Subject(
    "study", "pretrain", Path("data/log/tracking"), cell="lora-s0", group="lora", settings={"lr": 0.1}, entry="e1"
)


def test_the_rows_are_the_trackers_that_accelerate_knows() -> None:
    assert set(TRACKERS) == {str(name) for name in LOGGER_TYPE_TO_CLASS}


ON_OPENING = {"mlflow"}
"""Rows that ask the package itself something on opening, so that it must be there."""


@pytest.mark.parametrize("name", sorted(set(TRACKERS) - ON_OPENING))
def test_the_arguments_of_a_row_fit_accelerates_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages may be missing, so a class is called without its start: arguments that it does not take would show."""
    real = LOGGER_TYPE_TO_CLASS[name]
    given: dict[str, Any] = {}

    class Unstarted:
        tracker = Mock()

        def __init__(self, *args: object, **options: object) -> None:
            given.update(inspect.signature(real.__init__).bind(self, *args, **options).arguments)

        def start(self) -> None:
            pass

        def store_init_configuration(self, values: object) -> None:
            given["config"] = values

    for module in (accelerated, tensorboard, trackio, wandb):
        monkeypatch.setattr(module, "tracker_class", {name: Unstarted}.__getitem__)
    TRACKERS[name].opens(SUBJECT)
    assert "pretrain-lora-s0" in str(given)
    assert "'lr': 0.1" in str(given) or name == "tensorboard"  # which writes settings with the first numbers
    if real.requires_logging_directory:
        assert given["logging_dir"] == "data/log/tracking"


@pytest.mark.parametrize("name", sorted(set(TRACKERS) - {"tensorboard", "aim"}))
def test_what_can_reach_a_server_is_kept_from_it(name: str) -> None:
    """TensorBoard and Aim write files and nothing else."""
    assert TRACKERS[name].local(SUBJECT)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_line_before_anything_is_done(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda _: None)
    assert run("backbone", "--track", name, "-C", project) == 2
    package = TRACKERS[name].package
    error = capfd.readouterr().err
    assert error == f"error: --track {name}: the package {package} is not installed; run `pip install {package}`\n"
    with pytest.raises(TrackingError, match="is not installed"):
        require_trackers([name])


def test_an_unknown_tracker_is_rejected_with_the_known() -> None:
    with pytest.raises(ParamsError, match=r"--track: unknown tracker 'wandbb'; did you mean 'wandb'\?$"):
        require_trackers(["tensorboard", "wandbb"])


def test_the_table_imports_neither_torch_nor_a_tracker() -> None:
    code = "import json, sys, mhrctl.tracking.table, mhrctl.tracking.recording; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout))
    assert not loaded & {"torch", "accelerate", *(row.module for row in TRACKERS.values())}


def test_names_can_have_commas_between_them() -> None:
    assert named(["trackio,wandb", "mlflow", " , tensorboard "]) == ["trackio", "wandb", "mlflow", "tensorboard"]


def test_commas_work_on_the_command_line_and_in_the_environment(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("backbone", "--track", "tensorboard,nope", "-C", project) == 2
    assert "--track: unknown tracker 'nope'" in capfd.readouterr().err
    monkeypatch.setenv("MHRCTL_TRACK", "tensorboard, nope")
    assert run("backbone", "-C", project) == 2
    assert "--track: unknown tracker 'nope'" in capfd.readouterr().err
