"""The code keeps to the words of docs/glossary.md."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
ROOMS = sorted(path.stem for path in (ROOT / "mhrctl").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
PLACES = [*(f"mhrctl/{room}" for room in ROOMS), "tests", "benchmarks"]

BANNED_NAMES = ("own", "found", "Spread", "stands")
"""No identifier is one of these, with or without underscores before it (`_Spread` apart, which is a word of its own)."""
BANNED_BEGINNINGS = ("dress", "wear", "reckon", "obstacle")
"""No word of an identifier begins with one of these."""


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module binds or uses, with its line; not those within strings and comments."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno
            case ast.alias(name=name, asname=renamed):
                yield from ((part, node.lineno) for part in (renamed or name).split("."))


def is_banned(name: str) -> bool:
    if name in BANNED_NAMES or name.lstrip("_") in ("own", "found", "stands"):
        return True
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.lower().startswith(BANNED_BEGINNINGS) for word in words)


def banned_in(place: str) -> list[str]:
    folder = ROOT / place
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        for name, line in identifiers(ast.parse(path.read_text(encoding="utf-8")))
        if is_banned(name)
    ]


@pytest.mark.parametrize("place", PLACES)
def test_no_place_uses_a_banned_name(place: str) -> None:
    assert banned_in(place) == []


def test_every_place_has_code() -> None:
    for place in PLACES:
        folder = ROOT / place
        assert folder.with_suffix(".py").is_file() or any(folder.rglob("*.py")), place


@pytest.mark.parametrize(
    "name", ["own", "_own", "found", "stands", "Spread", "dressed", "wears_lora", "reckon_bytes", "is_obstacle", "WearMode"]
)
def test_banned_names_are_seen(name: str) -> None:
    source = f"def f({name}):\n    return {name}\n"
    assert {seen for seen, _ in identifiers(ast.parse(source)) if is_banned(seen)} == {name}


@pytest.mark.parametrize(
    "name", ["owner", "known", "foundation", "_Spread", "spread", "address", "hardware", "standstill", "swear"]
)
def test_other_names_are_not(name: str) -> None:
    assert not is_banned(name)


def test_every_banned_name_has_its_replacement() -> None:
    unused = GLOSSARY.read_text(encoding="utf-8").partition("## Names that are not used")[2]
    for name in (*BANNED_NAMES, *BANNED_BEGINNINGS):
        assert re.search(rf"\b{name}", unused), name


def test_words_are_in_order_and_said_once() -> None:
    table = GLOSSARY.read_text(encoding="utf-8").partition("|---|---|---|\n")[2].partition("\n\n")[0]
    words = [line.split("|")[1].strip() for line in table.splitlines()]
    assert len(words) > 50
    assert words == sorted(words, key=str.lower)
    assert [word for word, times in Counter(words).items() if times > 1] == []
