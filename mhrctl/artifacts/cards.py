"""Cards say what an output folder is, and whether it fits what reads it.

A card lists every file of its folder with its hash, and is sealed: readers of a file compare the one, readers of the card the
other (`mhrctl.artifacts.reading`). Cards hold nothing that differs between two equal runs: what a run took (wall time, device)
goes to `data/log/`, which DVC does not look at, so that a stage run again with the same result reruns nothing after it.
"""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar, overload

from pydantic import ValidationError

from mhrctl.artifacts import inputs
from mhrctl.artifacts.facts import (
    FACTS,
    AdaptFacts,
    BackboneFacts,
    EvaluateFacts,
    Facts,
    IndexFacts,
    PrepareFacts,
    PretrainFacts,
)
from mhrctl.artifacts.hashing import content_hash, digest, digest_of, files_in
from mhrctl.artifacts.inputs import CASES, Places
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.ownership import require_listed
from mhrctl.artifacts.sealing import SealError, opened, sealed
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.artifacts.writing import write_json
from mhrctl.config.cells import Cell
from mhrctl.config.methods import BACKBONE
from mhrctl.errors import ArtifactError, MhrctlError

PULLED = "pulled"
"""The setting of a card that says which repository and commit of the hub a folder is from."""
LIBRARIES = ("torch", "transformers", "tokenizers", "pyarrow")

F = TypeVar("F", bound=Facts)
F_co = TypeVar("F_co", bound=Facts, covariant=True)


