"""backbone: scratch, local, and the traps of loading."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5ForConditionalGeneration

from mhrctl.config.params import BackboneParams
from mhrctl.data.examples import Sample
from mhrctl.errors import ArtifactError, DataError
from mhrctl.models.backbones import fingerprint, is_tied, load_backbone
from mhrctl.stages.backbone import backbone, span_corruption
from mhrctl.training.execution import Execution


def make(project: Path, accelerator: Accelerator, **options: Any) -> Path:
    out = project / "backbone"
    prepared = project / "data/prepare"
    backbone(BackboneParams(**options), prepared=prepared, root=project, out=out, execution=Execution(accelerator))
    return out


def test_scratch_is_loaded_as_it_was_trained(walked: Path) -> None:
    model, recorded = load_backbone(walked / "data/backbone")
    assert fingerprint(model) == recorded
    assert is_tied(model)
    assert not list((walked / "data/backbone").glob("*.bin"))


def test_an_untied_checkpoint_stays_untied(copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.lm_head.weight = nn.Parameter(torch.randn_like(tiny_t5.lm_head.weight))
    tiny_t5.save_pretrained(copy / "checkpoint")
    out = make(copy, accelerator, source="local", name="checkpoint")
    model, _ = load_backbone(out)
    assert not is_tied(model)
    assert torch.equal(model.state_dict()["lm_head.weight"], tiny_t5.lm_head.weight)
    assert torch.equal(model.state_dict()["shared.weight"], tiny_t5.shared.weight)
    assert json.loads((out / "card.json").read_text())["facts"]["tied_output"] is False
    assert not list(out.glob("*.safetensors"))  # a reference, not a copy


def test_changed_weights_are_noticed(copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    out = make(copy, accelerator, source="local", name="checkpoint")
    with torch.no_grad():
        tiny_t5.shared.weight[0, 0] += 1
    tiny_t5.save_pretrained(copy / "checkpoint")
    with pytest.raises(ArtifactError, match=r"not those that the card names; run `mhrctl backbone`"):
        load_backbone(out)


def test_a_decoder_only_model_is_rejected(copy: Path, accelerator: Accelerator) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40)).save_pretrained(copy / "gpt")
    with pytest.raises(DataError, match=r"a gpt2 model; an encoder-decoder \(T5 and kin\) is needed"):
        make(copy, accelerator, source="local", name="gpt")


def test_a_tokenizer_too_large_is_rejected(copy: Path, accelerator: Accelerator) -> None:
    from mhrctl.stages.backbone import scratch_config

    small = T5ForConditionalGeneration(scratch_config(BackboneParams(source="scratch").scratch.model_copy(), 20))
    small.save_pretrained(copy / "small")
    with pytest.raises(
        DataError, match=r"a tokenizer of \d+ entries does not fit .*small, which has 20; set prepare.tokenizer"
    ):
        make(copy, accelerator, source="local", name="small")


def test_span_corruption_loses_nothing() -> None:
    sentinels = list(range(100, 132))
    text = np.array([*range(1, 21), 99])
    noisy = span_corruption(Sample(0, text, text[:0]), sentinels, random.Random(0))
    spans: dict[int, list[int]] = {}
    for token in noisy.target_ids[:-1]:
        if token in sentinels:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(int(token))
    whole = [part for token in noisy.input_ids for part in spans.get(int(token), [int(token)])]
    assert whole == text.tolist()
    assert sum(map(len, spans.values())) == 3  # 15 % of 20
    assert noisy.input_ids[-1] == noisy.target_ids[-1] == 99
