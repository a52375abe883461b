"""What a stage wrote is read in one way: it is compared with its card first, and no damage is more than one line.

A block that reads a file names it to `reading`. Where a card lists the file, its bytes are hashed before the block sees them:
they are in memory then, so that this costs the hash alone (docs/artifacts.md has figures).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mhrctl.artifacts.cards import Card, command_of, listed_damage, regular, try_card
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import CARD
from mhrctl.errors import ArtifactError, MhrctlError

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError, EOFError)
"""What readers raise on a damaged file; ValueError has UnicodeDecodeError, JSONDecodeError and most of Arrow's."""
FOREIGN = ("safetensors", "pyarrow", "safetensors_rust", "tokenizers")
"""Packages whose own errors are of damage too."""


@contextmanager
def reading(path: Path, *, again: str | None = None, but: str | None = None) -> Iterator[None]:
    """Read a file of an output, or a folder in one: first it is compared with the output's card.

    Args:
        path: the file or folder; the block reads it, and does nothing else.
        again: the command that makes it again, where its card does not say.
        but: a pattern of files of a folder that need no comparison, since the block itself verifies their content.

    Raises:
        ArtifactError: if it is missing, not as it was written, or cannot be read; names it, and the command.
    """
    verify(path, again=again, but=but)
    try:
        yield
    except MhrctlError:
        raise
    except Exception as error:
        if not isinstance(error, DAMAGE) and type(error).__module__.partition(".")[0] not in FOREIGN:
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(f"{path}: cannot be read ({said[:200]}); {_remedy(path, again)}") from error


def verify(path: Path, *, again: str | None = None, but: str | None = None) -> None:
    """Check that a file or folder is there, and as the card of its output says, if it is an output's.

    Raises:
        ArtifactError: if it is not.
    """
    folder, card = _output_of(path)
    try:
        if not path.is_dir():
            regular(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: is missing; {_remedy(path, again)}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {_remedy(path, again)}") from None
    if card is None or folder is None:
        return
    for name in _names(path, folder, card):
        if (but is None or not Path(name).match(but)) and (what := listed_damage(folder, card, name)):
            raise ArtifactError(f"{folder / name}: {what}; {_remedy(path, again)}")


def verify_metrics(path: Path) -> None:
    """Check that `data/metrics/<stage>/<cell>.*` is the file that the card of the cell's output has the hash of.

    Where the output is not at hand, as in a clone without its data, nothing is known of the file.

    Raises:
        ArtifactError: if it is another.
    """
    folder = path.parent.parent.parent / path.parent.name / path.stem
    card = try_card(folder)
    if card is not None and path.name in card.beside and digest(path) != card.beside[path.name]:
        command = command_of(card)
        raise ArtifactError(f"{path}: not as {folder / CARD} has it; run `{command}`")


def read_json_of(path: Path, *, again: str | None = None) -> Any:  # noqa: ANN401 - JSON is any tree
    """Read JSON of an output."""
    with reading(path, again=again):
        return json.loads(path.read_bytes())


def read_text_of(path: Path, *, again: str | None = None) -> str:
    """Read text of an output."""
    with reading(path, again=again):
        return path.read_text(encoding="utf-8")


def _remedy(path: Path, again: str | None) -> str:
    _, card = _output_of(path)
    command = again or (command_of(card) if card else None)
    return f"run `{command}`" if command else "run its stage again or `dvc repro`"


def _output_of(path: Path) -> tuple[Path | None, Card[Any] | None]:
    """The output that a file or folder is of, with its card; a file may lie in a folder of the output.

    Raises:
        ArtifactError: if its card is damaged, so that nothing is known of its files.
    """
    for folder in (path, path.parent, path.parent.parent):
        if card := try_card(folder):
            return folder, card
        if (folder / CARD).is_file():
            raise ArtifactError(
                f"{folder / CARD}: not as it was written; remove {folder} and run its stage again or `dvc repro`"
            )
    return None, None


def _names(path: Path, folder: Path, card: Card[Any]) -> list[str]:
    """The files that a card lists at a path.

    Raises:
        ArtifactError: if it lists none there.
    """
    if path == folder:
        return list(card.files or {})
    name = path.relative_to(folder).as_posix()
    names = [each for each in card.files or {} if each == name or each.startswith(f"{name}/")]
    if not names:
        raise ArtifactError(f"{path}: is not listed by the card of {folder}; {_remedy(path, None)}")
    return names