class Listed(TypedDict):
    """This is what a card says of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Card(Generic[F_co]):
    """A card is what an output folder says of itself.

    Attributes:
        stage: the stage that wrote it.
        params: the resolved parameters that decided it.
        parents: {name: sha256} of the artifacts that it was made from.
        facts: what a reader needs to check a fit: tasks, backbone fingerprint, counts (`mhrctl.artifacts.facts`).
        libraries: versions that the result may depend on.
        version: of the stage's results (`mhrctl.artifacts.versions`); None for what no stage wrote, and from before there were
            versions.
        files: {name: size and hash} of all else in the folder; None while it is being written.
        beside: {name: sha256} of what was written with it elsewhere: a training log, scores.
        threads: CPU threads that computed it, if its last bits depend on them; None on a GPU, and where nothing is rounded.
    """

    stage: str
    params: Mapping[str, Any]
    parents: Mapping[str, str]
    facts: F_co
    libraries: Mapping[str, str]
    version: int | None = None
    files: Mapping[str, Listed] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None

    @staticmethod
    def of(stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], facts: F) -> Card[F]:
        """Make the card of an output, with the hashes of its parents."""
        hashes = {name: known_digest(path) for name, path in parents.items()}
        return Card(stage, params, hashes, facts, _libraries(), STAGE_VERSIONS.get(stage))

    @staticmethod
    def read(record: Mapping[str, Any], facts: type[F]) -> Card[F]:
        """Make the card that a record is of.

        Raises:
            ValueError: if a fact is missing or no such thing.
            TypeError: if the record is of no card.
        """
        return Card(**{**record, "facts": facts.model_validate(record.get("facts"))})

    @property
    def record(self) -> dict[str, Any]:
        """The card as JSON holds it."""
        tree = vars(self) | {"facts": self.facts.model_dump()}
        record: dict[str, Any] = json.loads(json.dumps(tree, default=dict))
        return record


def _libraries() -> dict[str, str]:
    from importlib.metadata import version  # it brings what reads e-mail

    return {name: version(name) for name in (*LIBRARIES, "mhrctl")}


def write_card(folder: Path, card: Card[Facts], *, beside: Mapping[str, Path] | None = None) -> None:
    """Finish an output folder, when all its other files are written.

    Args:
        folder: the folder.
        card: what it is.
        beside: {name: file} of what is written with it elsewhere, the files as they are now.
    """
    files = {file.relative_to(folder).as_posix(): _listed(file) for file in files_in(folder) if file != folder / CARD}
    hashes = {name: digest(path) for name, path in (beside or {}).items()}
    write_json(folder / CARD, sealed(replace(card, files=files, beside=hashes).record))


def _listed(file: Path) -> Listed:
    return {"bytes": file.stat().st_size, "sha256": content_hash(file)}


def known_digest(path: Path) -> str:
    """Return the `digest` of a file or folder by the hashes in its output's card, or of what is no output's, by its content.

    Whoever reads the content of an output compares it with its card; so an input that was read need not be hashed once more,
    and one that is not read need not be there.
    """
    for folder in list(path.parents)[:2]:
        card = try_card(folder)
        name = path.relative_to(folder)
        listed = {Path(each): of["sha256"] for each, of in (card.files or {}).items()} if card else {}
        inside = {each.relative_to(name): hashed for each, hashed in listed.items() if each.is_relative_to(name)}
        if inside:
            return digest_of(inside)
    return digest(path)


def require_replaceable(folder: Path, stage: str) -> None:
    """Check that a folder that a user named can be written: that it is new, empty, or an output of the same stage and no more.

    Raises:
        ArtifactError: if it holds anything else.
    """
    if folder.is_dir() and any(folder.iterdir()):
        card = try_card(folder)
        if card is None or card.stage != stage:
            raise ArtifactError(f"{folder}: holds other things, which an {stage} would replace; name a new folder")
    require_listed(folder)


@overload
def read_card(folder: Path, *, stage: Literal["prepare"], command: str, cell: Cell | None = ...) -> Card[PrepareFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["backbone"], command: str, cell: Cell | None = ...) -> Card[BackboneFacts]: ...
@overload
def read_card(
    folder: Path, *, stage: Literal["pretrain", "average"], command: str, cell: Cell | None = ...
) -> Card[PretrainFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["index"], command: str, cell: Cell | None = ...) -> Card[IndexFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["adapt"], command: str, cell: Cell | None = ...) -> Card[AdaptFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["evaluate"], command: str, cell: Cell | None = ...) -> Card[EvaluateFacts]: ...
def read_card(folder: Path, *, stage: str, command: str, cell: Cell | None = None) -> Card[Facts]:
    """Read the card of an input folder.

    Args:
        folder: an output folder.
        stage: the stage that must have written it.
        command: what to run if it is not there.
        cell: whose output it must be; None for the stages that have no cells.

    Raises:
        ArtifactError: if the folder is missing, unfinished, another stage's or another cell's, made by another version of the
            stage, or if its card is malformed or not as it was written.
    """
    try:
        card = _with_any_facts(folder)
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no finished {stage} output; run `{command}`") from None
    except SealError as error:
        raise ArtifactError(f"{folder / CARD}: {error}; run `{command}`") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{folder / CARD}: {_why_no_card(error)}; remove {folder} and run `{command}`") from None
    if card.stage != stage:
        raise ArtifactError(f"{folder}: written by stage {card.stage}, expected {stage}; run `{command}`")
    if card.version != STAGE_VERSIONS[stage]:
        made_by = "an mhrctl without stage versions" if card.version is None else f"version {card.version} of {stage}"
        raise ArtifactError(
            f"{folder}: made by {made_by}, this mhrctl has version {STAGE_VERSIONS[stage]} with other results; run `{command}`,"
            " or `mhrctl grid sync` and `dvc repro`"
        )
    if cell is not None and (other := cell_of(card)) != cell.name:
        raise ArtifactError(
            f"{folder}: holds the {stage} output of {other or 'no cell'}, not of {cell.name};"
            f" remove {folder} and run `{command}`"
        )
    try:
        return replace(card, facts=FACTS[stage].model_validate(card.facts))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("facts", *first["loc"])))
        raise ArtifactError(f"{folder / CARD}: {key}: {first['msg']}; remove {folder} and run `{command}`") from None


def cell_of(card: Card[Any]) -> str | None:
    """Return the name of the cell that an output is of: None if it is of no cell, or of none that there is now."""
    if isinstance(card.params, Mapping) and card.params.get("cell") == {"method": BACKBONE}:
        return BACKBONE
    cell = cell_in(card)
    return cell.name if cell else None


def cell_in(card: Card[Any]) -> Cell | None:
    """Return the cell that an output is of: None as of `cell_of`, and for the bare backbone, which is none."""
    cell = card.params.get("cell") if isinstance(card.params, Mapping) else None
    try:
        return Cell.model_validate_json(json.dumps(dict(cell))) if isinstance(cell, Mapping) else None
    except (ValueError, MhrctlError):
        return None


def command_of(card: Card[Any]) -> str:
    """Return the command that makes an output again."""
    if isinstance(card.params, Mapping) and isinstance(pulled := card.params.get(PULLED), Mapping):
        return f"mhrctl pull {pulled.get('repo')} --revision {pulled.get('commit')}"
    if card.stage in ("export", "inspect") or "imported" in card.parents:
        return f"mhrctl {'import' if 'imported' in card.parents else card.stage}"
    if cell_of(card) == BACKBONE:
        return f"mhrctl {card.stage} --method {BACKBONE}"
    cell = cell_in(card)
    return f"mhrctl {card.stage} {cell.name}" if cell else f"mhrctl {card.stage}"


def _why_no_card(error: Exception) -> str:
    """What is wrong with a card, in words."""
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else "not a card"


def _with_any_facts(folder: Path) -> Card[Any]:
    """The card in a folder, whose facts are not looked at: those of another stage or version are other ones."""
    return Card(**opened(json.loads(regular(folder / CARD).read_bytes())))


def is_up_to_date(
    folder: Path,
    stage: str,
    params: Mapping[str, Any],
    parents: Mapping[str, Path],
    *,
    beside: Sequence[Path] = (),
    threads: int | None = None,
) -> bool:
    """Return whether an output folder is what its stage would write now.

    Its card decides: all but the facts, which are results, is compared with what the card would hold now (of `parents`, files
    or folders, the hashes, once all else is equal), and with the files that are there, in the folder and `beside` it: each is
    read and hashed, so that no output whose bytes have changed is taken for made. Another number of `threads` gives another
    output; None, there or here, is a GPU or any number.
    """
    card = try_card(folder)
    if card is None or card.files is None or card.parents.keys() != parents.keys():
        return False
    now = (stage, STAGE_VERSIONS[stage], _libraries(), json.loads(json.dumps(params, default=dict)))
    return (
        (card.stage, card.version, card.libraries, card.params) == now
        and (None in (card.threads, threads) or card.threads == threads)
        and facts_in(folder, FACTS[stage]) is not None
        and not any(damaged_files(folder, card))
        and {path.name: digest(path) for path in beside if path.is_file()} == card.beside
        and not any(_is_outdated(path.parent) for path in parents.values())
        and all(digest(path) == card.parents[name] for name, path in parents.items())
    )


def damaged_files(folder: Path, card: Card[Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, what is wrong with it) of each file that a card lists and that is not there as it was written."""
    for name in card.files or {}:
        if what := listed_damage(folder, card, name):
            yield name, what


