"""Claims are held to scores whose differences are known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from mhrctl.report.bootstrap import resampled_means
from mhrctl.report.claims import CLAIMS, Claim, Judgement, Side, judge
from mhrctl.report.logs import Alignment, Log
from mhrctl.report.results import read_results
from tests.report.made import made_cell, write_cells

TASKS = "abcdefgh"
SEEDS = range(6)
MORE = Claim("1", "MHR is better.", Side("mhr"), Side("lora"))
LESS = Claim("2", "LoRA is better.", Side("lora"), Side("mhr"))
SAME = Claim("3", "They are equal.", Side("mhr"), Side("lora"), "the same")
NO_LESS = Claim("4", "LoRA is no worse.", Side("lora"), Side("mhr"), "no less")


def scores(mean: float, noise: float, seed: int) -> dict[str, float]:
    """Scores of the tasks of a seed, about a mean."""
    rng = random.Random(seed)
    return {task: mean + noise * rng.gauss() for task in TASKS}


def judged(folder: Path, claims: Sequence[Claim], made: Mapping[str, Any], logs: Sequence[Log] = ()) -> Judgement:
    """What cells say of claims, with a margin of a point."""
    return judge(read_results(write_cells(folder, made)), logs, margin=1.0, claims=claims)


def cells(method: str, mean: float, *, noise: float = 0.2, heads: int = 1, **facts: Any) -> dict[str, dict[str, Any]]:
    """Cells of a method, one a seed, whose scores have a noise that no other method's have."""
    name = method if heads == 1 else f"{method}-h{heads}"
    name += f"-{facts['variant']}" if "variant" in facts else ""
    return {
        f"{name}-s{seed}": made_cell(method, heads, seed, scores(mean, noise, hash((len(name), heads, seed))), **facts)
        for seed in SEEDS
    }


@pytest.mark.parametrize(
    ("gain", "findings"),
    [
        (3.0, ["holds", "fails", "fails", "fails"]),
        (0.5, ["holds", "fails", "holds", "holds"]),
        (-3.0, ["fails", "holds", "fails", "holds"]),
    ],
)
def test_what_the_difference_says(tmp_path: Path, gain: float, findings: list[str]) -> None:
    judgement = judged(tmp_path, [MORE, LESS, SAME, NO_LESS], cells("lora", 50) | cells("mhr", 50 + gain, heads=8))
    assert [each.finding for each in judgement.judged] == findings
    assert not judgement.open


def test_noise_shows_nothing_and_says_what_could_have_been_shown(tmp_path: Path) -> None:
    made = cells("lora", 50, noise=9) | cells("mhr", 50.3, noise=9, heads=8)
    judgement = judged(tmp_path, [MORE, SAME, NO_LESS], made)
    assert {each.finding for each in judgement.judged} == {"not shown"}
    first = judgement.judged[0]
    adapted = {
        name: np.array([[made[f"{name}-s{seed}"]["by_task"][task]["adapted"] for seed in SEEDS] for task in TASKS])
        for name in ("lora", "mhr-h8")
    }
    differences = adapted["mhr-h8"] - adapted["lora"]
    error = resampled_means(differences).std()
    expected = (NormalDist().inv_cdf(1 - 0.05 / 3 / 2) + NormalDist().inv_cdf(0.8)) * error
    assert first.least == pytest.approx(expected)
    assert abs(first.interval.mean) < first.least
    assert (first.tasks, first.seeds, first.labels) == (8, 6, ("mhr-h8", "lora"))


def test_equal_scores_are_no_finding_but_equality(tmp_path: Path) -> None:
    equal = {f"{name}-s{seed}": made_cell(name, 1, seed, scores(50, 1, seed)) for name in ("lora", "poly") for seed in SEEDS}
    sides = Side("poly"), Side("lora")
    more, same = judged(tmp_path, [Claim("1", "", *sides), Claim("2", "", *sides, "the same")], equal).judged
    assert (more.finding, more.p, more.interval.mean, more.least) == ("not shown", 1.0, 0.0, 0.0)
    assert same.finding == "holds"


