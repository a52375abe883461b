"""Names of layers that people read."""

from __future__ import annotations

import pytest

from mhrctl.analysis.layer_names import chosen_parts, readable_names
from mhrctl.errors import ParamsError

T5 = {
    "encoder.block.0.layer.0.SelfAttention.q": "encoder 0 self-attention q",
    "encoder.block.11.layer.1.DenseReluDense.wo": "encoder 11 feed-forward wo",
    "decoder.block.1.layer.1.EncDecAttention.v": "decoder 1 cross-attention v",
    "decoder.block.1.layer.2.DenseReluDense.wi_0": "decoder 1 feed-forward wi_0",
}
BART = {
    "model.encoder.layers.0.self_attn.k_proj": "encoder 0 self-attention k",
    "model.decoder.layers.3.encoder_attn.out_proj": "decoder 3 cross-attention out",
    "model.decoder.layers.3.fc1": "decoder 3 feed-forward fc1",
}
LLAMA = {
    "model.layers.3.self_attn.q_proj": "block 3 attention q",
    "model.layers.3.mlp.gate_proj": "block 3 feed-forward gate",
    "model.layers.31.block_sparse_moe.experts.5.w1": "block 31 feed-forward experts 5 w1",
}
GPT2 = {"transformer.h.7.attn.c_attn": "block 7 attention c_attn", "transformer.h.7.mlp.c_fc": "block 7 feed-forward c_fc"}
OPT = {
    "model.decoder.layers.2.self_attn.v_proj": "block 2 attention v",
    "model.decoder.layers.2.fc2": "block 2 feed-forward fc2",
}
NEOX = {"gpt_neox.layers.0.attention.query_key_value": "block 0 attention query_key_value"}
SHARED = {
    "encoder.block.0.layer.0.SelfAttention": "encoder 0 self-attention",
    "encoder.block.1": "encoder 1",
    "decoder.block.0-3": "decoder 0-3",
    "encoder": "encoder",
}


@pytest.mark.parametrize("names", [T5, BART, LLAMA, GPT2, OPT, NEOX, SHARED, {"model": "model"}])
def test_a_part_is_named_by_where_it_is(names: dict[str, str]) -> None:
    assert readable_names(list(names)) == names


def test_parts_that_would_be_called_alike_keep_their_names() -> None:
    parts = ["vision.layers.0.self_attn.q_proj", "text.layers.0.self_attn.q_proj", "text.layers.1.self_attn.q_proj"]
    assert readable_names(parts) == {parts[0]: parts[0], parts[1]: parts[1], parts[2]: "block 1 attention q"}


def test_parts_are_chosen_by_either_name() -> None:
    first, *_, last = T5
    assert chosen_parts([T5[last], first, f" {T5[first].replace(' ', '  ')}"], list(T5)) == [last, first, first]


def test_a_part_that_is_not_there_is_named_with_what_is_near_in_its_form() -> None:
    with pytest.raises(ParamsError, match=r"--layer: unknown layer 'decoder 1 cross-attention k'; did you mean 'decoder 1 cro"):
        chosen_parts(["decoder 1 cross-attention k"], list(T5))
    with pytest.raises(ParamsError, match=r"--layer: unknown layer '.*SelfAttention.k'; did you mean '.*SelfAttention.q'"):
        chosen_parts(["encoder.block.0.layer.0.SelfAttention.k"], list(T5))
