"""A pool of LoRAs that others trained is read one after the other, and becomes runs of one adapter.

Ranks and scalings may differ, and an adapter may leave out layers that another has: what is missing is zero, which changes
nothing, and the scaling alpha / rank is in B.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.config import InventoryConfig
from mhrctl.errors import DataError, listed
from mhrctl.hub import asking, fetching
from mhrctl.interchange.peft import CONFIG, TENSORS, read_peft
from mhrctl.interchange.weights import SkillWeights

LIST = ".jsonl"
_KEYS = ("adapter", "name", "revision", "samples")
_OF_ONE = {"name": "name", "samples": "file of samples"}
_EXAMPLE = '{"adapter": "a/folder", "name": "its name"} a line, and the name of the file ends in .jsonl'


@dataclass(frozen=True)
class Member:
    """A member of a pool says where an adapter comes from.

    Attributes:
        name: which no other of the pool has.
        source: the folder or the hub id, as it was given.
        folder: where it is.
        revision: the commit, of one of the hub.
        licence: as its README says, if it does.
        samples: the file of inputs that it was trained on, if there is one.
    """

    name: str
    source: str
    folder: Path
    revision: str | None = None
    licence: str | None = None
    samples: Path | None = None


@dataclass(frozen=True)
class Form:
    """This is what a pool's adapters become.

    Attributes:
        shapes: {layer: (d_in, d_out)} of the layers that any of them adapts.
        rank: the greatest of their ranks.
        ranks: of each.
        alphas: of each.
    """

    shapes: Shapes
    rank: int
    ranks: list[int]
    alphas: list[float]

    @property
    def config(self) -> InventoryConfig:
        """The settings of an inventory that holds them; its scaling is 1."""
        return InventoryConfig(rank=self.rank, alpha=float(self.rank))


def members_of(sources: Sequence[str], root: Path = Path()) -> list[Member]:
    """Find the adapters of a pool.

    Args:
        sources: folders that peft's `save_pretrained` wrote; folders of such folders; ids of the hub, with `@revision` or not;
            files of JSON Lines with `adapter`, which is one of these, and if need be `name`, `revision`, and `samples`: a
            file of JSON Lines with inputs that it was trained on.
        root: what relative folders and files are relative to.

    Raises:
        DataError: if there is nothing, or two have one name.
    """
    members = [member for source in sources for member in _members(source, root)]
    if twice := [name for name, count in Counter(member.name for member in members).items() if count > 1]:
        raise DataError(f"pool: two adapters are called {listed(twice)}; give them names in a file ({_EXAMPLE})")
    return members


def _members(source: str, root: Path) -> Iterator[Member]:
    path = root / source
    if path.suffix == LIST:
        yield from _listed(path)
    elif path.is_dir():
        folders = [path] if (path / CONFIG).is_file() else sorted(folder.parent for folder in path.glob(f"*/{CONFIG}"))
        if not folders:
            raise DataError(f"{path}: neither {CONFIG} in it nor folders with one; a pool has folders that peft saved")
        yield from (_in_folder(folder, folder.name, str(source)) for folder in folders)
    elif path.exists() or source.startswith(("/", ".")):
        raise DataError(f"{source}: {'no folder' if path.exists() else 'no such folder'}, nor a list ({LIST}) of adapters")
    else:
        repository, _, revision = source.partition("@")
        yield _on_hub(repository, revision or None, repository.rpartition("/")[2])


def _listed(path: Path) -> Iterator[Member]:
    for where, record in _objects(path):
        if not isinstance(record.get("adapter"), str):
            raise DataError(f"{where}: no `adapter`; a line is {_EXAMPLE}")
        if wrong := [key for key, value in record.items() if key not in _KEYS or not isinstance(value, str)]:
            raise DataError(f"{where}: {listed(wrong)}: a line has the texts {listed(_KEYS)}")
        revision = f"@{record['revision']}" if record.get("revision") else ""
        members = list(_members(f"{record['adapter']}{revision}", path.parent))
        if len(members) > 1 and (given := record.keys() & _OF_ONE):
            what = listed(sorted(_OF_ONE[key] for key in given))
            raise DataError(f"{where}: {record['adapter']} has {len(members)} adapters, and one {what} was given")
        samples = path.parent / record["samples"] if record.get("samples") else None
        for member in members:
            yield replace(member, name=record.get("name") or member.name, samples=samples or member.samples)


def samples_of(member: Member) -> list[str]:
    """Return the inputs that an adapter of a pool was trained on, as its file of samples has them; nothing without one.

    Raises:
        DataError: if the file cannot be read, or a line has no text `input`.
    """
    if member.samples is None:
        return []
    texts = []
    for where, record in _objects(member.samples):
        if not isinstance(record.get("input"), str) or not record["input"].strip():
            raise DataError(f"{where}: no text `input`, which a sample of {member.name} has")
        texts.append(record["input"])
    if not texts:
        raise DataError(f"{member.samples}: has no samples of {member.name}")
    return texts


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, what stands there) of JSON Lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON ({error})") from None
            yield where, record if isinstance(record, dict) else {}


def _in_folder(folder: Path, name: str, source: str, revision: str | None = None) -> Member:
    return Member(name, source, folder, revision, _licence(folder))


def _on_hub(repository: str, revision: str | None, name: str) -> Member:
    from huggingface_hub import snapshot_download

    what = f"adapter {repository}"
    files = [CONFIG, TENSORS, "README.md"]
    with asking(what), fetching(repository, what=what, way_out="give a folder", files=files[:2], revision=revision):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    return _in_folder(folder, name, repository, folder.name)


def _licence(folder: Path) -> str | None:
    """The licence that an adapter's README has in its metadata."""
    from huggingface_hub.repocard import metadata_load

    with suppress(Exception):  # whatever a README holds
        licence = (metadata_load(folder / "README.md") or {}).get("license")
        return licence if isinstance(licence, str) else None
    return None


