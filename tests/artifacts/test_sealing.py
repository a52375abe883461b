"""Seals: every changed bit of a record is seen, or changes nothing that the record says."""

from __future__ import annotations

import json

import pytest

from mhrctl.artifacts.sealing import SEAL, SealError, opened, sealed

RECORD = {"stage": "adapt", "params": {"rate": 0.1, "names": ["é", None, True]}, "parents": {}, "count": 7}


def test_a_record_is_opened_as_it_was_sealed() -> None:
    assert opened(json.loads(json.dumps(sealed(RECORD)))) == RECORD
    assert list(sealed(RECORD))[-1] == SEAL


def test_no_flipped_bit_goes_unseen() -> None:
    whole = json.dumps(sealed(RECORD), indent=1).encode()
    harmless = 0
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            try:
                read = opened(json.loads(bytes(changed)))
            except ValueError:  # not JSON, not UTF-8, or the seal
                continue
            assert read == RECORD
            harmless += 1
    assert harmless < len(whole)


@pytest.mark.parametrize("record", [None, [], 3, "text"])
def test_what_is_no_record_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        opened(record)


def test_a_record_without_a_seal_is_refused_unless_it_may_be_old() -> None:
    with pytest.raises(SealError, match="has no seal"):
        opened(RECORD)
    assert opened(RECORD, required=False) == RECORD
    with pytest.raises(SealError, match="does not fit"):
        opened(sealed(RECORD) | {"count": 8}, required=False)
