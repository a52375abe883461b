"""The self-test: which causal models pack sequences, which pad them, and which are refused."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mhrctl.errors import DataError
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.packed_attention import NAME, packed_attention
from mhrctl.models.self_test import TOLERANCE, difference, why_padded

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def causal(kind: str, **settings: Any) -> PreTrainedModel:
    """A model of random weights large enough that its logits depend on all that it reads."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 8}),
        ("gemma3_text", {"sliding_window": 8, "head_dim": 8}),
        (
            "gemma4_text",
            {"sliding_window": 8, "head_dim": 8, "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
        ),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}),  # a test no longer than it can read
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    ],
)
def test_families_that_compute_packed_sequences_rightly_pack(kind: str, settings: dict[str, Any]) -> None:
    assert why_padded(causal(kind, **settings), where="it") is None


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("bloom", {"n_layer": 2, "n_head": 4}, r"packed logits differ by \d"),
        ("stablelm", {}, r"cannot be run packed: packed attention is not told where sequences end"),
        ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}, r"packed attention has no sinks"),
    ],
)
def test_families_that_do_not_are_padded(kind: str, settings: dict[str, Any], reason: str) -> None:
    assert re.search(reason, str(why_padded(causal(kind, **settings), where="it")))


def test_positions_that_are_not_read_keep_choices_from_sharing_their_input(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal("llama")
    forward = model.forward

    def restarting(position_ids: Tensor | None = None, cu_seq_lens_q: Tensor | None = None, **rows: Any) -> Any:
        """Count positions from the beginning of each sequence, whatever is said of them."""
        if position_ids is not None and cu_seq_lens_q is not None:
            position_ids = torch.cat([torch.arange(size) for size in cu_seq_lens_q.diff().tolist()])[None]
        return forward(position_ids=position_ids, cu_seq_lens_q=cu_seq_lens_q, **rows)

    monkeypatch.setattr(model, "forward", restarting)
    assert "losses of choices that share their input differ by" in str(why_padded(model, where="it"))


def test_losses_that_are_not_those_of_the_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that reads more than its body's states gives other losses, of some states at a time."""
    model = causal("llama")
    forward = model.forward

    def longer(input_ids: Tensor, logits_to_keep: Any = 0, **rows: Any) -> Any:
        output = forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **rows)
        if output.logits.shape[1] not in (0, input_ids.shape[1]):
            output.logits = output.logits * 1.1
        return output

    monkeypatch.setattr(model, "forward", longer)
    with pytest.raises(DataError, match=r"it: a llama model whose l[a-z, ']* differ by .*name another"):
        why_padded(model, where="it")


def test_a_window_longer_than_the_test_must_be_handed_on() -> None:
    model = causal("llama")
    model.config.sliding_window = 4096  # which a Llama knows nothing of, and would pass the comparison
    assert "window" in str(why_padded(model, where="it"))
    assert why_padded(causal("mistral", sliding_window=4096), where="it") is None
    model.config.sliding_window, model.config.attention_chunk_size = None, 4096
    assert "chunks" in str(why_padded(model, where="it"))


def test_a_model_that_reads_ahead_is_refused() -> None:
    with pytest.raises(DataError, match=r"it: a bert model that reads what follows a token, .*; name a causal language model"):
        why_padded(causal("bert"), where="it")


def test_a_model_that_padding_changes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal("llama")
    forward = model.forward

    def by_rows(input_ids: Tensor, logits_to_keep: Any = 0, **rows: Any) -> Any:
        logits = forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **rows).logits
        return SimpleNamespace(logits=logits * (1 if len(input_ids) == 1 else 1 + 2 * TOLERANCE))

    monkeypatch.setattr(model, "forward", by_rows)
    with pytest.raises(
        DataError, match=r"it: a llama model whose logits differ by 2.0e-04 of the largest where a sequence is p"
    ):
        why_padded(model, where="it")


def test_a_model_that_cannot_be_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_rows: Any) -> Any:
        raise RuntimeError("no kernel\nfor it")

    model = causal("llama")
    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(DataError, match=r"it: a llama model that cannot be run on rows of tokens: no kernel for it$"):
        why_padded(model, where="it")


def test_logits_that_are_no_numbers_are_no_match() -> None:
    right = [torch.ones(2, 3)]
    assert difference([right[0] * 1.5], right) == 0.5
    assert not difference([right[0] * torch.nan], right) <= TOLERANCE


def test_a_test_leaves_nothing_behind() -> None:
    model = causal("llama").train()
    before, weights = torch.get_rng_state(), {name: each.clone() for name, each in model.state_dict().items()}
    why_padded(model, where="it")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert not hasattr(model, PACKS)
    assert AttentionInterface()[NAME] is packed_attention
    assert all(torch.equal(weights[name], each) for name, each in model.state_dict().items())