def form_of(members: Sequence[Member], shapes: Shapes) -> Form:
    """Read all adapters of a pool once, and say what they become.

    Args:
        members: of the pool.
        shapes: {layer: (d_in, d_out)} of all linear layers of the backbone.

    Raises:
        DataError: if some cannot be used; names each, why, and the others.
    """
    layers: set[str] = set()
    ranks, alphas, wrong = [], [], dict[str, str]()
    for member in members:
        try:
            weights = _lora(member, shapes)
        except DataError as error:
            wrong[member.name] = str(error)
            continue
        layers |= weights.layers.keys()
        ranks.append(weights.rank)
        alphas.append(weights.alpha)
    if wrong:
        said = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        good = [member.name for member in members if member.name not in wrong]
        others = f"; the others can be used: {listed(good)}" if good else ""
        raise DataError(f"pool: {len(wrong)} of {len(members)} adapters cannot be used: {said}{others}")
    return Form({layer: shape for layer, shape in shapes.items() if layer in layers}, max(ranks), ranks, alphas)


def _lora(member: Member, shapes: Shapes) -> SkillWeights:
    weights = read_peft(member.folder, shapes)
    if not isinstance(weights, SkillWeights) or weights.heads * weights.skills > 1:
        raise DataError(f"{member.folder}: no LoRA; a pool holds LoRAs")
    return weights


def stacked(members: Sequence[Member], form: Form, shapes: Shapes, scratch: Path) -> dict[str, Tensor]:
    """Put the adapters of a pool into tensors with a run for each, which are mapped from files.

    So their number is bounded by the disk, and not by memory.

    Args:
        members: of the pool.
        form: that they have.
        shapes: {layer: (d_in, d_out)} of all linear layers of the backbone.
        scratch: an empty folder for the files.

    Returns:
        {`<layer>.lora_A`: [runs, 1, 1, d_in, rank], `<layer>.lora_B`: [runs, 1, 1, rank, d_out]}.
    """
    tensors: dict[str, Tensor] = {}
    for number, (layer, (d_in, d_out)) in enumerate(form.shapes.items()):
        for matrix, size in (("lora_A", (d_in, form.rank)), ("lora_B", (form.rank, d_out))):
            tensors[f"{layer}.{matrix}"] = _mapped(scratch / f"{number}.{matrix}", (len(members), 1, 1, *size))
    for run, member in enumerate(members):
        weights = _lora(member, shapes)
        for layer, skills in weights.layers.items():
            rank, scaling = weights.rank, weights.alpha / weights.rank
            tensors[f"{layer}.lora_A"][run, ..., :rank] = skills.lora_A
            tensors[f"{layer}.lora_B"][run, ..., :rank, :] = skills.lora_B * scaling
    return tensors


def _mapped(path: Path, shape: Sequence[int]) -> Tensor:
    """A tensor of zeros that lives in a file."""
    return torch.from_file(str(path), shared=True, size=torch.Size(shape).numel()).view(*shape)
