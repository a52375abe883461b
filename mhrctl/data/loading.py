"""What libraries raise for a model, an encoder or a tokenizer that cannot be loaded is said in one line here."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mhrctl.errors import DataError, MhrctlError, listed

LONGEST = 240
"""Letters of a library's own words that an error repeats."""
SHOWN = 3
"""Tensors that an error names."""
HARMLESS = re.compile(
    r"(^|\.)("
    r"version|position_ids|num_batches_tracked"  # no weights
    r"|rotary_emb\.inv_freq|embed_positions\.weights?"  # the model computes them
    r"|EncDecAttention\.relative_attention_bias\.weight"  # of T5's first version, which never used it
    r")$"
)
"""What public checkpoints hold that their models have no place for, and need none."""
HOW = "put the whole checkpoint there, or the config.json that belongs to it"


@cache
def unloadable() -> tuple[type[Exception], ...]:
    """Return what libraries of models raise for files that are missing, damaged, or none of their own."""
    from huggingface_hub.errors import StrictDataclassError  # it imports a client of the network
    from safetensors import SafetensorError

    general = (OSError, ValueError, LookupError, ImportError, AttributeError, TypeError, ArithmeticError, RuntimeError)
    return (*general, StrictDataclassError, SafetensorError, pickle.UnpicklingError, struct.error)


@contextmanager
def loading(what: str, *, hint: str = "", error: type[MhrctlError] = DataError) -> Iterator[None]:
    """Say in one line what a library could not load.

    Args:
        what: the thing, with which the error begins.
        hint: to mend it, in words.
        error: the error to raise.

    Raises:
        MhrctlError: as `error` says, for whatever a library raises for such files.
    """
    try:
        yield
    except MhrctlError:
        raise
    except Exception as raised:
        # The tokenizers library raises Exception itself, not a kind of it.
        if not isinstance(raised, unloadable()) and type(raised) is not Exception:
            raise
        raise error(f"{what}: cannot be loaded: {reason(raised)}{f'; {hint}' if hint else ''}") from raised


def reason(error: BaseException) -> str:
    """Return what a library's error says, in a line that is not too long."""
    if isinstance(error, pickle.UnpicklingError):
        return "its file is damaged, or builds Python objects besides tensors, which are not loaded; save it as safetensors"
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."


def json_object(path: Path) -> dict[str, Any]:
    """Read a file that must hold a JSON object.

    Raises:
        DataError: if it cannot be read, or holds anything else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {reason(error)}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: holds no JSON object")
    return tree


def require_report(report: Mapping[str, Collection[Any]], where: str, *, roots: Collection[str] | None = None) -> None:
    """Check what transformers says of a model that it has loaded.

    Args:
        report: its `output_loading_info`.
        where: names the model in errors.
        roots: the parts of the model by which a tensor without a place is one of its own, and not of a head that it has not;
            None is all.

    Raises:
        DataError: if something was missing, did not fit, or had no place.
    """
    if messages := sorted(report["error_msgs"]):
        raise DataError(f"{where}: its weights do not fit: {' '.join(messages[0].split())}; {HOW}")
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        more = f", and {len(mismatched) - 1} more do not fit" if len(mismatched) > 1 else ""
        raise DataError(f"{where}: {name} is {list(stored)}, config.json asks for {list(wanted)}{more}; {HOW}")
    if missing := sorted(report["missing_keys"]):
        raise DataError(f"{where}: {some_tensors(missing)} missing of the weights that config.json asks for; {HOW}")
    unplaced = sorted(name for name in report["unexpected_keys"] if not HARMLESS.search(name))
    if roots is not None:
        unplaced = [name for name in unplaced if name.partition(".")[0] in roots]
    if unplaced:
        raise DataError(f"{where}: {some_tensors(unplaced)} there, for which config.json has no place; {HOW}")


def some_tensors(names: Iterable[str]) -> str:
    """Name the first of some tensors and how many more there are, with a verb."""
    every = sorted(names)
    return f"{listed(every, SHOWN)} {'is' if len(every) == 1 else 'are'}"
