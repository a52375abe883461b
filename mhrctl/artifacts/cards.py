"""Cards say what an output folder is, and whether it fits what reads it.

Cards hold nothing that differs between two equal runs: what a run took (wall time, device) goes to `data/log/`, which
DVC does not look at, so that a stage run again with the same result reruns nothing after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import ValidationError

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
from mhrctl.artifacts.hashing import digest, files_in
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.artifacts.writing import write_json
from mhrctl.errors import ArtifactError

LIBRARIES = ("torch", "transformers", "tokenizers", "pyarrow")

F = TypeVar("F", bound=Facts)
F_co = TypeVar("F_co", bound=Facts, covariant=True)


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
        files: {name: bytes} of all else in the folder; None from before cards named them.
        beside: {name: sha256} of what was written with it elsewhere: a training log, scores.
    """

    stage: str
    params: Mapping[str, Any]
    parents: Mapping[str, str]
    facts: F_co
    libraries: Mapping[str, str]
    version: int | None = None
    files: Mapping[str, int] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], facts: F) -> Card[F]:
        """Make the card of an output, with the hashes of its parents."""
        hashes = {name: digest(path) for name, path in parents.items()}
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
    return {name: version(name) for name in (*LIBRARIES, "mhrctl")}


def write_card(folder: Path, card: Card[Facts], *, beside: Sequence[Path] = ()) -> None:
    """Finish an output folder, when all its other files, and those `beside` it, are written."""
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files_in(folder) if file != folder / CARD}
    write_json(folder / CARD, replace(card, files=files, beside={path.name: digest(path) for path in beside}).record)


def require_replaceable(folder: Path, stage: str) -> None:
    """Check that a folder that a user named can be written: that it is new, empty, or an output of the same stage.

    Raises:
        ArtifactError: if it holds anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    card = _card_of(folder)
    if card is None or card.stage != stage:
        raise ArtifactError(f"{folder}: holds other things, which an {stage} would replace; name a new folder")


@overload
def read_card(folder: Path, *, stage: Literal["prepare"], command: str) -> Card[PrepareFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["backbone"], command: str) -> Card[BackboneFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["pretrain", "average"], command: str) -> Card[PretrainFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["index"], command: str) -> Card[IndexFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["adapt"], command: str) -> Card[AdaptFacts]: ...
@overload
def read_card(folder: Path, *, stage: Literal["evaluate"], command: str) -> Card[EvaluateFacts]: ...
def read_card(folder: Path, *, stage: str, command: str) -> Card[Facts]:
    """Read the card of an input folder.

    Args:
        folder: an output folder.
        stage: the stage that must have written it.
        command: what to run if it is not there.

    Raises:
        ArtifactError: if the folder is missing, unfinished, another stage's, made by another version of the stage, or if its
            card is malformed.
    """
    try:
        card = _with_any_facts(folder)
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no finished {stage} output; run `{command}` or `dvc repro`") from None
    except (ValueError, TypeError):
        raise ArtifactError(f"{folder / CARD}: not a card; remove {folder} and run `{command}`") from None
    if card.stage != stage:
        raise ArtifactError(f"{folder}: written by stage {card.stage}, expected {stage}; run `{command}`")
    if card.version != STAGE_VERSIONS[stage]:
        made_by = "an mhrctl without stage versions" if card.version is None else f"version {card.version} of {stage}"
        raise ArtifactError(
            f"{folder}: made by {made_by}, this mhrctl has version {STAGE_VERSIONS[stage]} with other results; run `{command}`,"
            " or `mhrctl grid sync` and `dvc repro`"
        )
    try:
        return replace(card, facts=FACTS[stage].model_validate(card.facts))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("facts", *first["loc"])))
        raise ArtifactError(f"{folder / CARD}: {key}: {first['msg']}; remove {folder} and run `{command}`") from None


def _with_any_facts(folder: Path) -> Card[Any]:
    """The card in a folder, whose facts are not looked at: those of another stage or version are other ones."""
    return Card(**json.loads((folder / CARD).read_text()))


def is_up_to_date(
    folder: Path, stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], *, beside: Sequence[Path] = ()
) -> bool:
    """Return whether an output folder is what its stage would write now.

    Its card decides: all but the facts, which are results, is compared with what the card would hold now (of `parents`, files
    or folders, the hashes, once all else is equal), and with the files that are there, in the folder and `beside` it.
    """
    card = _card_of(folder)
    if card is None or card.files is None or card.parents.keys() != parents.keys():
        return False
    now = (stage, STAGE_VERSIONS[stage], _libraries(), json.loads(json.dumps(params, default=dict)))
    return (
        (card.stage, card.version, card.libraries, card.params) == now
        and facts_in(folder, FACTS[stage]) is not None
        and all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in card.files.items())
        and {path.name: digest(path) for path in beside} == card.beside
        and not any(_is_outdated(path.parent) for path in parents.values())
        and all(digest(path) == card.parents[name] for name, path in parents.items())
    )


def facts_in(folder: Path, facts: type[F]) -> F | None:
    """Return the facts of an output of whatever version; None if it has no card, or one without them."""
    card = _card_of(folder)
    try:
        return facts.model_validate(card.facts) if card else None
    except ValidationError:
        return None


def _card_of(folder: Path) -> Card[Any] | None:
    """The card in a folder, its facts not looked at; None if there is none, or something else of its name."""
    try:
        return _with_any_facts(folder)
    except (OSError, ValueError, TypeError):
        return None


def _is_outdated(folder: Path) -> bool:
    """Whether another version of its stage wrote a folder, so that `read_card` would refuse it."""
    card = _card_of(folder)
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
    if card.parents[name] != digest(parent):
        raise ArtifactError(f"{folder}: {parent} has changed since; run `{command}` or `dvc repro`")


def require_tasks(card: Card[PretrainFacts | IndexFacts | AdaptFacts], folder: Path, tasks: list[str]) -> None:
    """Check that an artifact was made for these tasks, in this order.

    Raises:
        ArtifactError: if it was not.
    """
    made_for = card.facts.tasks
    if made_for != tasks:
        other = sorted(set(made_for) ^ set(tasks)) or ["their order"]
        raise ArtifactError(f"{folder}: made for other tasks (differs in {other[0]}); run its stage again or `dvc repro`")
