"""What lies on the Hugging Face hub is brought into a project: at a commit, whole, and nothing that could be run."""

from __future__ import annotations

import glob
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mhrctl.artifacts.cards import PULLED, Card, damaged_files, try_card, write_card
from mhrctl.artifacts.facts import Facts
from mhrctl.artifacts.hashing import content_hash, files_in
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.artifacts.writing import write_json, writing
from mhrctl.errors import ArtifactError, DataError, listed
from mhrctl.hub import asking
from mhrctl.interchange.peft import CONFIG, TENSORS
from mhrctl.tools.push import MADE_HERE, require_repo

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

SUFFIXES = {".json", ".jinja", ".md", ".model", ".safetensors", ".txt"}
"""Files of these kinds are data. What else there may be, such as Python, or weights that are pickled, is not brought."""
NAMES = {"LICENSE", "NOTICE"}
SHARD = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors")
CODE = "auto_map"
"""The setting, of files whose names end in config.json, by which transformers takes code from a repository."""
Form = Literal["adapter", "model", "pool"]


@dataclass(frozen=True)
class Pulled:
    """This is what a pull has brought.

    Attributes:
        folder: where it lies.
        commit: that it is from, in full.
        form: what it is.
        base: the backbone of adapters, as the files name it; None where they do not.
        left_out: files that were not brought.
        is_new: whether anything was fetched.
    """

    folder: Path
    commit: str
    form: Form
    base: str | None
    left_out: Sequence[str] = ()
    is_new: bool = True


