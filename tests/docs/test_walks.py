"""The pages that a newcomer walks through show what there is: tasks, settings, and the demo's report."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ruamel.yaml import YAML

from mhrctl.config.params import Params

ROOT = Path(__file__).parents[2]
OWN_TASKS = (ROOT / "docs" / "own-tasks.md").read_text(encoding="utf-8")
WORDS = ROOT / "docs" / "words"
ROW = re.compile(r"^ (?:backbone|lora|poly|mhr)\S* .*$", flags=re.MULTILINE)


def test_the_tasks_are_those_of_the_page() -> None:
    (listing,) = re.findall(r"```text\nmy-tasks/\n(.*?)```", OWN_TASKS, flags=re.DOTALL)
    listed = {f"{role}/{name}" for role, names in re.findall(r"(\w+)/ +(.*)", listing) for name in names.split()}
    assert listed == {path.relative_to(WORDS).as_posix() for path in WORDS.rglob("*.jsonl")}


def test_every_task_has_sixty_lines_of_the_form_that_is_shown() -> None:
    for path in WORDS.rglob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len({line["input"] for line in lines}) == 60, path.name
        assert {frozenset(line) for line in lines} == {frozenset({"definition", "input", "target"})}, path.name
        assert len({line["definition"] for line in lines}) == 1, path.name
    shown = re.findall(r"^\{\"definition\".*\}$", OWN_TASKS, flags=re.MULTILINE)
    assert shown == (WORDS / "test" / "participle.jsonl").read_text(encoding="utf-8").splitlines()[: len(shown)]


def test_the_settings_of_the_page_are_settings() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", OWN_TASKS, flags=re.DOTALL)
    for section, settings in YAML(typ="safe").load(block).items():
        assert set(settings) <= set(Params.model_fields[section].annotation.model_fields), section


def test_the_demos_report_is_that_of_the_readme() -> None:
    first = (ROOT / "docs" / "first-steps.md").read_text(encoding="utf-8").partition("## A project")[0]
    rows = ROW.findall(first)
    assert len(rows) == 6
    assert set(rows) <= set(ROW.findall((ROOT / "README.md").read_text(encoding="utf-8")))
