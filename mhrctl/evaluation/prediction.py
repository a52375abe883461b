"""Many tasks are answered side by side, by generation or choice: every batch holds equally many rows of every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from mhrctl.data.batches import Ragged, collate
from mhrctl.data.examples import Sample
from mhrctl.errors import DivergedError, listed
from mhrctl.evaluation.metrics import Answer
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.backbones import vocabulary
from mhrctl.models.generation import ends_of, stops
from mhrctl.progress import Track, silent
from mhrctl.training.losses import choice_scores
from mhrctl.training.objective import Objective

BATCH_ROWS = 256
"""Rows of a batch, times beams or choices: a matter of memory, not of results."""
BATCH_TOKENS = 2**14
"""Input tokens of a batch of rows of all runs, its longest input taken for all."""
BATCH_LOGITS = 2**23
"""Logits of a step of a batch: those of 256 rows of T5's 32,128 tokens, and of 32 rows of Gemma's 262,144."""


@dataclass(frozen=True)
class Generation:
    """These settings say how answers come about.

    Attributes:
        beams: of beam search; 1 is greedy.
        max_new_tokens: longest generated answer.
        length_norm: of the scores of answer choices, where answers are chosen.
    """

    beams: int
    max_new_tokens: int
    length_norm: float = 1.0


def answer(
    model: AdaptedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sequence[Sample]],
    choices: Sequence[Sequence[Sequence[str]]],
    *,
    generation: Generation,
    device: torch.device,
    track: Track = silent,
    names: Sequence[str] = (),
    routing: Sequence[Sequence[int]] | None = None,
) -> list[list[Answer]]:
    """Answer each sample of each run: by its best-scored choice where the run has choices, by generation where it has none.

    Args:
        model: with the adapters of all runs, or of one run for all.
        tokenizer: of the backbone.
        samples: for each run, its samples.
        choices: for each run, the texts of each sample's choices; nothing for a run whose answers are generated.
        generation: how answers come about.
        device: of the model.
        track: shows progress.
        names: of the runs' tasks, for the error; their numbers, if there are none.
        routing: [1, runs], where one adapter routes all of them: the row of its routing that each run takes. None where each
            run has the first row of a routing of its own.

    Returns:
        For each run, the answers in the order of its samples.

    Raises:
        DivergedError: if the model gives logits of a run that are not finite; no answer can come of them.
    """
    answers: list[list[Answer]] = [[] for _ in samples]
    scored = [run for run, texts in enumerate(choices) if texts]
    generated = [run for run, texts in enumerate(choices) if not texts]
    if scored:
        part = of_runs(model, scored)
        objective = Objective("token_mean", 0.0, length_norm=generation.length_norm)
        names_of = [names[run] for run in scored] if names else []
        best = score_choices(
            part,
            [samples[run] for run in scored],
            objective=objective,
            device=device,
            track=track,
            names=names_of,
            routing=routing and [[routing[0][run] for run in scored]],
        )
        for run, rows in zip(scored, best, strict=True):
            answers[run] = [
                Answer(texts[number], number, scores) for texts, (number, scores) in zip(choices[run], rows, strict=True)
            ]
    if generated:
        texts_of_runs = predict(
            of_runs(model, generated),
            tokenizer,
            [samples[run] for run in generated],
            generation=generation,
            device=device,
            track=track,
            names=[names[run] for run in generated] if names else [],
            routing=routing and [[routing[0][run] for run in generated]],
        )
        for run, texts in zip(generated, texts_of_runs, strict=True):
            answers[run] = [Answer(text) for text in texts]
    return answers


def choose(
    model: AdaptedModel,
    samples: Sequence[Sequence[Sample]],
    *,
    objective: Objective,
    device: torch.device,
    track: Track = silent,
    names: Sequence[str] = (),
) -> list[list[int]]:
    """Choose an answer for each sample of each run by rank classification: the choice with the smallest mean token loss.

    Args are those of `score_choices`.

    Returns:
        For each run, the index of the choice of each of its samples.
    """
    rows = score_choices(model, samples, objective=objective, device=device, track=track, names=names)
    return [[number for number, _ in of_run] for of_run in rows]


@torch.no_grad()
def score_choices(
    model: AdaptedModel,
    samples: Sequence[Sequence[Sample]],
    *,
    objective: Objective,
    device: torch.device,
    track: Track = silent,
    names: Sequence[str] = (),
    routing: Sequence[Sequence[int]] | None = None,
) -> list[list[tuple[int, tuple[float, ...]]]]:
    """Score the choices of each sample of each run.

    Args:
        model: with the adapters of all runs, or of one run for all.
        samples: for each run, its samples, all with choices.
        objective: gives the losses of tokens and the length normalisation.
        device: of the model.
        track: shows progress.
        names: of the runs' tasks, for the error.
        routing: as of `answer`.

    Returns:
        For each run, the index of the best choice of each of its samples, and the scores of all, of which the largest is best:
        the log-likelihood of a choice's tokens, over their number ^ length_norm.

    Raises:
        DivergedError: if the losses of a run's choices are not finite.
    """
    model.eval()
    chosen: list[list[tuple[int, tuple[float, ...]]]] = [[(0, ())] * len(run) for run in samples]
    most = max(len(sample.choices) for run in samples for sample in run)
    groups = _run_batches(samples, _rows_a_run(model, most, len(samples)))
    with track("choose", len(groups)) as bar:
        for rows in groups:
            part = [samples[run][row] for run, run_rows in enumerate(rows) for row in run_rows]
            batch = collate(part, routing or own_rows(len(samples)), with_choices=True).to(device)
            labels = batch.labels.view(len(part), -1, batch.labels.shape[-1])
            losses = objective.token_losses(model, batch).view_as(labels)
            _require_finite(torch.isfinite(losses).flatten(1).all(1), names, runs=len(samples))
            scores = choice_scores(losses, labels, batch.choices, length_norm=objective.length_norm)
            numbers = iter(zip(scores.argmin(1).tolist(), scores.tolist(), strict=True))
            for run, run_rows in enumerate(rows):
                for row in run_rows:
                    number, of_choices = next(numbers)
                    chosen[run][row] = number, tuple(-score for score in of_choices[: len(samples[run][row].choices)])
            bar.advance()
    return chosen


def predict(
    model: AdaptedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sequence[Sample]],
    *,
    generation: Generation,
    device: torch.device,
    track: Track = silent,
    names: Sequence[str] = (),
    routing: Sequence[Sequence[int]] | None = None,
) -> list[list[str]]:
    """Generate an answer for each sample of each run.

    Args:
        model: with the adapters of all runs, or of one run for all.
        tokenizer: of the backbone.
        samples: for each run, its samples.
        generation: how answers come about.
        device: of the model.
        track: shows progress.
        names: of the runs' tasks, for the error.
        routing: as of `answer`.

    Returns:
        For each run, the answers in the order of its samples.

    Raises:
        DivergedError: if the logits of a run are not finite.
    """
    model.eval()
    if generation.beams == 1 and (greedy := model.greedy(torch.tensor(routing or own_rows(len(samples)), device=device))):
        ends = ends_of(model.backbone, tokenizer)
        answering = partial(greedy, ends=ends, max_new_tokens=generation.max_new_tokens)
        most = _rows_a_run(model, 1, 1)
        return _predict_mixed(answering, tokenizer, samples, most=most, device=device, track=track, names=names)
    answers = [[""] * len(run) for run in samples]
    groups = _run_batches(samples, _rows_a_run(model, generation.beams, len(samples)))
    with track("generate", len(groups)) as bar:
        for rows in groups:
            chosen = [samples[run][row] for run, run_rows in enumerate(rows) for row in run_rows]
            batch = collate(chosen, routing or own_rows(len(samples))).to(device)
            logits = _Finite()
            tokens = model.generate(
                batch.task_ids,
                batch.inputs,
                num_beams=generation.beams,
                do_sample=False,
                max_new_tokens=generation.max_new_tokens,
                logits_processor=LogitsProcessorList([logits]),
                **stops(model.backbone, tokenizer),
            )
            _require_finite(logits.rows, names, runs=len(samples))
            texts = iter(tokenizer.batch_decode(tokens, skip_special_tokens=True))
            for run, run_rows in enumerate(rows):
                for row in run_rows:
                    answers[run][row] = next(texts).strip()
            bar.advance()
    return answers


def _predict_mixed(
    answering: Callable[[Ragged, Sequence[int]], tuple[Tensor, Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sequence[Sample]],
    *,
    most: int,
    device: torch.device,
    track: Track,
    names: Sequence[str],
) -> list[list[str]]:
    """Generate answers in batches of rows of similar length, whichever their runs are."""
    answers = [[""] * len(run) for run in samples]
    batches = _mixed_batches(samples, most)
    with track("generate", len(batches)) as bar:
        for batch in batches:
            inputs = Ragged.of([samples[run][row].input_ids for run, row in batch]).to(device)
            tokens, finite = answering(inputs, [run for run, _ in batch])
            _require_finite_runs(
                sorted({run for (run, _), good in zip(batch, finite.tolist(), strict=True) if not good}), names
            )
            for (run, row), text in zip(batch, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
                answers[run][row] = text.strip()
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
    """Return the loss of each group of samples: the mean of the objective over its samples.

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
        part = [group[row % len(group)] for group in samples]
        batch = collate(part, task_ids, with_choices=objective.reads_choices).to(device)
        present = torch.tensor([row < len(group) for group in samples])
        totals += objective(model, batch, runs=len(samples)).cpu() * present
    return [total / len(group) for total, group in zip(totals.tolist(), samples, strict=True)]


