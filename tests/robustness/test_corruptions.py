"""Artifacts that are cut short, emptied, swapped, missing, another cell's or not ours: no command uses them unseen."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import sampled
from tests.robustness.readers import READERS, Reader, judge, pairs
from tests.robustness.workshop import Workshop, content, files_of

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
OTHERS = {
    "data/pretrain/lora-s0": "data/pretrain/lora-s1",
    "data/pretrain/mhr-h4-s0": "data/pretrain/mhr-h4-s1",
    "data/pretrain/adapter_soup-s0": "data/pretrain/adapter_soup-s1",
    "data/average/mhr-h4-s0": "data/average/mhr-h4-s1",
    "data/adapt/lora-s0": "data/adapt/lora-s1",
    "data/evaluate/lora-s0": "data/evaluate/lora-s1",
}
"""{a cell's folder: another cell's}"""


def cut(path: Path) -> None:
    """Cut a file to its half, as a copy that broke off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    """Empty a file."""
    path.write_bytes(b"")


def missing(path: Path) -> None:
    """Take a file away."""
    path.unlink()


def garbled(path: Path) -> None:
    """Put bytes that are no text, and no format of ours, in the place of a file."""
    path.write_bytes(b"\xff\x00\xfe" * 50)


def lengthened(path: Path) -> None:
    """Write further bytes behind a file."""
    path.write_bytes(path.read_bytes() + b"\n{}")


def a_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


def zeroed(path: Path) -> None:
    """Make the last half of a file zeros, as a disk does after a crash."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


def another_cells(path: Path) -> None:
    """Put another cell's file of the same name, or another file of the folder, in the place of a file."""
    shutil.copy(_another(path), path)


def _another(path: Path) -> Path:
    root = next(parent for parent in path.parents if parent.name == "data").parent
    folder = path.parent.relative_to(root).as_posix()
    siblings = [
        root / OTHERS.get(folder, "none") / path.name,
        path.with_name(path.name.replace("-s0", "-s1")),
        *sorted(other for other in path.parent.iterdir() if other.is_file()),
    ]
    return next(other for other in siblings if other != path and other.is_file())


DAMAGES: tuple[Callable[[Path], None], ...] = (
    cut,
    emptied,
    missing,
    garbled,
    lengthened,
    a_folder,
    zeroed,
    another_cells,
)


@FORMS
def test_no_corrupted_file_is_used_unseen(workshop: Workshop, counting: Counting, form: str) -> None:
    """A corruption is right where the command refuses it, or makes its own output anew, and `check --deep` names it."""
    campaign, deep = counting(f"corruptions ({form})"), counting(f"corruptions, check --deep ({form})")
    answer = workshop.run(*READERS["query"].argv).out
    read = pairs([*files_of(workshop.root)])
    cases = [(file, reader, damage) for damage in DAMAGES for file, reader in read]
    random.Random(0).shuffle(cases)
    checked: set[tuple[str, str]] = set()
    for file, name, damage in sampled(cases, form, 8):
        reader, case = READERS[name], f"{file} {damage.__name__}"
        if name == "report" and damage is missing:  # a cell that has not been evaluated yet is no damage
            continue
        before = content(workshop.root / file)
        damage(workshop.root / file)
        if content(workshop.root / file) == before:  # the other cell's file is the same
            continue
        if (file, damage.__name__) not in checked:
            checked.add((file, damage.__name__))
            looked = workshop.run("check", "--deep")
            kind = looked.kind()
            named = looked.says(Path(file).name) or looked.says(Path(file).parent.name)
            deep.count(case, "silent" if kind == "right" else kind if named else "unexpected", looked, looked.text[-150:])
        ended = workshop.run(*reader.argv)
        kind, why = judge(workshop, ended, reader, file, answer=answer, absent=False)
        campaign.count(f"{case}, {name}", kind, ended, why)
        workshop.restore()
    campaign.require_clean()
    deep.require_clean()


@pytest.mark.parametrize(
    ("folder", "other"),
    [pytest.param(*pair, marks=[] if number == 0 else pytest.mark.slow) for number, pair in enumerate(OTHERS.items())],
)
def test_another_cells_folder_is_not_used_under_this_name(
    workshop: Workshop, counting: Counting, folder: str, other: str
) -> None:
    campaign = counting("another cell's folder")
    names = dict.fromkeys(reader for file, reader in pairs([*files_of(workshop.root)]) if file.startswith(f"{folder}/"))
    for name in ("check --deep", *names):
        shutil.rmtree(workshop.root / folder)
        shutil.copytree(workshop.root / other, workshop.root / folder)
        reader = READERS.get(name, Reader(("check", "--deep")))
        ended = workshop.run(*reader.argv)
        kind, why = ended.kind(), ""
        changed = workshop.changed(but=[] if folder in reader.writes else [f"{folder}/"])
        if kind == "right" and (changed or folder not in reader.writes):
            kind, why = "silent", f"other bytes: {changed[:3]}"
        elif kind == "refused" and changed and folder not in reader.writes:
            kind, why = "lost", f"changed: {changed[:3]}"
        campaign.count(f"{folder}: {other}, {name}", kind, ended, why)
        workshop.restore()
    campaign.require_clean()


FOLDERS = ("data/prepare", "data/backbone", "data/pretrain/lora-s0", "data/adapt/lora-s0", "data/index")


@pytest.mark.parametrize(
    "folder", [pytest.param(name, marks=pytest.mark.slow if name in FOLDERS[1:4] else []) for name in FOLDERS]
)
def test_foreign_files_are_named_and_never_removed(workshop: Workshop, counting: Counting, folder: str) -> None:
    """A file that no card lists lies in an output: `check --deep` names it, and a stage that makes it anew leaves it be."""
    campaign = counting("foreign files")
    notes = workshop.root / folder / "my-notes.txt"
    notes.write_text("mine\n")
    looked = workshop.run("check", "--deep")
    kind = looked.kind()
    campaign.count(f"{folder}, check --deep", "silent" if not looked.says(notes.name) else kind, looked, "not named")
    stage, *cell = folder.removeprefix("data/").split("/")
    argv = [stage, *(["-m", "lora"] if cell else []), "--force"]
    ended = workshop.run(*argv)
    kept = [path for path in workshop.root.rglob("my-notes.txt") if path.read_text() == "mine\n"]
    campaign.count(f"{folder}, {' '.join(argv)}", ended.kind() if kept else "lost", ended)
    campaign.require_clean()
