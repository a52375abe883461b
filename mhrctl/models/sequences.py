"""Inputs and their targets become sequences that a decoder-only model reads: in one row of tokens, or in a row each.

The last token of a target is predicted and never read.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mhrctl.data.batches import Ragged

Numbers = np.ndarray[Any, Any]


class Sequences(Protocol):
    """Sequences say what a model reads, and where it predicts each target token.

    Attributes:
        rows: the arguments of a model.
        kept: the place among all that is read, row after row, from which each target token is predicted, [target tokens].
    """

    rows: dict[str, Any]
    kept: Tensor

    def owners_of_tokens(self) -> Tensor:
        """Return the input of each token of `rows`, in the order of memory; -1 where there is none."""


class Packed:
    """Packed sequences lie one after the other in one row of tokens, each with positions of its own.

    An input with one target is one sequence with it. Of several targets (choices), each is a sequence whose tokens attend to
    those of the input too, which is read once, and have the positions behind it. A target without tokens is no choice and has
    no sequence.
    """

    def __init__(self, inputs: Ragged, targets: Ragged) -> None:
        """Lay out sequences.

        Args:
            inputs: rows of input tokens.
            targets: c successive rows for each input.
        """
        self._inputs, self._places = len(inputs.lengths), list[int]()
        self._sizes, self._seen = list[int](), list[int]()
        tokens, positions, keys, kept = [list[Numbers]() for _ in range(4)]
        end = 0

        def add(place: int, part: Numbers, *, behind: Numbers) -> Numbers:
            """Add a sequence of the input at a place, whose tokens attend to those behind which it stands."""
            nonlocal end
            numbers = np.arange(end, end + len(part))
            if len(part):
                tokens.append(part)
                positions.append(len(behind) + np.arange(len(part)))
                keys.extend((behind, numbers))
                self._places.append(place)
                self._sizes.append(len(part))
                self._seen.append(len(behind) + len(part))
                end += len(part)
            return numbers

        of_inputs, of_targets = _parts(inputs, 0), _parts(targets, len(inputs.tokens))
        choices = len(of_targets) // max(1, len(of_inputs))
        for place, prompt in enumerate(of_inputs):
            real = [target for target in of_targets[place * choices : (place + 1) * choices] if len(target)]
            if choices == 1 and real:
                numbers = add(place, np.concatenate([prompt, real[0][:-1]]), behind=prompt[:0])
                kept.append(numbers[len(prompt) - 1 :])
            elif real:
                numbers = add(place, prompt, behind=prompt[:0])
                for target in real:
                    kept += [numbers[-1:], add(place, target[:-1], behind=numbers)]
        device = inputs.tokens.device
        self.kept = _index(kept, device)
        self.rows: dict[str, Any] = {
            "input_ids": torch.cat([inputs.tokens, targets.tokens])[_index(tokens, device)][None],
            "position_ids": _index(positions, device)[None],
            "use_cache": False,
            "cu_seq_lens_q": _ends(self._sizes, device),
            "cu_seq_lens_k": _ends(self._seen, device),
            "max_length_q": max(self._sizes),
            "max_length_k": max(self._seen),
            "key_places": None if choices == 1 else _index(keys, device),
        }

    def owners(self, groups: int) -> Tensor:
        """Return the group of each token that is read, of so many groups of equally many inputs."""
        return _index([np.repeat(self._owners(groups), self._sizes)], self.kept.device)

    def sizes(self, groups: int) -> Tensor:
        """Return how many tokens of each group are read, on the host."""
        sizes = np.bincount(self._owners(groups), weights=self._sizes, minlength=groups)
        return torch.from_numpy(sizes.astype(np.int64))

    def owners_of_tokens(self) -> Tensor:
        """See `Sequences`."""
        return self.owners(self._inputs)

    def _owners(self, groups: int) -> Numbers:
        return np.array(self._places) // (self._inputs // groups)


class Padded:
    """Padded sequences, of an input and one of its targets each, are rows that are filled at their ends.

    A target without tokens has a row of its input alone, so that groups keep equally many rows.
    """

    def __init__(self, inputs: Ragged, targets: Ragged, *, pad: int) -> None:
        """Lay out sequences.

        Args:
            inputs: rows of input tokens.
            targets: c successive rows for each input.
            pad: the token at the ends.
        """
        of_inputs, of_targets = _parts(inputs, 0), _parts(targets, len(inputs.tokens))
        choices = len(of_targets) // max(1, len(of_inputs))
        pairs = [(of_inputs[row // choices], target) for row, target in enumerate(of_targets)]
        tokens = [np.concatenate([prompt, target[:-1]]) for prompt, target in pairs]
        device = inputs.tokens.device
        rows = Ragged(torch.cat([inputs.tokens, targets.tokens])[_index(tokens, device)], tuple(map(len, tokens)))
        starts = [row * rows.longest + len(prompt) - 1 for row, (prompt, _) in enumerate(pairs)]
        kept = [start + np.arange(len(target)) for start, (_, target) in zip(starts, pairs, strict=True)]
        self.kept = _index(kept, device)
        self.rows: dict[str, Any] = {"input_ids": rows.padded(pad), "attention_mask": rows.mask(), "use_cache": False}
        self._inputs, self._choices = inputs, choices

    def owners_of_tokens(self) -> Tensor:
        """See `Sequences`; an input is read with each of its targets, and counts with the first, as where it is read once."""
        mask = self.rows["attention_mask"]
        again = torch.arange(len(mask)) % self._choices != 0
        lengths = torch.tensor(self._inputs.lengths).repeat_interleave(self._choices)
        read_before = again[:, None] & (torch.arange(mask.shape[1]) < lengths[:, None])
        return owners_of_padded(mask.masked_fill(read_before.to(mask.device), 0), self._choices)


def owners_of_padded(mask: Tensor, choices: int) -> Tensor:
    """Return the input of each place of padded rows, `choices` successive ones an input; -1 where the mask has zero."""
    owners = torch.arange(len(mask), device=mask.device)[:, None] // choices
    return torch.where(mask.bool(), owners, -1).flatten()


def target_owners(targets: Ragged, groups: int) -> Tensor:
    """Return the group of each target token, of so many groups of equally many targets, [target tokens]."""
    owners = np.arange(len(targets.lengths)) // (len(targets.lengths) // groups)
    return _index([np.repeat(owners, targets.lengths)], targets.tokens.device)


def target_sizes(targets: Ragged, groups: int) -> Tensor:
    """Return how many target tokens each group has, on the host."""
    return torch.tensor(targets.lengths).view(groups, -1).sum(1)


def _parts(rows: Ragged, start: int) -> list[Numbers]:
    """Where the tokens of each row are, among all from a start on."""
    ends = np.cumsum(rows.lengths)
    return np.split(np.arange(start, start + len(rows.tokens)), ends[:-1])


def _ends(sizes: list[int], device: torch.device) -> Tensor:
    return torch.from_numpy(np.cumsum([0, *sizes], dtype=np.int32)).to(device, non_blocking=True)


def _index(parts: list[Numbers], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device, non_blocking=True)
