"""Texts that become samples: nothing of them is lost."""

from __future__ import annotations

import random

import numpy as np

from mhrctl.data.denoising import language_modelling, span_corruption
from mhrctl.data.examples import Sample


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


def test_a_text_is_gone_on_with_from_its_first_token() -> None:
    text = np.array([7, 8, 9])
    learned = language_modelling(Sample(3, text, text[:0]))
    assert (learned.task, learned.input_ids.tolist(), learned.target_ids.tolist()) == (3, [7], [8, 9])
