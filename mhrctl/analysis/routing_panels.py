"""Parts and heads of a routing are chosen that are worth a heat map by skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mhrctl.adapters.granularity import MODEL, by_coder
from mhrctl.analysis.heatmaps import Panel
from mhrctl.analysis.layer_names import readable_names
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
    names = readable_names(list(routing.logits))
    numbers = list(dict.fromkeys(heads)) or list(range(1, routing.heads + 1))
    if parts:
        return [_panel(routing, part, names[part], numbers) for part in dict.fromkeys(parts)]
    bits = {part: measures.discreteness for part, measures in measured.parts.items()}
    chosen = []
    for half, within in _halves(list(routing.logits)).items():
        chosen += [] if heads else [_summary(routing, half, within)]
        chosen += [_panel(routing, part, remark + names[part], numbers) for part, remark in _notable(within, bits).items()]
    return chosen


def _panel(routing: Routing, part: str, title: str, numbers: Sequence[int]) -> Panel:
    """A panel of a part's heads with these numbers."""
    of_one = f", head {numbers[0]}" if len(numbers) == 1 < routing.heads else ""
    label = f"head ({routing.skills} skills each)" if len(numbers) > 1 else "skill"
    return Panel(title + of_one, routing.weights(part)[:, [number - 1 for number in numbers]], numbers, label)


def _summary(routing: Routing, half: str, parts: Sequence[str]) -> Panel:
    ordered = [np.sort(routing.weights(part), -1)[..., ::-1].mean(1, keepdims=True) for part in parts]
    return Panel(f"{half}: mean of layers and heads", np.mean(ordered, axis=0), (), "skill, strongest first")


def _notable(parts: Sequence[str], bits: Mapping[str, float]) -> dict[str, str]:
    """{part: what is notable of it}; of a single part nothing is."""
    if len(parts) == 1:
        return {parts[0]: ""}
    remarks = {min(parts, key=bits.__getitem__): "most decided: "}
    remarks.setdefault(max(parts, key=bits.__getitem__), "least decided: ")
    return remarks


def _halves(parts: Sequence[str]) -> dict[str, list[str]]:
    """The parts of encoder and of decoder, or all of them as the model's where neither has a part to itself."""
    return by_coder(parts) or {MODEL: list(parts)}
