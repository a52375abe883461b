"""A killed training goes on from a checkpoint to the same result. Checkpoints are safetensors, no pickles.

The last two are kept, each with a hash of all that it holds. One that is damaged is set aside under another name, neither used
nor deleted, and the one before it is gone back to:

    pretrain-<cell>.safetensors                   the last
    pretrain-<cell>.previous.safetensors          the one before
    pretrain-<cell>.safetensors.1.damaged         what was set aside first
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mhrctl.adapters.finite import require_finite
from mhrctl.artifacts.placing import clean
from mhrctl.artifacts.writing import replacing
from mhrctl.errors import ArtifactError, DivergedError
from mhrctl.training.selection import BestSteps

COPIES = 3
"""Checkpoints of a training on disk at the most: the last two, and a new one while it is written."""
PREVIOUS, DAMAGED = ".previous", ".damaged"


class DamagedError(Exception):
    """A file is no whole checkpoint of this version."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint is what a training goes on from.

    Attributes:
        step: steps taken.
        key: identifies the training.
        scalars: {slot/name: a number that the optimizer keeps}.
        log: what has been logged, as JSON.
        tensors: {parameter/name, optimizer/slot/name, or best/name: values}.
        best: the best step of each run so far, its score, and how many came after it; none before the first validation, or
            where the last is kept.
    """

    step: int
    key: str
    scalars: Mapping[str, float]
    log: list[Any]
    tensors: Mapping[str, Tensor]
    best: Sequence[tuple[int, float, int] | tuple[int, float]] = ()

    def fill(self, parameters: Mapping[str, nn.Parameter], best: BestSteps | None = None) -> None:
        """Give parameters the values that they had, and the record of the best steps what it had, if one is kept.

        Raises:
            DamagedError: if it has not all of them; then none has changed.
        """
        stored = self._stored("parameter", parameters)
        kept = self._stored("best", best.parameters) if best and self.best else {}
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored[name])
        if best and kept:
            best.restore(kept, self.best)

    def fill_optimizer(self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
        """Give an optimizer of parameters the state that it had."""
        fused = {id(parameter) for group in optimizer.param_groups if group.get("fused") for parameter in group["params"]}
        for stored, value in self.tensors.items():
            kind, _, rest = stored.partition("/")
            if kind == "optimizer":
                slot, _, name = rest.partition("/")
                parameter = parameters[name]
                counter = value.dim() == 0 and id(parameter) not in fused  # stays on the CPU, so that no step waits for it
                optimizer.state[parameter][slot] = value if counter else value.to(parameter.device)
        for stored, number in self.scalars.items():
            slot, _, name = stored.partition("/")
            optimizer.state[parameters[name]][slot] = number

    def _stored(self, kind: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a kind, which must have the shapes of others of the same names."""
        for name, tensor in like.items():
            stored = self.tensors.get(f"{kind}/{name}")
            if stored is None or stored.shape != tensor.shape:
                raise DamagedError(f"does not fit ({kind}/{name} is {'missing' if stored is None else list(stored.shape)})")
        return {name: self.tensors[f"{kind}/{name}"] for name in like}


def save_checkpoint(
    path: Path,
    *,
    step: int,
    key: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    log: list[Any],
    best: BestSteps | None = None,
) -> None:
    """Write a checkpoint in one step; the one that was there becomes the previous one.

    Args:
        path: the file.
        step: steps taken.
        key: identifies the training; another key never resumes from this file.
        parameters: what is trained, by name.
        optimizer: over these parameters.
        log: what has been logged, as JSON.
        best: the record of the best steps, if one is kept.

    Raises:
        DivergedError: if a number in it is not finite; what was there stays.
    """
    tensors = {f"parameter/{name}": parameter.detach() for name, parameter in parameters.items()}
    scalars: dict[str, float] = {}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{slot}/{name}"] = value
            else:
                scalars[f"{slot}/{name}"] = value
    facts = {"step": step, "key": key, "scalars": scalars, "log": log}
    if best and any(torch.isfinite(best.scores)):
        tensors |= {f"best/{name}": parameter for name, parameter in best.parameters.items()}
        facts["best"] = list(zip(best.steps, best.scores.tolist(), best.since_best, strict=True))
    require_finite(tensors, f"the checkpoint of step {step}", error=DivergedError)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    with replacing(path) as aside:
        save_file(tensors, aside, {"facts": text, "sha256": _hash(text, tensors)})
        # Before the new one has its name: whenever the process is killed, one of the two is there.
        if path.is_file():
            if previous(path).is_dir():
                _set_aside(previous(path))
            path.replace(previous(path))


def load_checkpoint(
    path: Path,
    *,
    key: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    best: BestSteps | None = None,
    warn: Callable[[str], None] = lambda _message: None,
    set_aside: bool = True,
) -> tuple[int, list[Any]]:
    """Go back to the last checkpoint of this training that is whole, if there is one.

    Args:
        path: the file of the last.
        key: identifies the training.
        parameters: what is trained, by name.
        optimizer: over these parameters.
        best: the record of the best steps, if one is kept.
        warn: is told of a damaged one, in one line.
        set_aside: whether this process gives damaged ones another name, of several processes only one.

    Returns:
        The steps taken and the log; (0, []) if there is none.

    Raises:
        ArtifactError: if there is one that cannot be read for another reason, such as its permissions.
    """

    def fill(kept: Checkpoint) -> None:
        kept.fill(parameters, best)
        kept.fill_optimizer(parameters, optimizer)

    kept = resume_from(path, key=key, fill=fill, warn=warn, set_aside=set_aside)
    return (kept.step, kept.log) if kept else (0, [])


