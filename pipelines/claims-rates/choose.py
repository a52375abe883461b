"""`python choose.py` prints what the rates of each method gave in validation, the best first, and which is chosen.

A rate of pre-training is of all methods that share the pre-training, and the one with the best of these chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from mhrctl.artifacts.names import Project
from mhrctl.config.methods import METHODS
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params
from mhrctl.evaluation.scores import read_metrics

STUDY = Path(__file__).parent
UNTRAINED = "untrained"


class Tried(NamedTuple):
    """A pair of rates is tried, and the mean validation score of the test tasks is what came of it."""

    validation: float
    method: str
    pretrain: float | None
    adapt: str


def tried(root: Path) -> Mapping[str, list[Tried]]:
    """Return {method, and that it was not pre-trained: what was tried of it, the best first}.

    Args:
        root: the study's folder, in which all cells have been evaluated.
    """
    params = load_params(root / "params.yaml").params
    of_method: dict[str, list[Tried]] = {}
    for scores in read_metrics(Project(root).metrics / "evaluate").values():
        if scores.validation is None:
            continue  # the backbone's
        rate = None if scores.variant == UNTRAINED else _pretrain_rate(params, scores.variant)
        adapt = ", ".join(f"{name} {value:g}" for name, value in scores.settings.items())
        called = scores.method if rate is not None else f"{scores.method} {UNTRAINED}"
        of_method.setdefault(called, []).append(Tried(scores.validation, scores.method, rate, adapt))
    return {called: sorted(each, key=lambda one: -one.validation) for called, each in of_method.items()}


def chosen(of_method: Mapping[str, list[Tried]]) -> Mapping[str, Tried]:
    """Return {method: the best of its trials with the rate of pre-training that it shares}."""
    shared: dict[str, Tried] = {}
    for method, trials in of_method.items():
        with_rate = [one for one in trials if one.pretrain is not None]
        if with_rate:
            pretrained = METHODS[method].pretrain
            shared[pretrained] = max(with_rate[0], shared.get(pretrained, with_rate[0]), key=lambda one: one.validation)
    return {
        called: next(one for one in trials if one.pretrain in (None, shared[METHODS[one.method].pretrain].pretrain))
        for called, trials in of_method.items()
    }


def _pretrain_rate(params: Params, variant: str) -> float:
    settings = params.grid.variants[variant].pretrain if variant in params.grid.variants else {}
    return float(settings.get("lr", params.pretrain.lr))


if __name__ == "__main__":
    of_method = tried(STUDY)
    table = Table("method", "pretrain.lr", "adapt", "validation", "chosen")
    for called, best in chosen(of_method).items():
        for one in of_method[called]:
            rate = "-" if one.pretrain is None else f"{one.pretrain:g}"
            table.add_row(called, rate, one.adapt, f"{one.validation:.1f}", "yes" if one is best else "")
        table.add_section()
    Console().print(table)
