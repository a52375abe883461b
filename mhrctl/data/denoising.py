"""Plain texts become samples to learn from: by span corruption, as T5 does, or to go on from their beginning."""

from __future__ import annotations

import random

import numpy as np

from mhrctl.data.examples import Sample

NOISE_DENSITY = 0.15
MEAN_SPAN = 3


def language_modelling(sample: Sample) -> Sample:
    """Go on from the first token of a text, which may be the one that begins texts, to its last.

    Args:
        sample: its input is the text.
    """
    return Sample(sample.task, sample.input_ids[:1], sample.input_ids[1:])


def span_corruption(sample: Sample, sentinels: list[int], rng: random.Random) -> Sample:
    """Denoise as T5 does: 15 % of the tokens in spans of 3 on average become sentinels, which the target spells out.

    Args:
        sample: its input is the text; its last token, the end, is never masked.
        sentinels: ids of `<extra_id_0>` and so on.
        rng: chooses the spans.
    """
    text, end = sample.input_ids[:-1], sample.input_ids[-1:]
    noise = max(1, round(len(text) * NOISE_DENSITY))
    spans = min(max(1, round(noise / MEAN_SPAN)), len(sentinels), max(1, len(text) - noise))
    masked, kept = _parts(noise, spans, rng), _parts(max(len(text) - noise, spans), spans, rng)
    inputs, targets, at = [], [], 0
    for sentinel, keep, hide in zip(sentinels, kept, masked, strict=False):
        inputs += [*text[at : at + keep], sentinel]
        targets += [sentinel, *text[at + keep : at + keep + hide]]
        at += keep + hide
    return Sample(sample.task, np.array([*inputs, *text[at:], *end]), np.array([*targets, *end]))


def _parts(total: int, parts: int, rng: random.Random) -> list[int]:
    """`parts` positive numbers that sum to `total`."""
    cuts = sorted(rng.sample(range(1, total), parts - 1))
    return [after - before for before, after in zip([0, *cuts], [*cuts, total], strict=True)]
