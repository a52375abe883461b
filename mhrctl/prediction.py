"""Generation for many tasks side by side: every batch holds equally many rows of every run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from mhrctl.adapters.model import AdaptedModel
from mhrctl.progress import Track, silent
from mhrctl.training.data import Sample, collate
from mhrctl.training.loop import Objective

BATCH_ROWS = 256
"""Rows of a generation batch, times beams: a matter of memory, not of results."""


def predict(
    model: AdaptedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sequence[Sample]],
    *,
    beams: int,
    max_new_tokens: int,
    device: torch.device,
    track: Track = silent,
) -> list[list[str]]:
    """Generate an answer for each sample of each run.

    Args:
        model: with the adapters of all runs, or of one run for all.
        tokenizer: of the backbone.
        samples: for each run, its samples.
        beams: of beam search; 1 is greedy.
        max_new_tokens: longest answer.
        device: of the model.
        track: shows progress.

    Returns:
        For each run, the answers in the order of its samples.
    """
    model.eval()
    answers = [[""] * len(run) for run in samples]
    groups = _run_batches(samples, max(1, BATCH_ROWS // (beams * len(samples))))
    with track("generate", len(groups)) as bar:
        for rows in groups:
            chosen = [samples[run][row] for run, run_rows in enumerate(rows) for row in run_rows]
            batch = collate(chosen, own_rows(len(samples)), pad=tokenizer.pad_token_id)
            tokens = model.generate(
                batch.task_ids.to(device),
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
                num_beams=beams,
                do_sample=False,
                max_new_tokens=max_new_tokens,
            )
            texts = iter(tokenizer.batch_decode(tokens, skip_special_tokens=True))
            for run, run_rows in enumerate(rows):
                for row in run_rows:
                    answers[run][row] = next(texts).strip()
            bar.advance()
    return answers


@torch.no_grad()
def sample_losses(
    model: AdaptedModel,
    samples: Sequence[Sequence[Sample]],
    task_ids: Sequence[Sequence[int]],
    *,
    objective: Objective,
    device: torch.device,
) -> list[float]:
    """The loss of each group of samples: the mean of the objective over its samples.

    Args:
        model: with adapters.
        samples: for each group (a run, or a task), its samples.
        task_ids: [runs, groups a run], the routing row of each group.
        objective: the loss.
        device: of the model.
    """
    model.eval()
    totals = torch.zeros(len(samples))
    for row in range(max(len(group) for group in samples)):
        batch = collate([group[row % len(group)] for group in samples], task_ids, pad=objective.pad).to(device)
        present = torch.tensor([row < len(group) for group in samples])
        totals += objective(model, batch, runs=len(samples)).cpu() * present
    return [total / len(group) for total, group in zip(totals.tolist(), samples, strict=True)]


def own_rows(runs: int) -> list[list[int]]:
    """The task ids of a batch with one group a run, each with the first row of its own routing."""
    return [[0]] * runs


def _run_batches(samples: Sequence[Sequence[Sample]], rows: int) -> list[list[list[int]]]:
    """Rows of every run for every batch, long inputs first; runs that have no more rows repeat their last."""
    orders = [_by_length(run) for run in samples]
    longest = max(len(order) for order in orders)
    return [[_padded(order, start, min(rows, longest - start)) for order in orders] for start in range(0, longest, rows)]


def _by_length(run: Sequence[Sample]) -> list[int]:
    return sorted(range(len(run)), key=lambda row: -len(run[row].input_ids))


def _padded(order: list[int], start: int, rows: int) -> list[int]:
    part = order[start : start + rows]
    return part + [order[-1]] * (rows - len(part))
