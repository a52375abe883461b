"""Answers of 14 tasks are generated greedily, against transformers' `generate` over peft's adapters, a task after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.end_to_end import DATA, FOLDER, Lengths, made_lengths, real_lengths, with_tokens
from benchmarks.peers import UnequalError, ours, peft_mhr
from benchmarks.results import Measured, Row
from benchmarks.shapes import END, PAD, SHAPES, Shape, new_backbone
from benchmarks.timing import interleave, milliseconds, ratio
from mhrctl.data.batches import Ragged
from mhrctl.data.examples import Sample
from mhrctl.evaluation.prediction import Generation, predict
from mhrctl.models.adapted import AdaptedModel

TARGETS = (0.6, 0.4)
HEADS = 8
BATCH = 16
"""Rows of a batch of the peer: with 32, 64 or 256 it takes longer."""
ENDING = 10
"""One token in so many ends an answer: half of the answers have about ten, and a few go on to the last."""
Texts = list[list[str]]
Answerer = Callable[[], Texts]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        shapes: names of `SHAPES`, for the backbones.
        tasks: how many, each with adapters of its own.
        rows: of each task.
        repetitions: of all answers.
        longest: input lengths are cut here.
        most: tokens of an answer.
        data: folder that may hold Super-NaturalInstructions; None draws lengths.
    """

    shapes: Sequence[str]
    tasks: int
    rows: int
    repetitions: int
    longest: int = 1024
    most: int = 64
    data: Path | None = DATA


PLANS = {
    False: Plan(("tiny", "small"), 14, 16, 3),
    True: Plan(("tiny",), 4, 8, 1, longest=128, most=16, data=None),
}
"""{quick: plan}."""


def measure(plan: Plan) -> Measured:
    """Time all answers, from the samples to the texts."""
    lengths, note = real_lengths(plan.data) if plan.data and (plan.data / FOLDER).exists() else made_lengths()
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for name in plan.shapes:
        shape = SHAPES[name]
        samples = of_tasks(lengths, shape, plan)
        answerers = answerers_of(shape, samples, plan.most)
        expected = answerers["peft MHR"]()
        for who, answerer in answerers.items():
            require_same(who, answerer(), expected)
        times = interleave(answerers, repetitions=plan.repetitions, warmup=0)
        figures |= {f"{name}: {who}": median for who, median in milliseconds(times).items()}
        words = f"(heads {HEADS}, d_model {shape.d_model})"
        what = f"greedy answers of {plan.tasks} tasks, MHR / peft MHR and transformers' generate {words}"
        rows.append(Row(what, ratio(times["MHR"], times["peft MHR"]), *TARGETS))
        what = f"greedy answers of {plan.tasks} tasks, MHR / transformers' generate with adapters in its weights {words}"
        rows.append(Row(what, ratio(times["MHR"], times["folded"])))
    about = f"{plan.rows} rows a task, the peers' sorted by length in batches of {BATCH}, {plan.most} tokens an answer at most"
    return Measured(rows, figures, [f"{note}; {about}"])


