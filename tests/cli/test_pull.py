"""`mhrctl pull`: what it prints, and where it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Capture, complaint
from tests.conftest import Run
from tests.tools.stand_in_hub import Hub
from tests.tools.test_pull import ADAPTER, REPO


def test_a_pull_says_the_commit_and_how_to_go_on(hub: Hub, project: Path, run: Run, capfd: Capture) -> None:
    commit = hub.make(REPO, {**ADAPTER, "training_args.bin": b"x"})
    out = project / "data/pull" / REPO
    assert run("pull", REPO, "-C", project) == 0
    assert capfd.readouterr().err.splitlines()[-3:] == [
        f"pulled {REPO} at {commit} to {out}: adapter on google/flan-t5-small",
        "left out, as no data that is read here: training_args.bin",
        f"`mhrctl predict --adapter {out}` asks it, `mhrctl import {out}` starts from it",
    ]
    assert run("pull", REPO, "--revision", commit, "-C", project) == 0
    assert capfd.readouterr().err.endswith(f"{out} is up to date: commit {commit}\n")
    assert run("pull", REPO, "--out", project / "here", "-C", project) == 0
    assert (project / "here/adapter_config.json").is_file()


@pytest.mark.usefixtures("hub")
def test_what_is_refused_is_one_line(project: Path, run: Run, capfd: Capture) -> None:
    assert run("pull", "lists", "-C", project) == 2
    assert complaint(capfd) == "error: lists: name the owner too, as in OWNER/lists\n"
    assert run("pull", REPO, "-C", project) == 2
    assert "there is no such repository" in complaint(capfd)
    assert not (project / "data/pull").exists()
