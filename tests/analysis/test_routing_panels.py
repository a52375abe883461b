"""Which parts and heads of a routing get a heat map."""

from __future__ import annotations

import numpy as np
import pytest

from mhrctl.analysis.heatmaps import Panel
from mhrctl.analysis.routing_measures import Inspection, Routing
from mhrctl.analysis.routing_panels import panels

NAMES = [f"{coder}.block.{block}.layer.0.SelfAttention.q" for coder in ("encoder", "decoder") for block in (0, 1, 2)]


@pytest.fixture
def routing() -> Routing:
    """Five tasks, two heads, four skills."""
    drawn = np.random.default_rng(0)
    return Routing(tuple("abcde"), {name: drawn.normal(scale=2, size=(5, 2, 4)) for name in NAMES})


def test_a_choice_of_layers_and_heads_is_kept_to(routing: Routing) -> None:
    measured = Inspection.of(routing)

    def chosen(layers: list[str], heads: list[int]) -> list[Panel]:
        return panels(routing, measured, layers, heads)

    assert [panel.title for panel in chosen(NAMES[4:2:-1], [])] == ["decoder 1 self-attention q", "decoder 0 self-attention q"]
    (one,) = chosen([NAMES[1], NAMES[1]], [2])
    assert one.title == "encoder 1 self-attention q, head 2"
    np.testing.assert_array_equal(one.values, routing.weights(NAMES[1])[:, 1:])
    (both,) = chosen([NAMES[1]], [2, 1])
    np.testing.assert_array_equal(both.values, routing.weights(NAMES[1])[:, ::-1])
    assert list(both.heads) == [2, 1]
    assert {panel.values.shape for panel in chosen([], [1])} == {(5, 1, 4)}


def test_without_a_choice_there_are_summaries_and_the_extremes(routing: Routing) -> None:
    measured = Inspection.of(routing)
    bits = {layer: measures.discreteness for layer, measures in measured.parts.items()}
    expected = []
    for coder, layers in (("encoder", NAMES[:3]), ("decoder", NAMES[3:])):
        ends = (min(layers, key=bits.__getitem__), max(layers, key=bits.__getitem__))
        most, least = (f"{coder} {layer.split('.')[2]} self-attention q" for layer in ends)
        expected += [f"{coder}: mean of layers and heads", f"most decided: {most}", f"least decided: {least}"]
    shown = panels(routing, measured)
    assert [panel.title for panel in shown] == expected  # each half beside its summary
    encoder = np.mean([-np.sort(-routing.weights(layer)) for layer in NAMES[:3]], axis=(0, 2))
    np.testing.assert_allclose(shown[0].values[:, 0], encoder)
    np.testing.assert_allclose(shown[0].values.sum(-1), 1)


def test_a_routing_of_the_whole_model_is_one_summary_and_one_part() -> None:
    routing = Routing(("a", "b"), {"model": np.random.default_rng(0).normal(size=(2, 1, 4))})
    assert [panel.title for panel in panels(routing, Inspection.of(routing))] == [
        "model: mean of layers and heads",
        "model",
    ]


def test_a_model_without_encoder_is_one_summary() -> None:
    """Names of OPT, which have `decoder` in them, as of any other."""
    for stem in ("model.layers", "model.decoder.layers"):
        names = [f"{stem}.{block}.self_attn.k_proj" for block in range(3)]
        drawn = np.random.default_rng(0)
        routing = Routing(("a", "b"), {name: drawn.normal(scale=2, size=(2, 1, 4)) for name in names})
        shown = panels(routing, Inspection.of(routing))
        assert [panel.title for panel in shown][:1] == ["model: mean of layers and heads"]
        assert [panel.title.partition(":")[0] for panel in shown[1:]] == ["most decided", "least decided"]
        assert Inspection.of(routing).of_coder("decoder") is None
        assert Inspection.of(routing).of_coder("encoder") is None
