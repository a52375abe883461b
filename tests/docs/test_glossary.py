"""The code, its messages and the documents keep to the words of docs/glossary.md."""

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
BANNED_WORDS = re.compile(
    r"\b(wears?|wearing|worn|reckon\w*|anew|kin|mend(s|ed|ing)?|(in|out of) step|made already|stands? for nothing)\b",
    re.IGNORECASE,
)
"""No message, help text, description of a setting or page of docs says one of these."""


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


def messages(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every string of a module but docstrings and notes below a name, with its line: what a user may come to read."""
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
            yield node.value, node.lineno


def commands_help(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The docstrings of functions, which are the help of commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield ast.get_docstring(node) or "", node.lineno


@pytest.mark.parametrize("path", sorted((ROOT / "mhrctl").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_says_a_banned_word(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [*messages(tree), *(commands_help(tree) if path.parent.name == "cli" else ())]
    assert [f"{line}: {text}" for text, line in texts if BANNED_WORDS.search(text)] == []


@pytest.mark.parametrize("path", sorted(set((ROOT / "docs").rglob("*.md")) - {GLOSSARY}), ids=lambda path: path.name)
def test_no_page_says_a_banned_word(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if BANNED_WORDS.search(line)] == []


@pytest.mark.parametrize(
    "said", ["7 files are not in step", "x is made already", "T5 and kin", "mend or remove it", "begins anew"]
)
def test_banned_words_are_seen(said: str) -> None:
    texts = [text for text, _ in messages(ast.parse(f'"""kin"""\nfail(f"{{x}} {said}")\n'))]
    assert [text for text in texts if BANNED_WORDS.search(text)] == [f" {said}"]


@pytest.mark.parametrize("said", ["a kind of task", "amended", "recommend it", "step by step", "keep in steps", "new"])
def test_other_words_are_not(said: str) -> None:
    assert not BANNED_WORDS.search(said)


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
    for name in (*BANNED_NAMES, *BANNED_BEGINNINGS, "in step", "made already", "anew", "mend", "kin"):
        assert re.search(rf"\b{name}", unused), name


def test_words_are_in_order_and_said_once() -> None:
    table = GLOSSARY.read_text(encoding="utf-8").partition("|---|---|---|\n")[2].partition("\n\n")[0]
    words = [line.split("|")[1].strip() for line in table.splitlines()]
    assert len(words) > 50
    assert words == sorted(words, key=str.lower)
    assert [word for word, times in Counter(words).items() if times > 1] == []
