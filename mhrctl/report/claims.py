"""The claims of the paper's sections 4 to 6, and of its rivals, are held to the results at hand.

A claim is a row: which cells are compared, on what, and what is said of the difference. Its verdict is of the paired bootstrap
over tasks and seeds, corrected for all claims that are judged together (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mhrctl.config.grid import PLAIN
from mhrctl.report.aggregates import FEWEST_SEEDS, FEWEST_TASKS
from mhrctl.report.bootstrap import LEVEL, RESAMPLES, Interval, interval_of, resampled_means
from mhrctl.report.differences import ByTask, paired
from mhrctl.report.logs import Log
from mhrctl.report.results import Group, Results

HEADS = 8
"""Of several head counts of a method the nearest to it is compared, unless a claim is of heads."""
POWER = 0.8
"""The chance with which a study of this size shows the smallest difference that it is said to be able to show."""
UNTRAINED = "untrained"
"""The variant whose pre-training takes no steps: adaptation from nothing."""

Says = Literal["more", "no less", "the same"]
On = Literal["adapted", "zero_shot", "shared", "composed"]
"""What is compared: scores, or the alignment of gradients on the skills or on the adapters that are composed of them."""
ALIGNMENT = ("shared", "composed")
"""Of these what is measured of all training tasks together."""
Finding = Literal["holds", "not shown", "fails"]


@dataclass(frozen=True)
class Side:
    """A side of a comparison says which cells it is of.

    Attributes:
        method: row of the methods table.
        variant: of the grid.
        heads: of several head counts: the one nearest to the paper's 8, or the most.
        with_steps: whether they are those with further steps on all tasks before zero-shot evaluation.
        is_coarse: whether they are those of the coarsest granularity of routing, whatever their variant is called.
    """

    method: str
    variant: str = PLAIN
    heads: Literal["usual", "most"] = "usual"
    with_steps: bool = False
    is_coarse: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim is one comparison.

    Attributes:
        number: of the claim, with a letter where it takes several comparisons.
        text: the claim in words.
        ours: what it is about.
        other: what that is compared to.
        says: of the difference: that there is a gain, that there is no loss beyond the margin, or that it is within the margin.
        on: what is compared.
    """

    number: str
    text: str
    ours: Side
    other: Side
    says: Says = "more"
    on: On = "adapted"


CLAIMS = (
    Claim("0", "Training on other tasks first helps at all.", Side("lora"), Side("lora", UNTRAINED)),
    Claim("1a", "MHR learns a new task better than Poly (section 5.1).", Side("mhr"), Side("poly")),
    Claim("1b", "Poly learns a new task better than one LoRA (section 5.1).", Side("poly"), Side("lora")),
    Claim("1c", "MHR learns a new task better than one LoRA (section 5.1).", Side("mhr"), Side("lora")),
    Claim("2a", "Routing alone, of several heads, does no worse than one LoRA.", Side("mhr_z"), Side("lora"), "no less"),
    Claim("2b", "Routing alone is better with heads (section 5.1).", Side("mhr_z"), Side("poly_z")),
    Claim("3a", "It is not size: MHR is better than a larger LoRA.", Side("mhr"), Side("lora_big")),
    Claim("3b", "It is not size: MHR is better than a LoRA as large as its inventory.", Side("mhr"), Side("lora_matched")),
    Claim("4a", "The average adapts as well as the routed skills (section 5.3).", Side("mhr_mu"), Side("mhr"), "the same"),
    Claim("4b", "The average of routed skills is better than one LoRA (section 5.3).", Side("mhr_mu"), Side("lora")),
    Claim("4c", "Learned routing is better than a random one (section 5.2).", Side("mhr_mu"), Side("random_mu")),
    Claim("4d", "Learned routing is better than a mixture of sparse copies.", Side("mhr_mu"), Side("mosa")),
    Claim(
        "5a", "MHR aligns the gradients of tasks better than one LoRA (section 5.2).", Side("mhr"), Side("lora"), on="shared"
    ),
    Claim("5b", "MHR aligns the gradients of tasks better than Poly (section 5.2).", Side("mhr"), Side("poly"), on="shared"),
    Claim("5c", "So it does on each task's own adapter.", Side("mhr"), Side("lora"), on="composed"),
    Claim(
        "6",
        "The average, after some more steps, is better without examples than one LoRA after as many (section 5.3).",
        Side("mhr_mu", with_steps=True),
        Side("lora", with_steps=True),
        on="zero_shot",
    ),
    Claim(
        "7a", "More heads are better, where the routing alone is trained (A.2).", Side("mhr_z", heads="most"), Side("poly_z")
    ),
    Claim(
        "7b",
        "A routing for each layer is better than one for many, where it alone is trained (A.2.1).",
        Side("mhr_z"),
        Side("mhr_z", is_coarse=True),
    ),
    Claim(
        "8a", "One LoRA of enough rank does as well as MHR (arXiv 2508.05078).", Side("lora_matched"), Side("mhr"), "no less"
    ),
    Claim("8b", "One LoRA that aligns the tasks does as well as MHR.", Side("align_lora"), Side("mhr"), "no less"),
)