def resume_from(
    path: Path,
    *,
    key: str,
    fill: Callable[[Checkpoint], None],
    warn: Callable[[str], None] = lambda _message: None,
    set_aside: bool = True,
) -> Checkpoint | None:
    """Go back to the last checkpoint of this training that is whole, if there is one, and return it.

    Args:
        path: the file of the last.
        key: identifies the training.
        fill: takes what is in it, or raises `DamagedError` and has changed nothing.
        warn: is told of a damaged one, in one line.
        set_aside: whether this process gives damaged ones another name, of several processes only one.

    Raises:
        ArtifactError: if there is one that cannot be read for another reason, such as its permissions.
    """
    if set_aside:
        clean(path)  # what a killed process had begun to write
    notes: list[str] = []
    last: Checkpoint | None = None
    for place in (path, previous(path)):
        try:
            kept = read_checkpoint(place)
            if kept is None or kept.key != key:
                continue
            fill(kept)
        except DamagedError as error:
            notes.append(f"{place}: {error}" + (f", and was set aside as {_set_aside(place).name}" if set_aside else ""))
            continue
        last = kept
        break
    for note in notes:
        warn(f"{note}; the training {f'goes on from step {last.step}' if last else 'starts again'}")
    return last


def last_checkpoint(path: Path) -> Checkpoint | None:
    """Return the last checkpoint that is whole, if there is one, and change nothing: its training may be in progress.

    Raises:
        ArtifactError: if there are only damaged ones, or one that cannot be read.
    """
    damaged = ""
    for place in (path, previous(path)):
        try:
            if kept := read_checkpoint(place):
                return kept
        except DamagedError as error:
            damaged = damaged or f"{place}: {error}"
    if damaged:
        raise ArtifactError(f"{damaged}, and there is no checkpoint before it; run `mhrctl pretrain` again")
    return None


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Read and verify a checkpoint; None if there is none.

    Raises:
        DamagedError: if it is not what was written.
        ArtifactError: if it cannot be read for another reason.
    """
    try:
        if not path.is_file():
            if path.is_symlink() or path.exists():
                raise DamagedError("is no file")
            return None
        with path.open("rb"):  # safetensors says of any failure to open a file that there is none
            pass
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except OSError as error:
        raise ArtifactError(
            f"{path}: the checkpoint cannot be read ({error.strerror or error}); fix that, or delete it"
        ) from None
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedError(f"is damaged ({' '.join(str(error).split())})") from None
    if "sha256" not in metadata or "facts" not in metadata:
        raise DamagedError("has no hash, which an older version of mhrctl did not write")
    if metadata["sha256"] != _hash(metadata["facts"], tensors):
        raise DamagedError("is damaged (its hash is another)")
    facts = json.loads(metadata["facts"])
    return Checkpoint(facts["step"], facts["key"], facts["scalars"], facts["log"], tensors, facts.get("best", ()))


def checkpoint_path(scratch: Path, cell: str | None, part: int | None = None, *, stage: str = "pretrain") -> Path:
    """Return where a training in progress leaves its last checkpoint.

    Args:
        scratch: the folder of checkpoints.
        cell: its name; none of a stage without cells.
        part: the first task of one of several trainings of the cell, if it has several.
        stage: which trains.
    """
    subject = stage if cell is None else f"{stage}-{cell}"
    return scratch / f"{subject}{'' if part is None else f'-part{part}'}.safetensors"


def previous(path: Path) -> Path:
    """Return where the checkpoint before the last is."""
    return path.with_name(f"{path.stem}{PREVIOUS}{path.suffix}")


def checkpoints_of(scratch: Path, cell: str | None, *, stage: str = "pretrain") -> list[Path]:
    """List the checkpoints that a training has left, but for those that were set aside; arguments of `checkpoint_path`."""
    subject = re.escape(stage if cell is None else f"{stage}-{cell}")
    name = re.compile(rf"{subject}(-part\d+)?({re.escape(PREVIOUS)})?\.safetensors")
    return sorted(path for path in scratch.glob(f"{stage}*.safetensors") if name.fullmatch(path.name) and path.is_file())


def _hash(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash all that a checkpoint holds."""
    total = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _set_aside(path: Path) -> Path:
    """Give what is no checkpoint another name, beside its own."""
    names = (path.with_name(f"{path.name}.{number}{DAMAGED}") for number in count(1))
    aside = next(name for name in names if not (name.is_symlink() or name.exists()))
    try:
        return path.rename(aside)
    except OSError as error:
        raise ArtifactError(f"{path}: damaged, and cannot be renamed ({error.strerror or error}); move it away") from None