def listed_damage(folder: Path, card: Card[Any], name: str) -> str | None:
    """Return what is wrong with a file that a card lists, in words; None if it is there as it was written."""
    file, listed = folder / name, (card.files or {})[name]
    try:
        size = regular(file).stat().st_size
        if size != listed["bytes"]:
            return f"has {size:,} bytes in place of {listed['bytes']:,}"
        return None if content_hash(file) == listed["sha256"] else "holds other bytes than were written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def facts_in(folder: Path, facts: type[F]) -> F | None:
    """Return the facts of an output of whatever version; None if it has no card, or one without them."""
    card = try_card(folder)
    try:
        return facts.model_validate(card.facts) if card else None
    except ValidationError:
        return None


def regular(path: Path) -> Path:
    """Return the path of an ordinary file: a pipe would be waited for without end.

    Raises:
        OSError: if it is none.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no ordinary file", str(path))
    return path


def try_card(folder: Path) -> Card[Any] | None:
    """Return the card in a folder, its facts not looked at; None if there is none, or something else of its name."""
    try:
        return _with_any_facts(folder)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _is_outdated(folder: Path) -> bool:
    """Whether another version of its stage wrote a folder, so that `read_card` would refuse it."""
    card = try_card(folder)
    return card is not None and card.version != STAGE_VERSIONS.get(card.stage)


def require_backbone(card: Card[PretrainFacts | AdaptFacts], folder: Path, fingerprint: str, backbone: Path) -> None:
    """Check that an artifact was made for this backbone.

    Raises:
        ArtifactError: if it was not.
    """
    if card.facts.backbone != fingerprint:
        raise ArtifactError(
            f"{folder}: made for another backbone ({card.facts.backbone[:12]}, not {fingerprint[:12]} in {backbone});"
            " run its stage again or `dvc repro`"
        )


def require_parent(card: Card[Facts], folder: Path, name: str, parent: Path, command: str) -> None:
    """Check that an artifact was made from a file as it is now.

    Raises:
        ArtifactError: if the file has changed since.
    """
    if card.parents.get(name) != known_digest(parent):
        raise ArtifactError(f"{folder}: {parent} has changed since; run `{command}`")


def require_made_from(card: Card[Facts], folder: Path, places: Places) -> None:
    """Check that an artifact was made from other outputs as they are now, as far as its card names them.

    Args:
        card: of the artifact.
        folder: of the artifact.
        places: the outputs, whose own cards say what is in them.

    Raises:
        ArtifactError: if one has changed since.
    """
    for name, path in inputs.parents(card.stage, places, CASES).items():
        if name in card.parents:
            require_parent(card, folder, name, path, command_of(card))


def require_tasks(card: Card[PretrainFacts | IndexFacts | AdaptFacts], folder: Path, tasks: list[str]) -> None:
    """Check that an artifact was made for these tasks, in this order.

    Raises:
        ArtifactError: if it was not.
    """
    made_for = card.facts.tasks
    if made_for != tasks:
        other = sorted(set(made_for) ^ set(tasks)) or ["their order"]
        raise ArtifactError(f"{folder}: made for other tasks (differs in {other[0]}); run its stage again or `dvc repro`")