@dataclass(frozen=True)
class Judged:
    """This is what the results say of a claim.

    Attributes:
        claim: it.
        labels: of the two methods.
        tasks: how many both have; 0 for what is measured of all training tasks together.
        seeds: how many both have.
        interval: the mean difference, and how sure it is.
        p: the two-sided chance of as clear a finding, if there were none; corrected for all claims that are judged.
        least: the smallest difference, or margin, that as many tasks and seeds show with a chance of 80 %.
        finding: the verdict.
    """

    claim: Claim
    labels: tuple[str, str]
    tasks: int
    seeds: int
    interval: Interval
    p: float
    least: float
    finding: Finding


@dataclass(frozen=True)
class Judgement:
    """These are all claims, judged together.

    Attributes:
        judged: those of which there are results.
        open: {claim: why it is not judged}.
    """

    judged: Sequence[Judged]
    open: Mapping[Claim, str]


def judge(results: Results, logs: Sequence[Log], *, margin: float, claims: Sequence[Claim] = CLAIMS) -> Judgement:
    """Judge claims by the results at hand.

    Args:
        results: scores.
        logs: of pre-training, some of which may have measured alignment.
        margin: the difference of scores that is none.
        claims: to judge.
    """
    judged: list[tuple[Judged, bool]] = []
    left_open: dict[Claim, str] = {}
    for claim in claims:
        groups = [_group(results, side) for side in (claim.ours, claim.other)]
        lacking = [side for side, group in zip((claim.ours, claim.other), groups, strict=True) if group is None]
        if lacking:
            left_open[claim] = f"no cells of {' and '.join(map(_called, lacking))}"
            continue
        first, second = (group for group in groups if group)
        labels = (_label(first), _label(second))
        if same := [each for each, _ in judged if _is_as(each, claim, labels)]:
            left_open[claim] = f"which is {same[0].claim.number} with these cells"
            continue
        differences = paired(_values(first, claim.on, logs), _values(second, claim.on, logs))
        if differences is None:
            left_open[claim] = f"{' and '.join(labels)} have no {_WANTED[claim.on]} of the same task and seed"
        elif too_few := _too_few(differences, claim.on):
            left_open[claim] = f"{' and '.join(labels)} have {too_few} in common"
        else:
            judged.append(_judged(claim, labels, differences, margin))
    return Judgement(_corrected(judged), left_open)


def _is_as(judged: Judged, claim: Claim, labels: tuple[str, str]) -> bool:
    """Whether a claim says of the cells at hand what an earlier one says: to judge it twice would cost the others."""
    return (judged.claim.says, judged.claim.on, judged.labels) == (claim.says, claim.on, labels)


_WANTED: Mapping[On, str] = {
    "adapted": "scores after adaptation",
    "zero_shot": "zero-shot scores",
    "shared": "alignment (pretrain.align_every)",
    "composed": "alignment (pretrain.align_every)",
}


