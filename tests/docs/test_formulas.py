"""Formulas become MathML, wherever GitHub would show them, and nothing else does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-docs" / "bin" / "python"
MAKE = """
import json, sys
import markdown
for text in json.load(sys.stdin):
    print(json.dumps(markdown.markdown(text, extensions=["formulas", "tables", "pymdownx.superfences"])))
"""
"""Made by what builds the site, whose packages are apart from these."""
LINE, FENCE = "a weight $a_k$ of", "so\n\n```math\n\\frac{a}{b}\n```\n\nthen"
OTHERS = ["`$ mhrctl run`", "from $5 to 6", "$PATH:$HOME", "```console\n$ mhrctl a$\n```"]


@pytest.fixture(scope="module")
def made() -> Callable[[str], str]:
    """The HTML of each text."""
    if not PYTHON.with_name("zensical").is_file():
        pytest.skip("no .venv-docs here: `make docs` makes it")
    texts = [LINE, FENCE, *OTHERS]
    command, environment = [str(PYTHON), "-c", MAKE], {"PYTHONPATH": str(ROOT / "docs")}
    done = subprocess.run(command, input=json.dumps(texts), env=environment, capture_output=True, text=True, check=True)
    return dict(zip(texts, map(json.loads, done.stdout.splitlines()), strict=True)).__getitem__


def test_a_formula_in_a_line(made: Callable[[str], str]) -> None:
    assert made(LINE).startswith("<p>a weight <math")
    assert "<msub>" in made(LINE)


def test_a_formula_with_lines_to_itself(made: Callable[[str], str]) -> None:
    assert '<div class="formula"><math' in made(FENCE)
    assert "<mfrac>" in made(FENCE)
    assert "wzxhzdk" not in made(FENCE)


@pytest.mark.parametrize("text", OTHERS)
def test_dollars_that_are_no_formulas(made: Callable[[str], str], text: str) -> None:
    assert "<math" not in made(text)
