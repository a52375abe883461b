"""One word a stage: commands, modules, params sections, dvc.yaml, output folders, tests and README agree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from mhrctl.artifacts.names import Project
from mhrctl.cli.app import app
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params
from mhrctl.config.sources import SOURCES
from mhrctl.tools.grid import differences, expand

ROOT = Path(__file__).parents[1]
STAGES = ["prepare", "backbone", "pretrain", "average", "index", "adapt", "evaluate", "report"]
PROJECTS = [ROOT, *sorted((ROOT / "pipelines").iterdir())]


def test_stages_have_a_module_a_command_and_a_test() -> None:
    assert sorted(path.stem for path in (ROOT / "mhrctl/stages").glob("[a-z]*.py")) == sorted(STAGES)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(name for name in commands if name in STAGES) == sorted(STAGES)
    assert {path.stem.removeprefix("test_") for path in (ROOT / "tests/stages").glob("test_*.py")} >= set(STAGES)


def test_every_module_has_a_test_at_its_place() -> None:
    sources = [path.relative_to(ROOT / "mhrctl") for path in (ROOT / "mhrctl").rglob("*.py") if not path.stem.startswith("__")]
    mirrors = [ROOT / "tests" / path.with_name(f"test_{path.name}") for path in sources]
    assert [str(path.relative_to(ROOT)) for path in mirrors if not path.exists()] == []


def test_params_sections_are_stages_and_the_grid() -> None:
    assert set(Params.model_fields) - {"grid", "recipe", "run"} <= set(STAGES)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_dvc_runs_the_stages_commands_into_their_folders(project: Path) -> None:
    stages = YAML(typ="safe").load(project / "dvc.yaml")["stages"]
    assert {name.split("-")[0] for name in stages} == {*STAGES, "grid"}
    for name, entry in stages.items():
        stage = name.split("-")[0]
        body = entry.get("do", entry)
        assert body["cmd"].split()[:2] == ["mhrctl", stage]
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in body.get("outs", [])]
        assert all(out.startswith(f"data/{stage}") for out in outs)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_grids_are_in_step(project: Path) -> None:
    where = Project(project)
    assert differences(expand(load_params(where.params), where), where) == []


def test_every_method_of_the_paper_is_in_the_table() -> None:
    """Beside which there may be others, that the paper does not have."""
    tables = json.loads((ROOT / "mhrctl/report/tables.json").read_text())
    printed = {row["method"] for block in tables["table6"]["blocks"] for row in block["rows"]}
    printed |= {row["method"] for row in tables["table4_t0"]["rows"]} | set(tables["text"])
    assert set(METHODS) >= printed | {"full_ft"}  # of which the paper has only the formula
    assert all(METHODS[row.pretrain].pretrain == row.pretrain for row in METHODS.values())


def readme_commands() -> list[str]:
    text = "".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))))
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("mhrctl ")]


@pytest.mark.parametrize("line", sorted(set(readme_commands())))
def test_readme_commands_exist_with_their_options(line: str) -> None:
    words = line.split("#", maxsplit=1)[0].split()[1:]
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize(("page", "names"), [("methods", METHODS), ("sources", SOURCES), ("stages", STAGES)])
def test_the_documents_name_every_method_source_and_stage(page: str, names: Iterable[str]) -> None:
    """The README, of two screens, names those to begin with."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text and f"mhrctl {name}" not in text] == []


def test_the_command_line_loads_no_torch() -> None:
    code = "import sys, mhrctl.cli.app; sys.exit(bool({'torch', 'transformers', 'dvc', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
