"""A layout names the layers to adapt by what they do, whatever a family of models calls them.

full        all linear layers but the output layer and the routers of experts
light       keys, values, and the layer that widens in the feed-forward: the paper's k, v, wi_1
attention   all linear layers of attention: queries, keys, values and outputs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mhrctl.errors import ParamsError

if TYPE_CHECKING:  # `mhrctl check` looks at a T5 without transformers, which takes seconds to import
    from transformers import PretrainedConfig

OUTPUTS = ("lm_head", "embed_out")
"""Output layers, and what they may be made of (T5Gemma's `lm_head.out_proj`)."""
ROUTERS = ("gate", "router", "shared_expert_gate", "modality_router", "prediction_coefs", "correction_coefs")
"""Last names of what sends tokens to experts, where it is a linear layer, or mixes Gemma 3n's streams."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configs call the number of experts of a layer."""
KEYS, VALUES = ("k", "k_proj"), ("v", "v_proj")
WIDENING = ("wi_1", "wi", "up_proj", "fc1", "fc_in", "c_fc")
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
"""In the name of a layer's parent: SelfAttention, EncDecAttention, self_attn, encoder_attn, attn, attention."""


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_attention(name: str) -> bool:
    return _ATTENTION.search(name.rpartition(".")[0].rpartition(".")[2]) is not None


def _is_of_blocks(name: str) -> bool:
    return set(OUTPUTS).isdisjoint(name.split(".")) and _last(name) not in ROUTERS


def _is_light(name: str) -> bool:
    return _last(name) in (*KEYS, *VALUES, *WIDENING) and (_last(name) in WIDENING or _is_attention(name))


LAYOUTS: dict[str, Callable[[str], bool]] = {
    "full": _is_of_blocks,
    "light": _is_light,
    "attention": _is_attention,
}
"""{layout: whether it has a layer of a name}."""


def layers_of(layout: str, linears: Iterable[str]) -> list[str]:
    """Return the linear layers of a layout, in their order.

    Args:
        layout: of `LAYOUTS`.
        linears: names of all linear layers of a model.

    Raises:
        ParamsError: if the model has no layers of a part of the layout: no keys or values of their own, or no feed-forward.
    """
    names = list(linears)
    chosen = [name for name in names if LAYOUTS[layout](name)]
    last = {_last(name) for name in chosen}
    parts = (KEYS, VALUES, WIDENING) if layout == "light" else ()
    if not chosen or any(last.isdisjoint(part) for part in parts):
        there = ", ".join(sorted({_last(name) for name in names}))
        what = "keys, values and a widening layer of their own" if parts else "such linear layers"
        raise ParamsError(f"targets: layout {layout}: this model does not have {what}; name layers (there are: {there})")
    return chosen


def unreachable_experts(config: PretrainedConfig, linears: Iterable[str]) -> int:
    """Return how many experts a layer of a mixture has, if their weights are no linear layers, as mostly; else 0.

    Args:
        config: of the model.
        linears: names of all its linear layers.
    """
    of_text = config.get_text_config()
    experts = max(getattr(of_text, name, None) or 0 for name in EXPERTS)
    return experts if experts > 1 and not any("experts" in name.split(".") for name in linears) else 0


def require_experts(targets: str | Sequence[str], experts: int) -> None:
    """Check that a layout does not pass over the experts of a mixture.

    Args:
        targets: a layout; or names or an expression, by which anything may be left out.
        experts: of a layer, that no adapter can reach.

    Raises:
        ParamsError: if it does.
    """
    if experts and targets in ("full", "light"):
        raise ParamsError(
            f"targets: layout {targets}: the {experts} experts of a layer are no linear layers, so they would be left out;"
            " set targets: attention"
        )


def layout_name(layers: Iterable[str], linears: Iterable[str]) -> str:
    """Return the layout that some layers of a model are, the narrowest where two are the same, or `other`."""
    chosen, names = set(layers), list(linears)
    return next(
        (layout for layout, has in reversed(LAYOUTS.items()) if chosen == {name for name in names if has(name)}), "other"
    )
