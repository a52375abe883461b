"""`mhrctl push`: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Capture, complaint
from tests.conftest import Run
from tests.tools.stand_in_hub import Hub

REPO = "someone/lists"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),  # httpx, of how huggingface_hub uploads
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # peft calls it
]


@pytest.fixture
def exported(exported: Path, capfd: Capture) -> Path:
    """The same, after what the export has said."""
    capfd.readouterr()
    return exported


def test_a_push_says_where_to_and_the_commit(hub: Hub, exported: Path, copy: Path, run: Run, capfd: Capture) -> None:
    assert run("push", exported / "swap", REPO, "--license", "mit", "-C", copy) == 0
    lines = capfd.readouterr().err.splitlines()
    commit = hub.repositories[REPO].commits[-1][0]
    assert f" to {hub.endpoint}/{REPO}, private, commit {commit}" in lines[0]
    assert lines[1] == f"`mhrctl pull {REPO} --revision {commit}` brings it"
    assert lines[2].startswith("note: its backbone, ")
    assert run("push", exported / "swap", REPO, "--license", "mit", "--public", "-C", copy) == 0
    assert "note: the repository was there, and is private as before" in capfd.readouterr().err
    assert run("push", exported / "swap", "someone/open", "--license", "mit", "--public", "-C", copy) == 0
    assert ", public, commit " in capfd.readouterr().err


def test_a_dry_run_shows_files_and_card_and_asks_nothing(
    hub: Hub, exported: Path, copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert run("push", exported, REPO, "--license", "mit", "--dataset", "me/data", "--dry-run", "-C", copy) == 0
    said = capfd.readouterr().err
    assert "swap/adapter_model.safetensors" in said
    assert "license: mit\n" in said
    assert "datasets:\n- me/data\n" in said
    assert f"to {REPO}, in one commit; nothing was sent" in said
    assert not hub.asked


@pytest.mark.usefixtures("hub")
def test_what_is_refused_is_one_line(exported: Path, copy: Path, run: Run, capfd: Capture) -> None:
    assert run("push", exported, REPO, "-C", copy) == 2
    assert "--license: no licence is recorded" in complaint(capfd)
    assert run("push", copy / "tasks", REPO, "--license", "mit", "-C", copy) == 2
    assert "no export" in complaint(capfd)
