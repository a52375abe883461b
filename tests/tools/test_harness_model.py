"""The harness's requests, one by one; `test_harness.py` holds whole tasks to the harness's own models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from mhrctl.data.framing import framing_by
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import ParamsError
from mhrctl.models.backbones import load_backbone
from mhrctl.training.execution import Execution

pytest.importorskip("lm_eval", reason="needs lm_eval (pip install 'mhrctl[harness]')")
from mhrctl.tools import harness_model
from mhrctl.tools.harness_model import HarnessModel
from mhrctl.tools.harness_tasks import Way


def request(task: str, *args: Any) -> SimpleNamespace:
    return SimpleNamespace(task_name=task, args=args)


@pytest.fixture
def model(walked: Path, accelerator: Accelerator) -> HarnessModel:
    backbone, _ = load_backbone(walked / "data/backbone")
    numbers = torch.Generator().manual_seed(42)
    with torch.no_grad():
        for parameter in backbone.parameters():  # else it has nothing to say
            parameter.add_(torch.randn(parameter.shape, generator=numbers))
    tokenizer = saved_tokenizer(walked / "data/prepare/tokenizer")
    framed = framing_by("encoder_decoder").of(tokenizer)
    execution = Execution(accelerator)
    made = HarnessModel(backbone, tokenizer, framed, most_input=16, most_target=4, execution=execution)
    made.attach([None], {"ours": Way(0, is_ours=True), "theirs": Way(0)})
    return made


def test_batches_of_any_size_say_the_same(model: HarnessModel, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ant", "bee cat", "dog elk fox", "cat"]
    requests = [request(task, context, answer) for task in ("ours", "theirs") for context in words for answer in words]
    whole = model.loglikelihood(requests)
    monkeypatch.setattr(harness_model, "LOGITS", 1)
    alone = model.loglikelihood(requests)
    for (one, greedy), (other, also_greedy) in zip(whole, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
        assert greedy == also_greedy
    assert len({round(value, 3) for value, _ in whole}) > len(words)
    backwards = model.loglikelihood(requests[::-1])
    assert [value for value, _ in backwards[::-1]] == pytest.approx([value for value, _ in whole], rel=1e-4)


def test_our_answers_end_and_others_go_on(model: HarnessModel) -> None:
    (ours, _), (theirs, _) = model.loglikelihood([request("ours", "ant", "bee"), request("theirs", "ant", "bee")])
    assert ours < theirs  # by what the end token costs


def test_the_greedy_answer_is_known_as_one(model: HarnessModel) -> None:
    options = {"max_gen_toks": 2, "until": []}
    (text,) = model.generate_until([request("theirs", "ant bee", options)])
    (_, greedy), (_, other) = model.loglikelihood(
        [request("theirs", "ant bee", text), request("theirs", "ant bee", "dog dog dog dog")]
    )
    assert (bool(text.strip()), greedy, other) == (True, True, False)


def test_answers_stop_where_the_task_says(model: HarnessModel) -> None:
    (whole,) = model.generate_until([request("theirs", "ant bee", {"max_gen_toks": 6, "until": []})])
    words = whole.split()
    assert len(set(words)) > 2
    for until in (words[2], ["nowhere", words[2]]):
        (said,) = model.generate_until([request("theirs", "ant bee", {"max_gen_toks": 6, "until": until})])
        assert said.split() == words[: words.index(words[2])]
    model._longest = 4
    model._backbone.config.is_encoder_decoder = False
    with pytest.raises(ParamsError, match="--harness theirs: asks for 6 tokens, and the backbone reads 4 in all"):
        model.generate_until([request("theirs", "ant", {"max_gen_toks": 6, "until": []})])


def test_a_chat_that_the_project_has_not_is_refused(model: HarnessModel) -> None:
    with pytest.raises(ValueError, match="the project's prompts are no chats"):
        model.apply_chat_template([{"role": "user", "content": "hello"}])
    assert model.tokenizer_name
