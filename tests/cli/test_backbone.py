"""`mhrctl backbone`: when it makes its output anew, what it prints, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import T5ForConditionalGeneration

from tests.cli.conftest import Capture, MadeAnew, RefusesEdited, complaint
from tests.conftest import Run


def test_a_result_of_edited_settings_is_not_kept(refuses_edited: RefusesEdited) -> None:
    refuses_edited("backbone", file="params.yaml", old="steps: 2", new="steps: 3")


def test_other_settings_make_it_anew(is_made_anew: MadeAnew) -> None:
    assert is_made_anew("backbone", "--set", "backbone.seed=3")


def test_a_backbone_in_a_folder_is_read_each_time(
    copy: Path, run: Run, capfd: Capture, tiny_t5: T5ForConditionalGeneration
) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    for _ in range(2):
        assert run("backbone", "--set", "backbone.source=local", "--set", "backbone.name=checkpoint", "-C", copy) == 0
        assert f"wrote {copy / 'data/backbone'}: checkpoint" in capfd.readouterr().err


def test_its_name_size_and_fingerprint_are_printed(copy: Path, run: Run, capfd: Capture) -> None:
    shutil.rmtree(copy / "data/backbone")
    assert run("backbone", "-C", copy) == 0
    facts = json.loads((copy / "data/backbone/card.json").read_text())["facts"]
    line = f"wrote {copy / 'data/backbone'}: {facts['name']}, {facts['parameters']:,} parameters, {facts['fingerprint'][:12]}\n"
    assert capfd.readouterr().err == line
    assert json.loads((copy / "data/log/backbone.json").read_text())["device"] == "cpu"


def test_what_cannot_be_fetched_is_one_line_and_writes_nothing(project: Path, run: Run, capfd: Capture) -> None:
    assert run("prepare", "-C", project) == 0
    for settings, message in (
        (["backbone.source=local", "backbone.name=nowhere"], f"backbone.name '{project / 'nowhere'}': cannot be loaded"),
        (["backbone.source=shelf"], "--set backbone.source: Input should be 'hub', 'local' or 'scratch' (got 'shelf')"),
    ):
        capfd.readouterr()
        assert run("backbone", *(word for text in settings for word in ("--set", text)), "-C", project) == 2
        assert message in complaint(capfd)
        assert not (project / "data/backbone").exists()
