"""Lengths are those that are said, and a folder stands in for random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.decoder_shapes import (
    DECODERS,
    FOLDER,
    LENGTHS,
    batch_of,
    named_folder,
    new_decoder,
    padded_tokens,
    real_tokens,
    said_of,
    samples_of,
    twin,
)

MICRO = DECODERS["micro"]
DECILES = (36, 54, 67, 76, 86, 101, 115, 140, 170, 226, 650)


def test_lengths_have_the_deciles_and_the_padding_that_are_said() -> None:
    prompts, targets = (np.array(part) for part in zip(*(row for batch in LENGTHS for row in batch), strict=True))
    np.testing.assert_allclose(np.percentile(prompts, np.arange(10, 100, 10)), DECILES[1:-1], rtol=0.03)
    assert min(prompts) >= DECILES[0]
    assert max(prompts) <= DECILES[-1]
    assert np.mean(targets) == pytest.approx(11.8, abs=0.1)
    assert {len(batch) for batch in LENGTHS} == {16}
    for batch in LENGTHS:
        assert 1 - real_tokens(batch) / padded_tokens(batch) == pytest.approx(0.64, abs=0.02)


def test_batches_have_their_lengths() -> None:
    batch = batch_of(samples_of([(5, 2), (9, 3)], MICRO.vocabulary))
    assert (batch.inputs.lengths, batch.targets.lengths, batch.task_ids.tolist()) == ((5, 9), (2, 3), [[0, 1]])
    assert (real_tokens([(5, 2), (9, 3)]), padded_tokens([(5, 2), (9, 3)])) == (17, 22)


def test_a_named_folder_stands_in_for_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    assert named_folder() is None
    monkeypatch.setenv(FOLDER, str(tmp_path / "gemma"))
    assert named_folder() is None  # there is nothing
    model = new_decoder(MICRO)
    assert torch.equal(model.lm_head.weight, new_decoder(MICRO).lm_head.weight)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    model.save_pretrained(tmp_path / "gemma")
    folder = named_folder()
    assert folder == tmp_path / "gemma"
    again = new_decoder(MICRO, folder=folder)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not any(weight.requires_grad for weight in again.parameters())
    assert said_of(again, folder) == "gemma3_text of 0 M weights, the numbers of a folder"
    assert said_of(again, None).endswith("random numbers")


def test_a_twin_has_the_same_weights_in_layers_of_its_own() -> None:
    model = new_decoder(MICRO)
    other = twin(model)
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    assert all(mine is theirs for mine, theirs in pairs)
    assert all(mine is not theirs for mine, theirs in zip(model.modules(), other.modules(), strict=True))
    assert other.lm_head.weight is other.model.embed_tokens.weight
