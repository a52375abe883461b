"""The section `prepare`: what it takes, and what it leaves out of cards."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import TRAINED_TOKENIZERS, ColumnsParams, DataSetParams, PrepareParams, T0Params

CHAT: dict[str, Any] = {"framing": "causal", "tokenizer": "models/qwen", "chat": True}


def prepare(**settings: Any) -> PrepareParams:
    return PrepareParams.model_validate({"source": "jsonl", "path": "tasks", "tokenizer": "word"} | settings)


def test_every_setting_is_described() -> None:
    for section in (PrepareParams, T0Params, ColumnsParams, DataSetParams):
        assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_a_card_has_the_settings_of_before_and_those_that_are_set() -> None:
    plain = prepare().model_dump()
    assert {"source", "path", "hub", "revision", "t0", "tokenizer"} <= plain.keys()
    assert not {"columns", "splits", "config", "metric", "max_rows", "test"} & plain.keys()
    of_hub = prepare(source="hub", columns={"input": "question", "target": "answer", "task": "subject"}).model_dump()
    assert of_hub.keys() - plain.keys() == {"columns"}
    assert of_hub["columns"]["task"] == "subject"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "web"}, "Input should be 'compositional'"),
        ({"path": None}, "source jsonl needs `path`"),
        ({"prompt": "tk_instruct"}, "tk_instruct is a wording of source superni; leave it out, or give a template"),
        ({"prompt": "{definition}\n\n{inputs}"}, "unknown field of a prompt 'inputs'; did you mean 'input'?"),
        ({"prompt": "{definition}"}, "is neither original nor tk_instruct, and no template with {input}, such as"),
        ({"prompt": "orginal"}, "no template with {input}; did you mean 'original'?"),
        ({"hub": "a/b"}, "source jsonl has no `hub`"),
        ({"examples": 0}, "greater than 0"),
        ({"columns": {"task": "x"}}, "source jsonl has no `columns`, which is of source hub"),
        ({"source": "hub", "columns": {"inptu": "x"}}, "Extra inputs are not permitted"),
        ({"source": "hub", "trust_remote_code": True}, "Extra inputs are not permitted"),
        ({"framing": "decoder"}, "Input should be 'encoder_decoder' or 'causal'"),
        ({"answer_cue": "\nA:"}, "an encoder-decoder needs no cue for its answer; leave `answer_cue` out"),
        ({"framing": "encoder_decoder", "answer_cue": ""}, "leave `answer_cue` out"),
        ({"chat": True}, "chat templates are of decoder-only models; set `framing: causal`, or leave `chat` out"),
        (
            {"framing": "causal", "chat": True},
            "tokenizer word is trained here and has no chat template; name another, or leave",
        ),
        (CHAT | {"answer_cue": ""}, "the chat template asks for the answer; leave `answer_cue` out"),
        (
            {"tokenizer_gguf": "a.gguf"},
            "tokenizer word is trained here; name the folder or repository of the file as `tokenizer`",
        ),
        ({"source": "t0", "path": None, "t0": {"by": "word"}}, "Input should be 'template' or 'dataset'"),
    ],
)
def test_what_no_source_can_mean_is_rejected(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        prepare(**settings)


def test_a_framing_is_said_where_it_is_not_that_of_before() -> None:
    assert not {"framing", "answer_cue", "chat", "tokenizer_gguf"} & prepare().model_dump().keys()
    assert not {"chat", "tokenizer_gguf"} & prepare(framing="causal", chat=False).model_dump().keys()
    assert prepare(**CHAT).model_dump().keys() - prepare(framing="causal").model_dump().keys() == {"chat"}
    causal = prepare(framing="causal")
    assert causal.answer_cue == "\nOutput:"
    assert causal.model_dump().keys() - prepare().model_dump().keys() == {"framing"}
    assert prepare(framing="causal", answer_cue="").model_dump()["answer_cue"] == ""


def test_sources_and_tokenizers_are_those_that_there_are() -> None:
    assert [prepare(source=name, path=None if name == "compositional" else "x").source for name in SOURCES] == [*SOURCES]
    assert TRAINED_TOKENIZERS == ("word", "bpe")
