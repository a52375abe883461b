"""Exports go to the Hugging Face hub in one commit, with a model card that says what the hub asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import ModelCard, ModelCardData

from mhrctl.artifacts.cards import PULLED, Card, cell_in, damaged_files, known_digest, try_card
from mhrctl.artifacts.facts import ExportFacts, PoolFacts
from mhrctl.artifacts.hashing import content_hash, files_in
from mhrctl.artifacts.names import ADAPTERS, CARD, Project
from mhrctl.artifacts.ownership import foreign_files
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.artifacts.writing import as_json
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.hub import asking
from mhrctl.tools.model_card import addressed
from mhrctl.tools.pool_card import pool_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"
ATTRIBUTES = ".gitattributes"
"""What the hub itself puts into a new repository."""
MADE_HERE = ("export", "pool")
"""The cards of what `mhrctl push` has sent, or sends."""


@dataclass(frozen=True)
class Parcel:
    """A parcel is what a push sends: files as they are, and files that are made for the hub.

    Attributes:
        name: what it is, for the message of the commit.
        files: {name in the repository: the file, or its content}.
        card: the README.md.
        note: what whoever pulls it should know.
    """

    name: str
    files: Mapping[str, Path | bytes]
    card: str
    note: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """{name: bytes}, with the names in their order."""
        return {name: _size(self.files[name]) for name in sorted(self.files)}


@dataclass(frozen=True)
class _Export:
    """One export: its card, and its README.md."""

    card: Card[ExportFacts]
    text: ModelCard

    @property
    def facts(self) -> ExportFacts:
        return self.card.facts

    @property
    def data(self) -> ModelCardData:
        return cast("ModelCardData", self.text.data)  # which is typed as what all cards of the hub have

    @property
    def is_merged(self) -> bool:
        return bool(self.card.params.get("merged"))


@dataclass(frozen=True)
class Pushed:
    """This is what a push has come to.

    Attributes:
        url: of the repository.
        commit: in full.
        is_private: whether the repository is.
    """

    url: str
    commit: str
    is_private: bool


def parcel(folder: Path, repo: str, *, licence: str | None, datasets: Sequence[str], project: Project) -> Parcel:
    """Make what would be sent of an export, or of a folder of exports.

    Args:
        folder: that `mhrctl export` or `mhrctl pull` has written: one export, or one for each task.
        repo: where to, `OWNER/NAME`, as the model card's code names it.
        licence: identifier of a licence; None for the one that the model card has.
        datasets: names on the hub of what it was trained on, besides those that the model card has.
        project: whose outputs an export in it must be made from.

    Raises:
        DataError: if the folder is no export.
        ArtifactError: if an export is damaged, or made from what its stage has made again since.
        ParamsError: if no licence is known, or the exports belong on different backbones.
    """
    require_repo(repo)
    if not folder.is_dir():
        raise DataError(f"{folder}: no folder; `mhrctl export` writes one, and says where")
    exports = {name: _whole(folder / name, project) for name in _exports(folder)}
    if len({each.facts.backbone for each in exports.values()}) > 1:
        raise ParamsError(f"{folder}: its exports belong on different backbones; push them one by one")
    first = next(iter(exports.values()))
    known = [each.data for each in exports.values()]
    if "." in exports:
        record = first.card.record
        text = ModelCard(addressed(first.text.content, repo, former=record["params"].get(PULLED, {}).get("repo", ".")))
    else:
        record = _pool(list(exports.items())).record
        parts = {name: (each.facts.task, each.data) for name, each in exports.items()}
        text = pool_card(repo, parts, base=first.facts.base, merged=first.is_merged)
        if (folder / README).is_file():  # of a pool that was pulled
            known.append(cast("ModelCardData", ModelCard.load(folder / README).data))
    _complete(text, known, licence, datasets)
    files: dict[str, Path | bytes] = {file.relative_to(folder).as_posix(): file for file in files_in(folder)}
    files[README] = str(text).encode()
    files[CARD] = _card_of(record, files)
    return Parcel(folder.resolve().name, files, str(text), _note(first))


def _complete(text: ModelCard, known: Sequence[ModelCardData], licence: str | None, datasets: Sequence[str]) -> None:
    """Put the licence and the data sets into a model card.

    Raises:
        ParamsError: if no licence is known.
    """
    licences = [licence, *(each.license for each in known)]
    text.data["license"] = next((each for each in licences if each), None)
    if text.data["license"] is None:
        raise ParamsError("--license: no licence is recorded; name that of these weights, such as --license apache-2.0")
    named = [name for each in known for name in _as_list(each.datasets)]
    text.data["datasets"] = list(dict.fromkeys([*named, *datasets])) or None


def push(parcel: Parcel, repo: str, *, public: bool, replace_other: bool) -> Pushed:
    """Send a parcel in one commit; what an earlier one has left in the repository, and this has not, goes in the same commit.

    Args:
        parcel: what to send.
        repo: where to, `OWNER/NAME`; it is made if there is none.
        public: make a new one public, or send to one that is.
        replace_other: whether a repository that holds other things may be replaced.

    Raises:
        DataError: if there is no token, the hub refuses, the repository is public and that is not asked for, or it holds other
            things.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    what, api = f"push to {repo}", HfApi()
    if get_token() is None:
        raise DataError(f"{what}: no token; run `hf auth login`, or set HF_TOKEN to one that may write")
    with asking(what):
        try:
            info = api.model_info(repo)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=not public)
            info = api.model_info(repo)
        if not (info.private or public):
            raise DataError(f"{what}: it is public, so that everybody would see this; add --public, or name another")
        there = {each.rfilename for each in info.siblings or ()} - {ATTRIBUTES}
        if there and not replace_other and not _is_made_here(api, repo, str(info.sha), there):
            raise DataError(f"{what}: it holds what mhrctl has not made; name another, or --replace all that is there")
        commit = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, content) for name, content in parcel.files.items()),
                *(CommitOperationDelete(name, is_folder=False) for name in sorted(there - parcel.files.keys())),
            ],
            commit_message=f"{parcel.name}, by mhrctl",
            parent_commit=info.sha,
        )
    return Pushed(str(commit.repo_url), commit.oid, bool(info.private))


