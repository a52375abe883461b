"""Every section of docs/recipe.md that the code cites is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "docs" / "recipe.md"
CITATION = re.compile(r"docs/recipe\.md(?:,\s+sections?\s+(?P<sections>\d[\d.]*(?:(?:, | and | to )\d[\d.]*)*))?")
SECTION = re.compile(r"\d+(?:\.\d+)?")
VAGUE = re.compile(r"reference (?:recipe|code)|\brecipe,? (?:section )?\d|of the recipe\b", re.IGNORECASE)


def sections(recipe: str) -> set[str]:
    return set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?) ", recipe, flags=re.MULTILINE))


def cited(text: str) -> Iterator[str]:
    for citation in CITATION.finditer(text):
        yield from SECTION.findall(citation["sections"] or "")


def sources() -> list[Path]:
    """Everything that may cite the recipe."""
    code = [path for folder in ("mhrctl", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    data = [*(ROOT / "mhrctl").rglob("*.json"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted({*code, *data} - {RECIPE, Path(__file__)})


def test_every_cited_section_exists() -> None:
    there = sections(RECIPE.read_text(encoding="utf-8"))
    missing = {
        f"{path.relative_to(ROOT)}: section {section}"
        for path in sources()
        for section in cited(path.read_text(encoding="utf-8"))
        if section not in there
    }
    assert not missing


def test_the_code_cites_the_recipe_by_file_and_section() -> None:
    vague, citations = [], 0
    for path in sorted((ROOT / "mhrctl").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        vague += [f"{path.relative_to(ROOT)}: {match[0]}" for match in VAGUE.finditer(text)]
        citations += sum(1 for _ in cited(text))
    assert not vague
    assert citations >= 15


def test_the_recipes_references_to_itself_exist() -> None:
    text = RECIPE.read_text(encoding="utf-8")
    there = sections(text)
    traps = text.partition("## 8 Traps")[2]
    assert traps
    named = [number for group in re.findall(r"\((\d[\d., ]*)\)\.", traps) for number in group.split(", ")]
    assert len(named) >= 15
    assert set(named) <= there


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see docs/recipe.md, section 1.4.", ["1.4"]),
        ("(docs/recipe.md, sections 1.1 to 1.3 of it)", ["1.1", "1.3"]),
        ("docs/recipe.md,\nsections 3.1, 3.2 and 4: the", ["3.1", "3.2", "4"]),
        ("docs/recipe.md has more", []),
    ],
)
def test_citations_are_read(text: str, expected: list[str]) -> None:
    assert list(cited(text)) == expected
