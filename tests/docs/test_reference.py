"""The pages of settings and commands say what the code takes."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from mhrctl.config.params import Params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_current(reference: ModuleType) -> None:
    assert reference.SETTINGS.read_text(encoding="utf-8") == reference.settings(), "run `make reference`"
    assert reference.COMMANDS.read_text(encoding="utf-8") == reference.commands(), "run `make reference`"


def test_every_section_and_setting_is_there(reference: ModuleType) -> None:
    page = reference.settings()
    assert [f"## `{name}`" in page for name in Params.model_fields if name != "recipe"].count(False) == 0
    assert "| `routing_lr` | peak learning rate of the routing | number above 0 | `0.1` |" in page
    (cue,) = (line for line in page.splitlines() if line.startswith("| `answer_cue` |"))
    assert cue.endswith('| text | `"\\nOutput:"` |')
    assert "## `prepare.test.columns`\n\nAs `prepare.columns`.\n" in page


def test_every_row_says_what_a_setting_is(reference: ModuleType) -> None:
    rows = [line for line in reference.settings().splitlines() if line.startswith("| `")]
    assert len(rows) > 110
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 4
        assert cells[2] != "anything", row
        assert cells[1], row


@pytest.mark.parametrize("command", ["prepare", "pretrain", "adapt", "report", "grid sync", "index query", "import"])
def test_every_command_is_there(reference: ModuleType, command: str) -> None:
    assert f"## `mhrctl {command}`" in reference.commands()
