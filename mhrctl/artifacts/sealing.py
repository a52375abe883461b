"""A JSON record that we write carries a digest of itself, by which every bit that was changed in it since is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"
"""The key of the digest, which is the record's last."""


class SealError(ValueError):
    """A record is not as it was sealed."""


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its seal."""
    return {**record, SEAL: seal_of(record)}


def opened(record: Any, *, required: bool = True) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return a record without its seal, once it is seen to fit.

    Args:
        record: as it was read.
        required: whether a record without a seal is refused.

    Raises:
        ValueError: if it is no record; a `SealError` if it is not as it was sealed.
    """
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a malformed file, and no caller's fault
    if SEAL not in record and not required:
        return record
    content = {key: value for key, value in record.items() if key != SEAL}
    if SEAL not in record:
        raise SealError("has no seal, as an older mhrctl wrote it")
    if record[SEAL] != seal_of(content):
        raise SealError("not as it was written (its seal does not fit)")
    return content


def seal_of(record: Mapping[str, Any]) -> str:
    """Return the sha256 of what a record says, however it is laid out."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":"), default=dict).encode()).hexdigest()