def require_repo(repo: str) -> None:
    """Check that a name is one of a repository with its owner.

    Raises:
        ParamsError: if it is not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # it is documented, and not exported

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ParamsError(f"{repo}: no name of a repository ({error})") from None
    if "/" not in repo:
        raise ParamsError(f"{repo}: name the owner too, as in OWNER/{repo}")


def _exports(folder: Path) -> list[str]:
    """The exports in a folder: itself (`.`), or those directly below it."""
    card = try_card(folder)
    if card is not None and card.stage == "export":
        return ["."]
    names = sorted(each.parent.name for each in folder.glob(f"*/{CARD}"))
    if not names or (card is None and (folder / CARD).exists()):
        raise DataError(f"{folder}: no export; `mhrctl export` writes one, and says where")
    allowed = {*names, *(() if card is None else (README, CARD)), ".gitignore"}
    if others := sorted(each.name for each in folder.iterdir() if each.name not in allowed):
        raise DataError(f"{folder}: holds {others[0]}, which is no export; move it away")
    return names


def _whole(folder: Path, project: Project) -> _Export:
    """Read an export that is as it was written, and made from what its stage has now.

    Raises:
        DataError: if it is no export.
        ArtifactError: if it is damaged, or out of date.
    """
    card = try_card(folder)
    if card is None or card.stage != "export":
        raise DataError(f"{folder}: no export; `mhrctl export` writes one")
    again = "export it again"
    for name, what in damaged_files(folder, card):
        raise ArtifactError(f"{folder / name}: {what}; {again}")
    if foreign := next(foreign_files(folder), None):
        raise ArtifactError(f"{foreign}: is not listed by the card of the export; move it away")
    read = replace(card, facts=ExportFacts.model_validate(card.facts))
    export = _Export(read, ModelCard.load(folder / README))
    stage, cell = str(card.params.get("stage")), cell_in(card)
    if PULLED in card.params or cell is None or not folder.resolve().is_relative_to(project.root.resolve()):
        return export
    source = project.output(stage, cell.name) / ADAPTERS
    if source.is_file() and known_digest(source) != card.parents.get(stage):
        raise ArtifactError(f"{folder}: made from an earlier {stage} output of {cell.name}; {again}")
    return export


def _pool(exports: Sequence[tuple[str, _Export]]) -> Card[PoolFacts]:
    """The card of a pool, without its files; it has the settings that are those of all."""
    first = exports[0][1]
    tasks = {name: each.facts.task for name, each in exports}
    facts = PoolFacts(base=first.facts.base, backbone=first.facts.backbone, tasks=tasks)
    params = first.card.params if all(each.card.params == first.card.params for _, each in exports) else {}
    return Card("pool", params, {}, facts, first.card.libraries)


def _card_of(record: Mapping[str, Any], files: Mapping[str, Path | bytes]) -> bytes:
    """A card, sealed, that lists the files as they are sent."""
    listed = {name: {"bytes": _size(each), "sha256": _hash(each)} for name, each in sorted(files.items()) if name != CARD}
    return as_json(sealed({**{key: value for key, value in record.items() if key != "seal"}, "files": listed})).encode()


def _is_made_here(api: HfApi, repo: str, revision: str, there: set[str]) -> bool:
    """Whether a repository is what `mhrctl push` has sent: its card says so, and its seal fits."""
    if CARD not in there:
        return False
    path = api.hf_hub_download(repo, CARD, revision=revision)
    try:
        return opened(json.loads(Path(path).read_bytes())).get("stage") in MADE_HERE
    except ValueError:
        return False


def _note(export: _Export) -> str | None:
    base = export.facts.base
    if base.source == "hub":
        return None
    if export.is_merged:
        return f"the path of its backbone, {base.name}, is in the files"
    return (
        f"its backbone, {base.name}, is on this machine alone, and that path is in the files: whoever pulls it needs the same"
        f" weights (fingerprint {export.facts.backbone[:12]}); `mhrctl export --merge` writes whole models"
    )


def _as_list(names: Any) -> list[str]:  # noqa: ANN401 - as a model card has it
    return [names] if isinstance(names, str) else list(names or ())


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _hash(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content_hash(content)