def of_tasks(lengths: Lengths, shape: Shape, plan: Plan) -> list[list[Sample]]:
    """Samples of some tasks; of made lengths, which are of no task, some after the other."""
    made = len({task for *_, task in lengths}) == len(lengths)
    by_task: dict[int, Lengths] = {}
    for number, row in enumerate(lengths):
        by_task.setdefault(number // plan.rows if made else row[2], []).append(row)
    chosen = sorted(by_task.values(), key=len, reverse=True)[: plan.tasks]
    return [with_tokens(rows[: plan.rows], shape.vocabulary, (plan.longest, plan.most)) for rows in chosen]


def answerers_of(shape: Shape, samples: Sequence[Sequence[Sample]], most: int) -> dict[str, Answerer]:
    """What answers all samples, by name: ours, and a task after the other with peft, or with weights that have adapters."""
    tokenizer = tokenizer_of(shape.vocabulary)
    mine = ours(shape, heads=HEADS).adapting(len(samples))
    talkative(mine.model.backbone)
    routed = []
    for run in range(len(samples)):
        peer = peft_mhr(shape, heads=HEADS, tasks=1)
        talkative(peer.model.base_model.model)  # type: ignore[union-attr]
        peer.copy(mine.adapter, run)
        routed.append(peer.model.eval())
    folded = _folded(shape, mine.model, len(samples))
    generation = Generation(1, most)
    return {
        "MHR": lambda: predict(mine.model, tokenizer, samples, generation=generation, device=mine.model.backbone.device),
        "peft MHR": lambda: one_by_one(routed, tokenizer, samples, most, routed=True),
        "folded": lambda: one_by_one(folded, tokenizer, samples, most, routed=False),
    }


@torch.no_grad()
def one_by_one(
    models: Sequence[nn.Module],
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sequence[Sample]],
    most: int,
    *,
    routed: bool,
) -> Texts:
    """The answers of each task by the model that has its adapters; `routed` ones want task ids."""
    texts = [[""] * len(of_task) for of_task in samples]
    for task, (model, of_task) in enumerate(zip(models, samples, strict=True)):
        order = sorted(range(len(of_task)), key=lambda row: -len(of_task[row].input_ids))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            inputs = Ragged.of([of_task[row].input_ids for row in rows])
            options: dict[str, Any] = {"input_ids": inputs.padded(PAD), "attention_mask": inputs.mask()}
            options |= {"task_ids": torch.zeros(len(rows), dtype=torch.long)} if routed else {}
            tokens = model.generate(**options, max_new_tokens=most, do_sample=False, num_beams=1)  # type: ignore[operator]
            for row, text in zip(rows, tokenizer.batch_decode(tokens[:, 1:], skip_special_tokens=True), strict=True):
                texts[task][row] = text.strip()
    return texts


@torch.no_grad()
def talkative(backbone: Any) -> None:  # noqa: ANN401 - of transformers, or within a model of peft
    """Make a T5 of random weights answer at some length: with a tied output layer it would say its first token for ever."""
    random = torch.Generator().manual_seed(0)
    weight = backbone.lm_head.weight
    backbone.lm_head.weight = nn.Parameter(torch.randn(weight.shape, generator=random), requires_grad=False)
    ends = torch.randperm(len(weight) - END - 1, generator=random)[: len(weight) // ENDING] + END + 1
    backbone.generation_config.eos_token_id = [END, *ends.tolist()]


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerBase:
    """A word a token."""
    words = {"<pad>": PAD, "</s>": END} | {f"w{number}": number for number in range(END + 1, vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


def require_same(who: str, texts: Texts, expected: Texts) -> None:
    """Check that answers are the same, token by token.

    Raises:
        UnequalError: if one is not.
    """
    pairs = [pair for of_task, others in zip(texts, expected, strict=True) for pair in zip(of_task, others, strict=True)]
    if other := sum(one != wanted for one, wanted in pairs):
        raise UnequalError(f"answers of {who}: {other} of {len(pairs)} differ; nothing was timed")


@torch.no_grad()
def _folded(shape: Shape, model: AdaptedModel, tasks: int) -> list[nn.Module]:
    """For each task, a model whose weights have its adapters."""
    assert model.adapter is not None  # noqa: S101 - for the type checker
    model.eval()
    slots = model.adapter(torch.zeros(tasks, 1, dtype=torch.long))
    plain = new_backbone(shape)
    talkative(plain)
    folded = []
    for task in range(tasks):
        copy = deepcopy(plain).eval()
        for name in model.adapter.shapes:
            down, up = (slots[f"{name}.{part}"][task] for part in ("down", "up"))
            weight: Tensor = copy.get_submodule(name).weight
            weight += up.T @ down
        folded.append(copy)
    return folded
