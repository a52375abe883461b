"""Damaged data of every source: refused with its file, or read and told, or without influence; no traceback, no silence."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.sources import SOURCES, make
from tests.robustness.test_corruptions import a_folder, cut, emptied, garbled, zeroed
from tests.robustness.workshop import Runner, files_of

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])


def with_bom(path: Path) -> None:
    """Begin a file with a byte order mark."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def utf16(path: Path) -> None:
    """Write a text in UTF-16."""
    path.write_bytes(path.read_bytes().decode(errors="replace").encode("utf-16"))


def latin1(path: Path) -> None:
    """Put a letter of Latin-1 into the middle."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xe9" + whole[len(whole) // 2 :])


def nul(path: Path) -> None:
    """Put a NUL into the middle."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\x00" + whole[len(whole) // 2 :])


def crlf(path: Path) -> None:
    """End lines as Windows does."""
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def doubled(path: Path) -> None:
    """Write a file twice into itself."""
    path.write_bytes(2 * path.read_bytes())


def fifo(path: Path) -> None:
    """Put a pipe that nobody writes in the place of a file."""
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    """Put a link to nothing in the place of a file."""
    path.unlink()
    path.symlink_to("nowhere")


def circle(path: Path) -> None:
    """Put a link to itself in the place of a file."""
    path.unlink()
    path.symlink_to(path.name)


def compressed(path: Path) -> None:
    """Compress a file without saying so in its name."""
    import gzip

    path.write_bytes(gzip.compress(path.read_bytes()))


DAMAGES: tuple[Callable[[Path], None], ...] = (
    *(cut, emptied, garbled, zeroed, a_folder, with_bom, utf16, latin1, nul, crlf, doubled, fifo, dangling, circle),
    compressed,
)
HARMLESS = (crlf, with_bom)
"""These may change nothing but hashes."""
UNSEEN = {(".txt", cut)}
"""(ending, damage): a list of names that ends at a line's end is a list of names, of which nobody can say that it is cut."""
TOLD = ("passed over", "left out", "skipped", "unreadable", "not read", "counted", "dropped", "equal", "repeated", "odd")


def results(root: Path) -> dict[str, str]:
    """Return {name: content} of what `prepare` writes, but of the card, which has hashes of its inputs; without their place."""
    made = {name: path.read_bytes() for name, path in files_of(root / "data/prepare").items() if name != "card.json"}
    return {name: hashlib.sha256(whole.replace(bytes(root), b"")).hexdigest() for name, whole in made.items()}


def judged(ended: Ended, root: Path, whole: dict[str, str], *names: str) -> tuple[Kind, str]:
    """Say how `prepare` ended on damaged data."""
    kind = ended.kind()
    if kind == "refused" and not any(ended.says(name) for name in names):
        return "unexpected", f"names no {names}: {ended.errors}"
    if kind == "right" and results(root) != whole:
        told = any(ended.says(name) for name in names) or any(word in ended.text for word in TOLD)
        return ("right", "") if told else ("silent", "other examples, and no word of it")
    if kind == "refused" and (root / "data/prepare").exists():
        return "lost", "an output in spite of it"
    return kind, ""


@FORMS
def test_damaged_files_of_every_source(runner: Runner, tmp_path: Path, counting: Counting, form: str) -> None:
    campaign = counting(f"bad data: files ({form})")
    whole = {}
    for source in SOURCES:
        make(tmp_path / f"whole {source}", source)
        ended = runner.run("prepare", "-C", tmp_path / f"whole {source}")
        assert ended.code == 0, ended.err
        whole[source] = results(tmp_path / f"whole {source}")
    cases = [(source, file, damage) for damage in DAMAGES for source, (_, files) in SOURCES.items() for file in files]
    cases = [(source, file, damage) for source, file, damage in cases if (Path(file).suffix, damage) not in UNSEEN]
    for number, (source, file, damage) in enumerate(sampled(cases, form, 8)):
        for argv in (("prepare",), ("check",)) if form == "long" else (("prepare",),):
            root = tmp_path / f"{number}{argv[0]}"
            make(root, source)
            damage(root / file)
            ended = runner.run(*argv, "-C", root)
            if argv == ("check",):
                kind, why = ended.kind(), ""
            else:
                kind, why = judged(ended, root, whole[source], Path(file).name, Path(file).stem, Path(file).parent.name)
            campaign.count(f"{source}: {file} {damage.__name__}", kind, ended, why)
    campaign.require_clean()


RECORDS: dict[str, bytes] = {
    "no record": b"3",
    "a list": b'["a", "b"]',
    "null": b"null",
    "a text": b'"a"',
    "cut": b'{"input": "a", "targ',
    "two records": b'{"input": "a", "target": "b"} {"input": "c", "target": "d"}',
    "no target": b'{"input": "a"}',
    "no input": b'{"target": "a"}',
    "input a number": b'{"input": 3, "target": "a"}',
    "input null": b'{"input": null, "target": "a"}',
    "input a list": b'{"input": ["a"], "target": "a"}',
    "target null": b'{"input": "a", "target": null}',
    "target an object": b'{"input": "a", "target": {"b": 1}}',
    "targets empty": b'{"input": "a", "targets": []}',
    "targets of numbers": b'{"input": "a", "targets": [1, 2]}',
    "both": b'{"input": "a", "target": "b", "targets": ["c"]}',
    "an unknown key": b'{"input": "a", "target": "b", "tarrget": "c"}',
    "a doubled key": b'{"input": "a", "target": "b", "target": "c"}',
    "choices a text": b'{"input": "a", "target": "b", "choices": "abc"}',
    "choices without the target": b'{"input": "a", "target": "b", "choices": ["c", "d"]}',
    "choices that are equal": b'{"input": "a", "target": "b", "choices": ["b", "b"]}',
    "one choice": b'{"input": "a", "target": "b", "choices": ["b"]}',
    "choices of numbers": b'{"input": "a", "target": "b", "choices": [1, 2]}',
    "a lone surrogate": b'{"input": "a \\ud83d", "target": "b"}',
    "a lone surrogate in a target": b'{"input": "a", "target": "\\udfff"}',
    "a lone surrogate in a choice": b'{"input": "a", "target": "b", "choices": ["b", "\\ud83d"]}',
    "a lone surrogate in a key": b'{"input": "a", "target": "b", "\\ud83d": 1}',
    "a number of 5000 digits": b'{"input": "a", "target": "b", "id": ' + b"9" * 5000 + b"}",
    "200,000 brackets": b'{"input": "a", "target": "b", "id": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "200,000 open brackets": b"[" * 200_000,
    "NaN": b'{"input": "a", "target": NaN}',
    "a BOM within": b'\xef\xbb\xbf{"input": "a", "target": "b"}',
    "Latin-1": b'{"input": "caf\xe9", "target": "b"}',
    "NUL": b'{"input": "a\x00", "target": "b"}',
    "an escaped NUL": b'{"input": "a\\u0000", "target": "b"}',
    "single quotes": b"{'input': 'a', 'target': 'b'}",
    "a trailing comma": b'{"input": "a", "target": "b",}',
    "an empty input": b'{"input": "", "target": "b"}',
    "an empty target": b'{"input": "a", "target": ""}',
    "a definition that is a list": b'{"input": "a", "target": "b", "definition": ["x"]}',
    "a long input": b'{"input": "' + b"a " * 100_000 + b'", "target": "b"}',
    "a conflict of git": b"<<<<<<< HEAD",
    "a comment": b"# here",
}
"""Odd lines of a JSON Lines file."""


@FORMS
def test_odd_records_are_refused_by_line_or_counted(runner: Runner, tmp_path: Path, counting: Counting, form: str) -> None:
    """A record that is read as it stands counts as right: what it may say is the source's own matter, and tested there."""
    campaign = counting(f"bad data: records ({form})")
    cases = [(name, file) for name in RECORDS for file in SOURCES["jsonl"][1]]
    for number, (name, file) in enumerate(sampled(cases, form, 8)):
        root = tmp_path / str(number)
        make(root, "jsonl")
        lines = (root / file).read_bytes().splitlines()
        (root / file).write_bytes(b"\n".join([*lines[:3], RECORDS[name], *lines[3:]]) + b"\n")
        for argv in (("prepare",), ("check",)) if form == "long" else (("prepare",),):
            ended = runner.run(*argv, "-C", root)
            kind, why = ended.kind(), ""
            if kind == "refused" and ended.complaints and not ended.says(f"{Path(file).name}:4"):
                kind, why = "unexpected", f"no line: {ended.errors}"
            campaign.count(f"{file}:4 {name}, {argv[0]}", kind, ended, why)
    campaign.require_clean()


INSTANCES: dict[str, object] = {
    "output a text": {"id": "x", "input": "a", "output": "b"},
    "output empty": {"id": "x", "input": "a", "output": []},
    "output of lists": {"id": "x", "input": "a", "output": [["b"]]},
    "output null": {"id": "x", "input": "a", "output": None},
    "id a number": {"id": 3, "input": "a", "output": ["b"]},
    "no id": {"input": "a", "output": ["b"]},
    "input null": {"id": "x", "input": None, "output": ["b"]},
    "no object": 3,
    "a list": ["a"],
    "a lone surrogate": {"id": "x", "input": "\ud83d", "output": ["b"]},
}
EXAMPLES: dict[str, object] = {
    "output a list": [{"input": "a", "output": ["b"]}],
    "no object": [3],
    "a text": "none",
    "null": None,
    "no output": [{"input": "a"}],
    "explanation a number": [{"input": "a", "output": "b", "explanation": 3}],
}
DEFINITIONS: dict[str, object] = {"a text": "Copy it", "empty": [], "null": None, "of numbers": [3], "an object": {"a": 1}}


@FORMS
def test_odd_task_files_of_super_natural_instructions(runner: Runner, tmp_path: Path, counting: Counting, form: str) -> None:
    """One odd record of a file is counted and stops nothing; with `strict: true` it is refused."""
    campaign = counting(f"bad data: Super-NaturalInstructions ({form})")
    cases = [
        *(("Instances", name, value) for name, value in INSTANCES.items()),
        *(("Positive Examples", name, value) for name, value in EXAMPLES.items()),
        *(("Definition", name, value) for name, value in DEFINITIONS.items()),
    ]
    every = [(case, strict, file) for case in cases for strict in ("", ", strict: true") for file in SOURCES["superni"][1][:2]]
    for number, ((key, name, value), strict, file) in enumerate(sampled(every, form, 4)):
        root = tmp_path / str(number)
        make(root, "superni", strict)
        tree = json.loads((root / file).read_text())
        tree[key] = [*tree[key][:3], value, *tree[key][3:]] if key == "Instances" else value
        (root / file).write_text(json.dumps(tree))
        ended = runner.run("prepare", "-C", root)
        kind, why = ended.kind(), ""
        if kind == "refused" and not ended.says(Path(file).name):
            kind, why = "unexpected", f"names no file: {ended.errors}"
        campaign.count(f"{file}: {key} {name}{strict}", kind, ended, why)
    campaign.require_clean()


@pytest.mark.parametrize("examples", [4, pytest.param(150, marks=pytest.mark.slow)])
def test_lines_of_any_json_end_in_one_line(runner: Runner, tmp_path: Path, counting: Counting, examples: int) -> None:
    """A line is whatever JSON hypothesis thinks of, or any bytes."""
    campaign = counting(f"bad data: any line ({examples})")
    root = tmp_path / "project"
    make(root, "jsonl")
    path = root / "tasks/training/first.jsonl"
    whole = path.read_bytes()
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    keys = st.sampled_from(["input", "target", "targets", "choices", "definition", "id", "task"])
    records = st.dictionaries(keys, values, max_size=5).map(lambda record: json.dumps(record).encode())

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(records | st.binary(max_size=30))
    def any_line(line: bytes) -> None:
        path.write_bytes(whole + line + b"\n")
        ended = runner.run("prepare", "--force", "-C", root)
        campaign.count(repr(line[:100]), ended.kind(), ended)
        assert ended.kind() in {"right", "refused"}, ended.err[-500:]

    any_line()
