"""What is public is listed in the package, its stub and docs/api.md, and described where it is."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mhrctl
from mhrctl import api

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/api.md"


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class of the interface, in the order of their sources."""
    for each in reversed(kind.__mro__):
        if each.__module__.startswith("mhrctl.api"):
            for name, member in vars(each).items():
                if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    yield name, member


def called(function: Any, name: str) -> str:
    """A function with its parameters, as the page has it: `init(folder, *, suite, ...)`; `**` has the class of its options."""
    words: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            words.append(f"**{parameter.annotation.removeprefix('Unpack[').removesuffix(']')}")
        elif parameter.kind is parameter.VAR_POSITIONAL:
            words.append(f"*{parameter.name}")
        elif parameter.name != "self":
            marked = any(word.startswith("*") for word in words)
            words += ["*"] * (parameter.kind is parameter.KEYWORD_ONLY and not marked) + [parameter.name]
    return f"{name}({', '.join(words)})"


def callables() -> Iterator[tuple[str, Any]]:
    """Every public function and method, by the name that the page gives it."""
    for name in api.__all__:
        value = getattr(api, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and not issubclass(value, Exception) and not hasattr(value, "__total__"):
            yield from ((f"{name}.{each}", member) for each, member in members(value) if inspect.isfunction(member))
    yield "Project", api.Project.__init__


def fields(kind: type) -> list[str]:
    """Those of a record, or the keys of options, of which it may have taken some over."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return [*getattr(kind, "__optional_keys__", ())] and list(kind.__annotations__)


def line(said: str, value: Any) -> str:
    return f"| `{said}` | {(inspect.getdoc(value) or '').splitlines()[0]} |"


def table() -> Iterator[str]:
    """The lines of the page's table: each name with its parameters, or its fields, and the first line of its description."""
    for name in sorted(api.__all__, key=str.lower):
        value = getattr(api, name)
        if inspect.isfunction(value):
            yield line(called(value, name), value)
        elif issubclass(value, Exception):
            yield line(name, value)
        else:
            shown = f"{name}({', '.join(fields(value))})" if fields(value) else name
            yield line(called(value.__init__, name) if name == "Project" else shown, value)
            for each, member in members(value):
                shown = called(member, f"{name}.{each}") if inspect.isfunction(member) else f"{name}.{each}"
                yield line(shown, member)


def test_the_page_lists_the_interface_with_its_parameters() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition("| name | |\n|---|---|\n")[2]
    assert shown.splitlines() == list(table())


def test_the_package_and_its_stub_have_the_same_names() -> None:
    assert mhrctl.__all__ == sorted([*api.__all__, "__version__"])
    stub = ast.parse((ROOT / "mhrctl/__init__.pyi").read_text(encoding="utf-8"))
    aliases = [(node.module, alias) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(str(alias.asname) for _, alias in aliases) == sorted(api.__all__)
    for module, alias in aliases:
        assert getattr(sys.modules[str(module)], alias.name) is getattr(mhrctl, str(alias.asname))
    assert set(dir(mhrctl)) == set(mhrctl.__all__)


def test_a_name_that_there_is_not_is_said() -> None:
    with pytest.raises(AttributeError, match=r"^module 'mhrctl' has no attribute 'nothing'$"):
        _ = mhrctl.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "function"), list(callables()), ids=lambda value: value if isinstance(value, str) else "")
def test_parameters_results_and_errors_are_described(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    parameters = [each for each in inspect.signature(function).parameters if each != "self"]
    described = re.findall(r"^    \**(\w+):", text.partition("Args:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert described == parameters, name
    assert {*parameters, "return"} <= set(inspect.get_annotations(function)), name


@pytest.mark.parametrize("name", [name for name in api.__all__ if name != "init"])
def test_classes_are_described(name: str) -> None:
    kind = getattr(api, name)
    text = inspect.getdoc(kind) or ""
    assert text
    described = re.findall(r"^    (\w+):", text.partition("Attributes:\n")[2].partition("\n\n")[0], re.MULTILINE)
    if fields(kind):
        options = [fields(getattr(api, other)) for other in api.__all__ if other.endswith("Options")]
        described_there = {field for each in options if set(each) < set(fields(kind)) for field in each}
        assert described == [field for field in fields(kind) if field not in described_there]


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, mhrctl; assert not {'mhrctl.api', 'pydantic', 'typer', 'torch'} & set(sys.modules); mhrctl.Project"
    code += "; sys.exit(bool({'torch', 'transformers', 'dvc', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_no_room_imports_the_interface() -> None:
    below = [path for path in (ROOT / "mhrctl").glob("*/**/*.py") if path.parent.name != "api"]
    assert [str(path) for path in below if "mhrctl.api" in path.read_text(encoding="utf-8")] == []
