"""A sentence says what can be said of the results: which methods are better than the baseline, or that there is too little."""

from __future__ import annotations

from collections.abc import Mapping

from mhrctl.errors import counted, listed
from mhrctl.report.aggregates import FEWEST_SEEDS, FEWEST_TASKS
from mhrctl.report.bootstrap import LEVEL
from mhrctl.report.differences import Compared, Difference, baseline_of
from mhrctl.report.results import NO_SCORES, Group, Results

MANY = 5
"""From so many comparisons on it is said what chance alone would do."""


def verdict(results: Results, compared: Compared) -> str:
    """Say what can be said of the results.

    Args:
        results: ours.
        compared: the methods, to the baseline.
    """
    baseline = baseline_of(results)
    if baseline is None:
        return "No method is adapted yet, so none can be compared." if results.cells else NO_SCORES
    if not compared:
        return f"Only {baseline.label} is adapted: there is nothing to compare it with."
    differences = {label: difference for label, difference in compared.items() if difference}
    if not differences:
        return f"No method shares a task and a seed with {baseline.label}, so none can be compared."
    judged = {label: difference for label, difference in differences.items() if difference.verdict != "too few"}
    if not judged:
        return _too_few(differences)
    sentences = [_judged(judged, baseline.label)]
    if rest := [label for label in differences if label not in judged]:
        sentences.append(f"Too few tasks or seeds to say: {listed(rest)}.")
    return " ".join(sentences)


def best(results: Results) -> list[Group]:
    """Return the method with the highest mean after adaptation, or all that share it; nothing where none is adapted."""
    scores = {group.label: score.mean for group in results.adapted if (score := group.score("adapted"))}
    return [group for group in results.adapted if scores.get(group.label) == max(scores.values())]


def best_line(results: Results, compared: Compared) -> str | None:
    """Name the method with the highest mean, its score and its difference; None where none is adapted."""
    first = best(results)
    score = first[0].score("adapted") if first else None
    if score is None:
        return None
    line = f"Highest mean: {listed([group.label for group in first])}, {results.metric_name} {score.mean:.1f}"
    difference, baseline = compared.get(first[0].label), baseline_of(results)
    if difference and baseline and len(first) == 1:
        line += f", {difference.shown_mean} over {baseline.label}{_interval(difference)}"
    return f"{line}."


def _too_few(differences: Mapping[str, Difference]) -> str:
    tasks, seeds = (max(getattr(each, name) for each in differences.values()) for name in ("tasks", "seeds"))
    few = [
        f"{counted(number, what)} of at least {least}"
        for number, what, least in ((tasks, "test task", FEWEST_TASKS), (seeds, "seed", FEWEST_SEEDS))
        if number < least
    ]
    if not few:
        return f"Too few to say which method is better: it takes {FEWEST_TASKS} test tasks and {FEWEST_SEEDS} seeds in common."
    where = " (`grid.seeds` in params.yaml)" if tasks >= FEWEST_TASKS else ""
    return f"Too few to say which method is better: {' and '.join(few)}{where}.{_so_far(differences)}"


def _so_far(differences: Mapping[str, Difference]) -> str:
    """What intervals of too few seeds look like; nothing where a method has none."""
    intervals = {label: each.interval for label, each in differences.items() if each.has_interval}
    if len(intervals) < len(differences):
        return ""
    outside = [label for label, interval in intervals.items() if not interval.low <= 0 <= interval.high]
    return f" So far 0 is outside the interval of {listed(outside)}." if outside else " So far every interval holds 0."


def _judged(judged: Compared, baseline: str) -> str:
    by_verdict: dict[str, dict[str, Difference]] = {"better": {}, "worse": {}, "open": {}}
    for label, difference in judged.items():
        if difference:
            by_verdict[difference.verdict][label] = difference
    if len(by_verdict["open"]) == len(judged):
        several = len(judged) > 1
        who = f"No method differs from {baseline}" if several else f"{next(iter(judged))} does not differ from {baseline}"
        held = "every interval holds" if several else "the interval holds"
        more = "More seeds (`grid.seeds` in params.yaml) or test tasks would narrow"
        return f"{who} beyond doubt: {held} 0. {more} {'them' if several else 'it'}."
    sentences = [
        f"{word} than {baseline} beyond doubt: {_named(by_verdict[kind])}."
        for kind, word in (("better", "Better"), ("worse", "Worse"))
        if by_verdict[kind]
    ]
    if by_verdict["open"]:
        sentences.append(f"Open: {listed(list(by_verdict['open']))}.")
    if len(judged) >= MANY:
        sentences.append(f"(One interval in {1 / (1 - LEVEL):.0f} leaves 0 out by chance alone, and these are {len(judged)}.)")
    return " ".join(sentences)


def _named(differences: Compared) -> str:
    pairs = [(label, difference) for label, difference in differences.items() if difference]
    pairs.sort(key=lambda pair: -abs(pair[1].interval.mean))
    return listed([f"{label} {difference.shown_mean}{_interval(difference)}" for label, difference in pairs])


def _interval(difference: Difference) -> str:
    return f" ({LEVEL:.0%}: {difference.ends})" if difference.has_interval else ""
