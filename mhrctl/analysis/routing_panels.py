"""Parts and heads of a routing are chosen that are worth a heat map by skill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mhrctl.adapters.granularity import MODEL, by_coder
from mhrctl.analysis.heatmaps import Panel
from mhrctl.analysis.routing_measures import Inspection, Routing


def panels(routing: Routing, measured: Inspection, parts: Sequence[str] = (), heads: Sequence[int] = ()) -> list[Panel]:
    """Choose what to draw by skill.

    Without a choice: of encoder and of decoder, or of a model without them, a summary, and the parts whose gates are the most
    and the least decided. A skill has the same number in two layers by chance only, so the summary has each task's skills of
    each layer and head in the order of their weights.

    Args:
        routing: of all tasks.
        measured: decides what is most and least decided.
        parts: of the model, such as layers, that share a routing; empty for the choice above.
        heads: from 1; empty for all.
    """
    summary = [] if parts or heads else _summaries(routing)
    remarks = dict.fromkeys(parts, "") if parts else _notable(measured)
    numbers = list(dict.fromkeys(heads)) or list(range(1, routing.heads + 1))
    chosen = []
    for part, remark in remarks.items():
        title = f"{remark}{part}" + (f", head {numbers[0]}" if len(numbers) == 1 < routing.heads else "")
        label = f"head ({routing.skills} skills each)" if len(numbers) > 1 else "skill"
        chosen.append(Panel(title, routing.weights(part)[:, [number - 1 for number in numbers]], numbers, label))
    return summary + chosen


def _summaries(routing: Routing) -> list[Panel]:
    summaries = []
    for coder, parts in _halves(list(routing.logits)).items():
        ordered = [np.sort(routing.weights(part), -1)[..., ::-1].mean(1, keepdims=True) for part in parts]
        title = f"{coder}: mean of layers and heads"
        summaries.append(Panel(title, np.mean(ordered, axis=0), (), "skill, strongest first"))
    return summaries


def _notable(measured: Inspection) -> dict[str, str]:
    """{part: what is notable of it}."""
    bits = {part: measures.discreteness for part, measures in measured.parts.items()}
    remarks: dict[str, str] = {}
    for parts in _halves(list(bits)).values():
        several = len(parts) > 1
        # Of a single part the first remark stays, which says nothing.
        remarks.setdefault(min(parts, key=bits.__getitem__), "most decided: " if several else "")
        remarks.setdefault(max(parts, key=bits.__getitem__), "least decided: ")
    return remarks


def _halves(parts: Sequence[str]) -> dict[str, list[str]]:
    """The parts of encoder and of decoder, or all of them as the model's where neither has a part to itself."""
    return by_coder(parts) or {MODEL: list(parts)}
