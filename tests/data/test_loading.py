"""What libraries raise, in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from mhrctl.data.loading import LONGEST, json_object, loading, reason, require_report, some_tensors
from mhrctl.errors import ArtifactError, DataError

CLEAN: dict[str, set[object]] = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": set()}


@pytest.mark.parametrize("raised", [OSError("a\nb"), ValueError("a  b"), KeyError("a b"), Exception("a b")])
def test_what_a_library_raises_becomes_a_line(raised: Exception) -> None:
    with (
        pytest.raises(ArtifactError, match=r"^it: cannot be loaded: '?a b'?; do that$"),
        loading("it", hint="do that", error=ArtifactError),
    ):
        raise raised


def test_errors_of_ours_and_of_nobody_are_left_as_they_are() -> None:
    with pytest.raises(DataError, match=r"^said$"), loading("it", error=ArtifactError):
        raise DataError("said")
    with pytest.raises(AssertionError, match="a bug"), loading("it"):
        raise AssertionError("a bug")


def test_a_reason_is_short_and_has_no_more_than_a_line() -> None:
    assert reason(ValueError("\n".join("x" * 50 for _ in range(50)))).endswith(" ...")
    assert len(reason(ValueError("x" * 5000))) <= LONGEST + 4
    assert reason(ValueError()) == "ValueError"
    assert "builds Python objects" in reason(pickle.UnpicklingError("set weights_only to False"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ("\udcff", "cannot be read as JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=rf"config.json: .*{message}"):
        json_object(path)
    path.write_text('{"a": 1}')
    assert json_object(path) == {"a": 1}


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"missing_keys": {"b", "a"}}, "it: a, b are missing of the weights that config.json asks for; put the whole"),
        ({"missing_keys": {"a"}}, "it: a is missing"),
        ({"unexpected_keys": {"layer.7.q"}}, "it: layer.7.q is there, for which config.json has no place"),
        ({"mismatched_keys": {("a", (2, 3), (2, 4))}}, r"it: a is \[2, 3\], config.json asks for \[2, 4\]; put"),
        ({"error_msgs": {"size\nmismatch"}}, "it: its weights do not fit: size mismatch"),
    ],
)
def test_a_report_of_a_load_that_was_not_whole_is_rejected(report: dict[str, set[object]], message: str) -> None:
    require_report(CLEAN, "it")
    with pytest.raises(DataError, match=message):
        require_report(CLEAN | report, "it")


@pytest.mark.parametrize(
    "name",
    [
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        "embeddings.position_ids",
        "model.encoder.embed_positions.weights",
        "model.encoder.version",
    ],
)
def test_what_public_checkpoints_hold_and_no_model_needs_is_passed_over(name: str) -> None:
    require_report(CLEAN | {"unexpected_keys": {name}}, "it")


def test_of_an_encoder_the_heads_that_it_has_not_are_passed_over() -> None:
    report = CLEAN | {"unexpected_keys": {"cls.predictions.bias", "encoder.layer.7.q"}}
    require_report(report, "it", roots={"embeddings"})
    with pytest.raises(DataError, match=r"it: encoder.layer.7.q is there"):
        require_report(report, "it", roots={"embeddings", "encoder"})


def test_of_many_tensors_the_first_are_named() -> None:
    assert some_tensors(json.loads('["e", "d", "c", "b", "a"]')) == "a, b, c and 2 more are"