def pull(repo: str, *, revision: str | None, out: Path) -> Pulled:
    """Bring a repository of exports, or of an adapter that peft has saved, or of a model.

    Args:
        repo: `OWNER/NAME`.
        revision: a branch, a tag or a commit; None is the branch `main`.
        out: the folder to write.

    Raises:
        DataError: if the hub refuses, or there is nothing in the repository that can be used without running its code.
        ArtifactError: if what has come is not what the repository lists, or the folder holds other things.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    require_repo(repo)
    what, api = f"pull of {repo}", HfApi()
    with asking(what):
        commit = str(api.model_info(repo, revision=revision).sha)
        if (kept := _kept(out, repo, commit)) is not None:
            return kept
        entries = api.list_repo_tree(repo, recursive=True, revision=commit)
        there = {each.path: each for each in entries if isinstance(each, RepoFile)}
    wanted = [name for name in there if _is_data(name)]
    form = _form(repo, wanted)
    if CARD not in wanted:  # so that the checkpoints of a training stay where they are
        wanted = [name for name in wanted if "/" not in name]
    with writing(out) as aside:
        with asking(what):
            patterns = [glob.escape(name) for name in wanted]
            api.snapshot_download(repo, revision=commit, local_dir=aside, allow_patterns=patterns)
        shutil.rmtree(aside / ".cache", ignore_errors=True)  # the client's notes of a download
        _require_as_listed(aside, {name: there[name] for name in wanted}, repo)
        _require_no_code(aside, repo)
        extra = _finish(aside, repo, commit)
        base = _base(aside)
    left_out = sorted({*(there.keys() - set(wanted)), *extra} - {".gitattributes"})
    return Pulled(out, commit, form, base, left_out)


def _kept(out: Path, repo: str, commit: str) -> Pulled | None:
    """What is there already, if it is of that commit and whole; of another repository, nothing is replaced."""
    if not out.is_dir() or not any(out.iterdir()):
        return None
    card = try_card(out)
    pulled = card.params.get(PULLED) if card else None
    if card is None or not isinstance(pulled, Mapping) or pulled.get("repo") != repo:
        raise ArtifactError(f"{out}: holds other things, which a pull would replace; name a new folder with --out")
    if pulled.get("commit") != commit or any(damaged_files(out, card)):
        return None
    return Pulled(out, commit, _form(repo, [*(card.files or ()), CARD]), _base(out), is_new=False)


def _is_data(name: str) -> bool:
    path = Path(name)
    leads_elsewhere = path.is_absolute() or any(part.startswith(".") for part in path.parts)
    return not leads_elsewhere and (path.suffix in SUFFIXES or path.name in NAMES)


def _form(repo: str, names: Sequence[str]) -> Form:
    """What a repository is, by the names of its files.

    Raises:
        DataError: if there is nothing in it that can be used.
    """
    if TENSORS in names and CONFIG in names:
        return "adapter"
    if "config.json" in names and any(SHARD.fullmatch(name) for name in names):
        return "model"
    below = {str(Path(name).parent) for name in names if SHARD.fullmatch(Path(name).name)}
    if CARD in names and below and all("/" not in folder for folder in below):
        return "pool"
    raise DataError(
        f"{repo}: neither an adapter ({CONFIG}, {TENSORS}) nor a model (config.json, model.safetensors) nor what `mhrctl push`"
        " sends; weights that are pickled are not read"
    )


def _require_as_listed(folder: Path, there: Mapping[str, RepoFile], repo: str) -> None:
    """Check that what has come is what the hub lists: all files, with their sizes, and the hashes of the large ones."""
    for name, listed_as in there.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(f"{repo}: {name} has not come; pull it again")
        is_whole = file.stat().st_size == listed_as.size
        if is_whole and listed_as.lfs is not None:
            is_whole = content_hash(file) == listed_as.lfs.sha256
        if not is_whole:
            raise ArtifactError(f"{repo}: {name} has come with other bytes than the hub lists; pull it again")


def _require_no_code(folder: Path, repo: str) -> None:
    """Check that no configuration asks for code of the repository."""
    for file in files_in(folder):
        if not file.name.endswith("config.json"):
            continue
        try:
            settings = json.loads(file.read_bytes())
        except ValueError:
            raise DataError(f"{repo}: {file.relative_to(folder)} is no JSON") from None
        if isinstance(settings, dict) and settings.get(CODE):
            raise DataError(
                f"{repo}: {file.relative_to(folder)} asks for code of the repository ({CODE}), which is not run here"
            )


def _finish(folder: Path, repo: str, commit: str) -> list[str]:
    """Note repository and commit in the card of what was brought, once it is seen to be whole; returns files of no card."""
    pulled = {PULLED: {"repo": repo, "commit": commit}}
    path = folder / CARD
    if not path.exists():
        write_card(folder, Card("pull", pulled, {}, Facts(), {}))
        return []
    record, card = _sent(folder, repo), try_card(folder)
    if card is None:
        raise ArtifactError(f"{repo}: {CARD} is malformed")
    for name, what in damaged_files(folder, card):
        raise ArtifactError(f"{repo}: {name} {what}, says {CARD}; ask who pushed it to push it again")
    names = {*(card.files or ()), CARD}
    extra = [file for file in files_in(folder) if file.relative_to(folder).as_posix() not in names]
    for file in extra:
        file.unlink()
    write_json(path, sealed({**record, "params": {**card.params, **pulled}}))
    return [file.relative_to(folder).as_posix() for file in extra]


def _sent(folder: Path, repo: str) -> dict[str, Any]:
    """The card of what `mhrctl push` has sent, as JSON.

    Raises:
        DataError: if the file of that name is something else.
        ArtifactError: if it is not as it was sent.
    """
    try:
        record = json.loads((folder / CARD).read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("stage") not in MADE_HERE or not _lists_files(record):
        raise DataError(f"{repo}: {CARD} is none that `mhrctl push` has sent")
    try:
        return opened(record)
    except ValueError as error:
        raise ArtifactError(f"{repo}: {CARD}: {error}") from None


def _lists_files(record: Mapping[str, Any]) -> bool:
    """Whether a card that somebody may have made up has what is asked of it here: settings, and files with sizes and hashes."""
    files = record.get("files")
    if not isinstance(record.get("params"), dict) or not isinstance(files, dict):
        return False
    return all(
        isinstance(each, dict) and isinstance(each.get("bytes"), int) and isinstance(each.get("sha256"), str)
        for each in files.values()
    )


def _base(folder: Path) -> str | None:
    """The backbone that an adapter in a folder, or in the first of its folders, names."""
    for file in (folder / CONFIG, *sorted(folder.glob(f"*/{CONFIG}"))):
        if file.is_file():
            name = json.loads(file.read_bytes()).get("base_model_name_or_path")
            return str(name) if name else None
    return None


def usable(pulled: Pulled) -> str:
    """Say how to go on with what was brought."""
    if pulled.form == "model":
        return f"`--set backbone.source=local --set backbone.name={pulled.folder}` makes it a backbone"
    folders = [pulled.folder] if pulled.form == "adapter" else sorted(each.parent for each in pulled.folder.glob(f"*/{CONFIG}"))
    if not folders:
        return "each folder is a whole model"
    more = f" (others: {listed([each.name for each in folders[1:]], 5)})" if len(folders) > 1 else ""
    return f"`mhrctl predict --adapter {folders[0]}` asks it, `mhrctl import {folders[0]}` starts from it{more}"
