"""One way to read what a stage wrote: compared with its card, and damage is one line with a remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError

from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.reading import read_json_of, read_text_of, reading, verify, verify_metrics
from mhrctl.errors import ArtifactError, DataError


@pytest.fixture
def output(tmp_path: Path) -> Path:
    out = tmp_path / "data" / "prepare"
    (out / "tokenizer").mkdir(parents=True)
    (out / "tokenizer" / "x.json").write_text("1")
    (out / "tasks.json").write_text('{"tasks": []}')
    write_card(out, Card.of("prepare", {}, {}, PrepareFacts(suite="made", tokenizer="none", vocab_size=1)))
    return out


def refused(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught, reading(path):
        raise AssertionError("the block was run")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; run `mhrctl prepare`")
    return str(caught.value)


def test_what_is_as_it_was_written_is_read(output: Path) -> None:
    assert read_json_of(output / "tasks.json") == {"tasks": []}
    assert read_text_of(output / "tokenizer" / "x.json") == "1"
    verify(output)
    verify(output / "tokenizer")


def test_every_flipped_bit_is_refused_before_the_file_is_read(output: Path) -> None:
    file = output / "tasks.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            file.write_bytes(bytes(changed))
            assert "holds other bytes than were written" in refused(file)


def test_other_damage_is_one_line(output: Path) -> None:
    file = output / "tasks.json"
    file.write_text("{")
    assert "tasks.json: has 1 bytes in place of 13" in refused(file)
    file.unlink()
    assert "tasks.json: is missing" in refused(file)
    file.mkdir()
    assert "tasks.json: cannot be read (no ordinary file)" in refused(file)
    file.rmdir()
    os.mkfifo(file)
    assert "tasks.json: cannot be read (no ordinary file)" in refused(file)
    file.unlink()
    file.symlink_to(file)
    assert "tasks.json: cannot be read (Too many levels of symbolic links)" in refused(file)


def test_a_folder_is_refused_for_any_of_its_files(output: Path) -> None:
    (output / "tokenizer" / "x.json").write_text("2")
    assert "tokenizer/x.json: holds other bytes" in refused(output / "tokenizer")
    assert "tokenizer/x.json: holds other bytes" in refused(output)
    verify(output, but="*x.json")


def test_what_a_card_does_not_list_is_refused(output: Path) -> None:
    (output / "more.json").write_text("{}")
    assert "more.json: is not listed by the card of" in refused(output / "more.json")


def test_nothing_is_read_beside_a_damaged_card(output: Path) -> None:
    (output / CARD).write_text((output / CARD).read_text().replace("made", "fade"))
    with pytest.raises(ArtifactError, match=r"card\.json: not as it was written"):
        read_json_of(output / "tasks.json")


@pytest.mark.parametrize(
    "error",
    [
        *(KeyError("x"), ValueError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), OSError(5, "Input/output error")),
        *(RecursionError("x"), TypeError("x"), IndexError("x"), SafetensorError("x"), pa.ArrowInvalid("x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_readers_raise_is_one_line_without_a_card_too(tmp_path: Path, error: Exception) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"")
    with (
        pytest.raises(ArtifactError, match=r"x\.bin: cannot be read \(.*\); run `mhrctl align`$"),
        reading(file, again="mhrctl align"),
    ):
        raise error


def test_a_bug_stays_one_and_our_own_errors_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"")
    with pytest.raises(AssertionError), reading(file):
        raise AssertionError
    with pytest.raises(DataError, match="no such task"), reading(file):
        raise DataError("no such task")


def test_real_readers_of_damaged_files_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=r"x\.parquet: cannot be read"), reading(file):
        pq.read_table(file)
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ArtifactError, match=r"deep\.json: cannot be read"):
        read_json_of(tmp_path / "deep.json")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(ArtifactError, match=r"latin\.txt: cannot be read"):
        read_text_of(tmp_path / "latin.txt")


def test_what_lies_beside_an_output_is_compared_with_its_card(tmp_path: Path) -> None:
    scores = tmp_path / "data" / "metrics" / "prepare" / "x.json"
    scores.parent.mkdir(parents=True)
    scores.write_text(json.dumps({"score": 1}))
    verify_metrics(scores)  # a clone without its data
    out = tmp_path / "data" / "prepare" / "x"
    out.mkdir(parents=True)
    write_card(out, Card.of("prepare", {}, {}, PrepareFacts(suite="", tokenizer="", vocab_size=1)), beside={"x.json": scores})
    verify_metrics(scores)
    scores.write_text(json.dumps({"score": 2}))
    with pytest.raises(ArtifactError, match=r"x\.json: not as .*card\.json has it; run `mhrctl prepare`$"):
        verify_metrics(scores)
