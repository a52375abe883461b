"""The names of stages."""

from __future__ import annotations

import pytest

from mhrctl.running.pipeline import command_of, stage_of


@pytest.mark.parametrize(
    ("name", "stage", "command"),
    [
        ("pretrain@mhr-h8-s0", "pretrain", "pretrain"),
        ("study/dvc.yaml:evaluate-zero-shot@a", "evaluate-zero-shot", "evaluate"),
        ("report", "report", "report"),
    ],
)
def test_a_cells_stage_and_command_are_in_its_name(name: str, stage: str, command: str) -> None:
    assert stage_of(name) == stage
    assert command_of(stage) == command