def of_runs(model: AdaptedModel, runs: Sequence[int]) -> AdaptedModel:
    """Return the model with the adapters of some of its runs; the model itself where one adapter serves all."""
    adapter = model.adapter
    if adapter is None or adapter.runs in (1, len(runs)):
        return model
    return AdaptedModel(model.backbone, adapter.select(runs), speed=model.speed).to(model.backbone.device)


def own_rows(runs: int) -> list[list[int]]:
    """Return the task ids of a batch with one group a run, each with the first row of its own routing."""
    return [[0]] * runs


class _Finite(LogitsProcessor):
    """Takes note, on the device, of rows whose logits are not finite; it changes none.

    Attributes:
        rows: [rows of the batch * beams], whether all logits so far were finite, but for those that are ruled out by -inf.
    """

    def __init__(self) -> None:
        self.rows = torch.empty(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers gives both
        finite = torch.isfinite(scores.amax(-1))  # NaN and infinity are the largest, and -inf where there is nothing else
        self.rows = self.rows & finite if len(self.rows) else finite
        return scores


def _require_finite(rows: Tensor, names: Sequence[str], *, runs: int) -> None:
    """Check that the model gave finite numbers for every row of a batch of equally many rows a run."""
    _require_finite_runs((~rows.view(runs, -1).all(1)).nonzero().flatten().tolist(), names)


def _require_finite_runs(bad: Sequence[int], names: Sequence[str]) -> None:
    """Check that no run has numbers that are not finite."""
    if bad:
        tasks = [names[run] if names else f"run {run}" for run in bad]
        raise DivergedError(f"what the model computes for {listed(tasks)} is not finite")


def _rows_a_run(model: AdaptedModel, each: int, runs: int) -> int:
    """How many rows of each run go into a batch, where each row is read so many times: for its beams, or its choices."""
    rows = min(BATCH_ROWS, BATCH_LOGITS // vocabulary(model.backbone))
    return max(1, rows // (each * runs))


def _run_batches(samples: Sequence[Sequence[Sample]], rows: int) -> list[list[list[int]]]:
    """Rows of every run for every batch, long inputs first; runs that have no more rows repeat their last."""
    orders = [_by_length(run) for run in samples]
    longest = max(len(order) for order in orders)
    return [[_padded(order, start, min(rows, longest - start)) for order in orders] for start in range(0, longest, rows)]


def _mixed_batches(samples: Sequence[Sequence[Sample]], most: int) -> list[list[tuple[int, int]]]:
    """(run, row) of every batch, long inputs first, in the order of the runs within a batch."""
    every = [(run, row) for run, of_run in enumerate(samples) for row in range(len(of_run))]
    every.sort(key=lambda place: -len(samples[place[0]][place[1]].input_ids))
    batches, start = [], 0
    while start < len(every):
        run, row = every[start]
        rows = max(1, min(most, BATCH_TOKENS // max(1, len(samples[run][row].input_ids))))
        batches.append(sorted(every[start : start + rows]))
        start += rows
    return batches


def _by_length(run: Sequence[Sample]) -> list[int]:
    return sorted(range(len(run)), key=lambda row: -len(run[row].input_ids))


def _padded(order: list[int], start: int, rows: int) -> list[int]:
    part = order[start : start + rows]
    return part + [order[-1]] * (rows - len(part))