def _called(side: Side) -> str:
    parts = [side.method, *([side.variant] if side.variant != PLAIN else [])]
    return "-".join(parts) + " with extra steps" * side.with_steps + " of a coarser routing" * side.is_coarse


def _group(results: Results, side: Side) -> Group | None:
    """The cells of a side; of several head counts those that it asks for, and of extra steps the most."""
    of_method = [group for group in results.groups if (group.method, group.extra_steps > 0) == (side.method, side.with_steps)]
    groups = [group for group in of_method if (group.variant or PLAIN) == side.variant]
    if side.heads == "most":
        return max(groups, key=lambda group: group.heads or 1, default=None)
    usual = min(groups, key=lambda group: (abs((group.heads or 1) - HEADS), -group.extra_steps), default=None)
    if not side.is_coarse or usual is None:
        return usual
    coarser = [
        group for group in of_method if group.heads == usual.heads and group.first.granularity != usual.first.granularity
    ]
    return min(coarser, key=lambda group: group.first.parameters.adaptation, default=None)


def _label(group: Group) -> str:
    """A method with its further steps, as its cells are named."""
    return group.label + (f"-x{group.extra_steps}" if group.extra_steps else "")


def _values(group: Group, on: On, logs: Sequence[Log]) -> ByTask:
    """{task: {seed: value}}; what is measured of all training tasks together is of one that has no name."""
    if on == "adapted" or on == "zero_shot":
        return group.by_task(on)
    seeds = {name: cell.seed for name, cell in group.cells.items()}
    measured = {log.cell: [getattr(each, on) for each in log.alignments if each.step] for log in logs}
    values = {seeds[name]: float(np.mean(means)) for name, means in measured.items() if name in seeds and means}
    return {"": values} if values else {}


def _too_few(differences: NDArray[np.float64], on: On) -> str:
    """Say what there is too little of; nothing if there is enough."""
    tasks, seeds = differences.shape
    counts = [(seeds, "seeds", FEWEST_SEEDS), *([(tasks, "tasks", FEWEST_TASKS)] if on in ("adapted", "zero_shot") else [])]
    return " and ".join(f"{count} of at least {least} {what}" for count, what, least in counts if count < least)


def _judged(claim: Claim, labels: tuple[str, str], differences: NDArray[np.float64], margin: float) -> tuple[Judged, bool]:
    """A claim with its chance before correction, and whether the results lean towards it."""
    means = resampled_means(differences)
    bound = {"more": 0.0, "no less": -margin, "the same": margin}[claim.says]
    distance = margin - np.abs(means) if claim.says == "the same" else means - bound  # above 0 it is as the claim says
    against, towards = float((distance <= 0).mean()), float((distance >= 0).mean())
    p = min(1.0, 2 * (min(against, towards) * RESAMPLES + 1) / (RESAMPLES + 1))  # never 0, however many are drawn
    tasks = 0 if claim.on in ALIGNMENT else len(differences)
    judged = Judged(
        claim, labels, tasks, differences.shape[1], interval_of(differences, means), p, float(means.std()), "not shown"
    )
    return judged, against < towards


def _corrected(judged: Sequence[tuple[Judged, bool]]) -> list[Judged]:
    """The claims with chances after Holm's correction, and the verdicts that follow."""
    order = sorted(range(len(judged)), key=lambda place: judged[place][0].p)
    least_chance = (1 - LEVEL) / max(1, len(judged))  # of the first step, which is what a difference must pass alone
    errors = NormalDist().inv_cdf(1 - least_chance / 2) + NormalDist().inv_cdf(POWER)
    corrected = dict[int, Judged]()
    highest = 0.0
    for rank, place in enumerate(order):
        each, leans = judged[place]
        highest = max(highest, min(1.0, (len(judged) - rank) * each.p))
        finding: Finding = "not shown" if highest >= 1 - LEVEL else "holds" if leans else "fails"
        corrected[place] = replace(each, p=highest, least=errors * each.least, finding=finding)
    return [corrected[place] for place in range(len(judged))]
