"""A backbone in bf16 is the one that transformers loads in bf16."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration

from mhrctl.models.attach import inject
from mhrctl.models.precision import set_precision
from tests.models.families import DECODERS, UNPACKED, VOCABULARY, decoder


@pytest.mark.parametrize("kind", [*DECODERS, *UNPACKED])
@torch.no_grad()
def test_a_causal_model_in_bf16_is_what_transformers_loads_in_bf16(kind: str, tmp_path: Path) -> None:
    model: Any = deepcopy(decoder(kind))
    model.save_pretrained(tmp_path)
    expected: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    set_precision(model, "bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    ids = torch.randint(3, VOCABULARY, (1, 100), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(ids).logits, expected(ids).logits)


def test_a_precision_is_of_adapted_layers_too_and_fp32_changes_nothing(tiny_t5: T5ForConditionalGeneration) -> None:
    inject(tiny_t5, "full")
    before = {name: each.clone() for name, each in tiny_t5.state_dict().items()}
    set_precision(tiny_t5, "fp32")
    assert all(torch.equal(each, before[name]) for name, each in tiny_t5.state_dict().items())
    set_precision(tiny_t5, "bf16")
    assert {each.dtype for each in tiny_t5.state_dict().values()} == {torch.bfloat16}
    assert tiny_t5.lm_head.weight is tiny_t5.shared.weight
    assert not any(parameter.requires_grad for parameter in tiny_t5.parameters())