def test_many_claims_are_corrected_by_holm(tmp_path: Path) -> None:
    made = cells("lora", 50, noise=2)
    for place, name in enumerate(("poly", "ia3", "random_mu"), 1):
        made |= cells(name, 50 + place / 3, noise=2)
    claims = [Claim(name, "", Side(name), Side("lora")) for name in ("poly", "ia3", "random_mu")]
    alone = [judged(tmp_path / claim.number, [claim], made).judged[0].p for claim in claims]
    together = [each.p for each in judged(tmp_path, claims, made).judged]
    order = sorted(range(3), key=lambda place: alone[place])
    stepwise = [min(1.0, (3 - rank) * alone[place]) for rank, place in enumerate(order)]
    assert [together[place] for place in order] == [max(stepwise[: rank + 1]) for rank in range(3)]
    assert together != alone


def test_three_seeds_and_five_tasks_are_the_fewest(tmp_path: Path) -> None:
    made = cells("lora", 50) | {name: cell for name, cell in cells("mhr", 60, heads=8).items() if name[-1] in "01"}
    judgement = judged(tmp_path, [MORE], made)
    assert not judgement.judged
    assert judgement.open == {MORE: "mhr-h8 and lora have 2 of at least 3 seeds in common"}


def test_cells_are_those_of_the_usual_heads_the_most_heads_and_the_coarsest_routing(tmp_path: Path) -> None:
    made = cells("poly_z", 50) | cells("mhr_z", 52, heads=4) | cells("mhr_z", 53, heads=8) | cells("mhr_z", 54, heads=64)
    coarse: dict[str, Any] = {"granularity": "block", "variant": "wide", "parameters": {"multi_task": 9, "adaptation": 5}}
    coarser: dict[str, Any] = {"granularity": "model", "variant": "wider", "parameters": {"multi_task": 9, "adaptation": 2}}
    made |= (
        cells("mhr_z", 51, heads=8, **coarse) | cells("mhr_z", 51, heads=8, **coarser) | cells("mhr_z", 51, heads=4, **coarser)
    )
    claims = [claim for claim in CLAIMS if claim.number in ("2b", "7a", "7b")]
    labels = [each.labels for each in judged(tmp_path, claims, made).judged]
    assert labels == [("mhr_z-h8", "poly_z"), ("mhr_z-h64", "poly_z"), ("mhr_z-h8", "mhr_z-h8-wider")]


def test_further_steps_are_named(tmp_path: Path) -> None:
    (claim,) = (claim for claim in CLAIMS if claim.number == "6")
    made = {}
    for method, heads in (("lora", 1), ("mhr_mu", 8)):
        for name, cell in cells(method, 50, heads=heads, extra_steps=100).items():
            made[name.replace("-s", "-x100-s")] = cell
    assert judged(tmp_path, [claim], made).judged[0].labels == ("mhr_mu-h8-x100", "lora-x100")


def test_the_same_cells_are_judged_once(tmp_path: Path) -> None:
    claims = [claim for claim in CLAIMS if claim.number in ("2b", "7a")]
    judgement = judged(tmp_path, claims, cells("poly_z", 50) | cells("mhr_z", 53, heads=8))
    assert [each.claim.number for each in judgement.judged] == ["2b"]
    assert list(judgement.open.values()) == ["which is 2b with these cells"]


def test_alignment_is_of_seeds_and_of_what_was_trained(tmp_path: Path) -> None:
    aligned = [claim for claim in CLAIMS if claim.number in ("5a", "5c")]
    logs = [
        Log(f"{name}-s{seed}", (0, 10), (1.0, 1.0), (Alignment(0, 0.9, 0.9), Alignment(10, value + seed / 100, 0.1)))
        for name, value in (("lora", 0.1), ("mhr-h8", 0.3))
        for seed in SEEDS
    ]
    shared, composed = judged(tmp_path, aligned, cells("lora", 50) | cells("mhr", 50, heads=8), logs).judged
    assert (shared.tasks, shared.seeds, shared.finding) == (0, 6, "holds")
    assert shared.interval.mean == pytest.approx(0.2)
    assert composed.finding == "not shown"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    judgement = judged(tmp_path, CLAIMS, cells("lora", 50) | cells("mhr", 50, heads=8))
    reasons = {claim.number: why for claim, why in judgement.open.items()}
    assert reasons["0"] == "no cells of lora-untrained"
    assert reasons["4a"] == "no cells of mhr_mu"
    assert reasons["5a"] == "mhr-h8 and lora have no alignment (pretrain.align_every) of the same task and seed"
    assert reasons["6"] == "no cells of mhr_mu with extra steps and lora with extra steps"
    assert len({claim.number for claim in CLAIMS}) == len(CLAIMS) == len(judgement.judged) + len(reasons)
