"""Names of a project's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.names import Project, folder_name

WHERE = Project(Path("p"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (WHERE.params, "p/params.yaml"),
        (WHERE.output("prepare"), "p/data/prepare"),
        (WHERE.output("adapt", "lora-s0"), "p/data/adapt/lora-s0"),
        (WHERE.cell_file("lora-s0"), "p/data/cells/lora-s0.json"),
        (WHERE.cell_index, "p/data/cells/index.yaml"),
        (WHERE.stage_versions, "p/data/cells/versions.json"),
        (WHERE.scratch, "p/data/scratch"),
        (WHERE.scores("lora-s0"), "p/data/metrics/evaluate/lora-s0.json"),
        (WHERE.training_log("lora-s0"), "p/data/metrics/pretrain/lora-s0.csv"),
        (WHERE.alignment("lora-s0-start"), "p/data/metrics/align/lora-s0-start.json"),
        (WHERE.run_log("prepare"), "p/data/log/prepare.json"),
        (WHERE.run_log("adapt", "lora-s0"), "p/data/log/adapt-lora-s0.json"),
    ],
)
def test_a_projects_files_lie_below_its_folder(path: Path, name: str) -> None:
    assert path.as_posix() == name


@pytest.mark.parametrize(
    ("task", "name"),
    [("swap", "swap"), ("../first", "_first"), ("a/b c", "a_b_c"), (".hidden", "hidden"), ("..", "_"), ("größe", "größe")],
)
def test_a_tasks_folder_leads_nowhere_else(task: str, name: str) -> None:
    assert folder_name(task) == name


def test_a_name_that_no_disk_takes_is_cut_and_stays_apart_from_others() -> None:
    long, other = (folder_name("ö" * 300 + end) for end in "ab")
    assert long.startswith("ö" * 51 + "-")
    assert len(long.encode()) <= 120
    assert long != other
