"""Where tokens, positions and predictions of packed and padded sequences are, written out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mhrctl.data.batches import Ragged
from mhrctl.models.sequences import Packed, Padded, target_owners, target_sizes


def rows(of: Sequence[Sequence[int]]) -> Ragged:
    return Ragged(torch.tensor([token for row in of for token in row]), tuple(map(len, of)))


INPUTS = rows([[10, 11, 12], [20], [30, 31]])
TARGETS = rows([[13, 14], [21], [32, 33, 34]])
CHOICES = rows([[13, 14], [15], [], [], [32, 33], [34, 35, 36]])


def test_an_input_and_its_one_target_are_a_sequence() -> None:
    packed = Packed(INPUTS, TARGETS)
    assert packed.rows["input_ids"].tolist() == [[10, 11, 12, 13, 20, 30, 31, 32, 33]]
    assert packed.rows["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 1, 2, 3]]
    assert packed.rows["cu_seq_lens_q"].tolist() == packed.rows["cu_seq_lens_k"].tolist() == [0, 4, 5, 9]
    assert (packed.rows["max_length_q"], packed.rows["max_length_k"]) == (4, 4)
    assert packed.rows["cu_seq_lens_q"].dtype == torch.int32  # which flash attention's kernel asks for
    assert packed.rows["key_places"] is None
    assert packed.kept.tolist() == [2, 3, 4, 6, 7, 8]
    assert packed.owners(3).tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert packed.owners(1).tolist() == [0] * 9
    assert (packed.sizes(3).tolist(), packed.sizes(1).tolist()) == ([4, 1, 4], [9])


def test_choices_stand_behind_their_input_which_is_read_once() -> None:
    """A choice of one token is predicted from the input, and reads nothing; an input without choices is not read."""
    packed = Packed(INPUTS, CHOICES)
    assert packed.rows["input_ids"].tolist() == [[10, 11, 12, 13, 30, 31, 32, 34, 35]]
    assert packed.rows["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 2, 3]]
    assert packed.rows["cu_seq_lens_q"].tolist() == [0, 3, 4, 6, 7, 9]
    assert packed.rows["cu_seq_lens_k"].tolist() == [0, 3, 7, 9, 12, 16]
    assert packed.rows["key_places"].tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 4, 5, 6, 4, 5, 7, 8]
    assert (packed.rows["max_length_q"], packed.rows["max_length_k"]) == (3, 4)
    assert packed.kept.tolist() == [2, 3, 2, 5, 6, 5, 7, 8]
    assert packed.owners(3).tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 2]
    assert packed.sizes(3).tolist() == [4, 0, 5]


def test_padded_sequences_have_a_row_each_also_where_there_is_no_choice() -> None:
    padded = Padded(INPUTS, CHOICES, pad=0)
    assert padded.rows["input_ids"].tolist() == [
        [10, 11, 12, 13],
        [10, 11, 12, 0],
        [20, 0, 0, 0],
        [20, 0, 0, 0],
        [30, 31, 32, 0],
        [30, 31, 34, 35],
    ]
    assert padded.rows["attention_mask"].sum(1).tolist() == [4, 3, 1, 1, 3, 4]
    assert padded.kept.tolist() == [2, 3, 6, 17, 18, 21, 22, 23]


@pytest.mark.parametrize(("groups", "owners"), [(1, [0] * 8), (3, [0, 0, 0, 2, 2, 2, 2, 2])])
def test_target_tokens_have_the_group_of_their_input(groups: int, owners: list[int]) -> None:
    assert target_owners(CHOICES, groups).tolist() == owners
    assert target_sizes(CHOICES, groups).tolist() == [owners.count(group) for group in range(groups)]


def test_what_is_predicted_follows_what_is_read() -> None:
    """Each target token is predicted from the token before it in its sequence."""
    for targets in (TARGETS, CHOICES):
        for sequences in (Packed(INPUTS, targets), Padded(INPUTS, targets, pad=0)):
            before = sequences.rows["input_ids"].flatten()[sequences.kept].tolist()
            choices, expected = len(targets.lengths) // 3, []
            flat, start = targets.tokens.tolist(), 0
            for row, length in enumerate(targets.lengths):
                last = {0: 12, 1: 20, 2: 31}[row // choices]
                expected += [last, *flat[start : start + length - 1]][:length]
                start += length
            assert before == expected


def test_every_token_that_is_read_belongs_to_its_input_once() -> None:
    assert Packed(INPUTS, TARGETS).owners_of_tokens().tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    owners = Padded(INPUTS, TARGETS, pad=0).owners_of_tokens().view(3, -1).tolist()
    assert owners == [[0, 0, 0, 0], [1, -1, -1, -1], [2, 2, 2, 2]]
    owners = Padded(INPUTS, CHOICES, pad=0).owners_of_tokens().view(6, -1).tolist()
    assert owners[:4] == [[0, 0, 0, 0], [-1] * 4, [1, -1, -1, -1], [-1] * 4]
    assert owners[4:] == [[2, 2, 2, -1], [-1, -1, 2, 2]]
