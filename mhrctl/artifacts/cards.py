"""Cards: what an output folder says of itself, and whether it fits what reads it.

Cards hold nothing that differs between two equal runs: what a run took (wall time, device) goes to `data/log/`, which
DVC does not look at, so that a stage run again with the same result reruns nothing after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mhrctl.artifacts.hashing import digest, files_in
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.artifacts.writing import write_json
from mhrctl.errors import ArtifactError

LIBRARIES = ("torch", "transformers", "tokenizers", "pyarrow")


@dataclass(frozen=True)
class Card:
    """What an output folder says of itself.

    Attributes:
        stage: the stage that wrote it.
        params: the resolved parameters that decided it.
        parents: {name: sha256} of the artifacts that it was made from.
        facts: what a reader needs to check a fit: tasks, backbone fingerprint, counts.
        libraries: versions that the result may depend on.
        version: of the stage's results (`mhrctl.artifacts.versions`); None for what no stage wrote, and from before there were
            versions.
        files: {name: bytes} of all else in the folder; None from before cards named them.
        beside: {name: sha256} of what was written with it elsewhere: a training log, scores.
    """

    stage: str
    params: Mapping[str, Any]
    parents: Mapping[str, str]
    facts: Mapping[str, Any]
    libraries: Mapping[str, str]
    version: int | None = None
    files: Mapping[str, int] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], **facts: Any) -> Card:  # noqa: ANN401
        """Make the card of an output, with the hashes of its parents."""
        hashes = {name: digest(path) for name, path in parents.items()}
        return cls(stage, params, hashes, facts, _libraries(), STAGE_VERSIONS.get(stage))


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in (*LIBRARIES, "mhrctl")}


def write_card(folder: Path, card: Card, *, beside: Sequence[Path] = ()) -> None:
    """Finish an output folder, when all its other files, and those `beside` it, are written."""
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files_in(folder) if file != folder / CARD}
    write_json(folder / CARD, vars(replace(card, files=files, beside={path.name: digest(path) for path in beside})))


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


def read_card(folder: Path, *, stage: str, command: str) -> Card:
    """Read the card of an input folder.

    Args:
        folder: an output folder.
        stage: the stage that must have written it.
        command: what to run if it is not there.

    Raises:
        ArtifactError: if the folder is missing, unfinished, another stage's, or made by another version of the stage.
    """
    try:
        card = Card(**json.loads((folder / CARD).read_text()))
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no finished {stage} output; run `{command}` or `dvc repro`") from None
    except (json.JSONDecodeError, TypeError):
        raise ArtifactError(f"{folder / CARD}: not a card; remove {folder} and run `{command}`") from None
    if card.stage != stage:
        raise ArtifactError(f"{folder}: written by stage {card.stage}, expected {stage}; run `{command}`")
    if card.version != STAGE_VERSIONS[stage]:
        made_by = "an mhrctl without stage versions" if card.version is None else f"version {card.version} of {stage}"
        raise ArtifactError(
            f"{folder}: made by {made_by}, this mhrctl has version {STAGE_VERSIONS[stage]} with other results; run `{command}`,"
            " or `mhrctl grid sync` and `dvc repro`"
        )
    return card


def is_up_to_date(
    folder: Path, stage: str, params: Mapping[str, Any], parents: Mapping[str, Path], *, beside: Sequence[Path] = ()
) -> bool:
    """Whether an output folder is what its stage would write now.

    Its card tells: all but the facts, which are results, is compared with what the card would hold now (of `parents`, files
    or folders, the hashes, once all else is equal), and with the files that are there, in the folder and `beside` it.
    """
    card = _card_of(folder)
    if card is None or card.files is None or card.parents.keys() != parents.keys():
        return False
    now = (stage, STAGE_VERSIONS[stage], _libraries(), json.loads(json.dumps(params, default=dict)))
    return (
        (card.stage, card.version, card.libraries, card.params) == now
        and all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in card.files.items())
        and {path.name: digest(path) for path in beside} == card.beside
        and not any(_is_outdated(path.parent) for path in parents.values())
        and all(digest(path) == card.parents[name] for name, path in parents.items())
    )


def _card_of(folder: Path) -> Card | None:
    """The card in a folder; None if there is none, or something else of its name."""
    try:
        return Card(**json.loads((folder / CARD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_outdated(folder: Path) -> bool:
    """Whether another version of its stage wrote a folder, so that `read_card` would refuse it."""
    card = _card_of(folder)
    return card is not None and card.version != STAGE_VERSIONS.get(card.stage)


def require_backbone(card: Card, folder: Path, fingerprint: str, backbone: Path) -> None:
    """Check that an artifact was made for this backbone.

    Raises:
        ArtifactError: if it was not.
    """
    if card.facts["backbone"] != fingerprint:
        raise ArtifactError(
            f"{folder}: made for another backbone ({card.facts['backbone'][:12]}, not {fingerprint[:12]} in {backbone});"
            " run its stage again or `dvc repro`"
        )


def require_parent(card: Card, folder: Path, name: str, parent: Path, command: str) -> None:
    """Check that an artifact was made from a file as it is now.

    Raises:
        ArtifactError: if the file has changed since.
    """
    if card.parents[name] != digest(parent):
        raise ArtifactError(f"{folder}: {parent} has changed since; run `{command}` or `dvc repro`")


def require_tasks(card: Card, folder: Path, tasks: list[str]) -> None:
    """Check that an artifact was made for these tasks, in this order.

    Raises:
        ArtifactError: if it was not.
    """
    made_for = card.facts["tasks"]
    if made_for != tasks:
        other = sorted(set(made_for) ^ set(tasks)) or ["their order"]
        raise ArtifactError(f"{folder}: made for other tasks (differs in {other[0]}); run its stage again or `dvc repro`")
