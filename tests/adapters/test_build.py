"""From a row of the methods table to its adapter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mhrctl.adapters.adapter import trainable
from mhrctl.adapters.build import adapter_class, build_adapter, router_over_pool, start_of
from mhrctl.adapters.experts import Arrow, HydraLoRA
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.merging import RULES, Merge
from mhrctl.adapters.mosa import MoSA
from mhrctl.adapters.smear import SMEAR
from mhrctl.adapters.token_routing import TokenRouting
from mhrctl.config.methods import METHODS
from mhrctl.config.options import MosaOptions
from mhrctl.config.sections import PretrainParams

SHAPES = {"a.q": (8, 16), "a.v": (8, 8)}
BACKBONE = nn.Linear(4, 4)
SETTINGS = PretrainParams(
    steps=1, batch_size=1, skills=3, rank=2, alpha=4.0, relaxed_bernoulli=True, temperature=0.5, dropout=0.1
)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_row_has_an_adapter_and_a_start_of_a_single_kind(name: str) -> None:
    row = METHODS[name]
    heads = 2 if row.multi_head else 1
    pretrained = build_adapter(row, SETTINGS, SHAPES, BACKBONE, heads=heads, tasks=5)
    assert type(pretrained) is adapter_class(row)
    assert pretrained.runs == (5 if row.is_private else 1)
    assert pretrained.averageable == row.has_average
    assert pretrained.routes_by == ("task" if row.routes_tasks else row.routing if row.has_experts else "none")
    assert bool(pretrained.routing_parameters()) == row.learns_routing
    start = start_of(row, pretrained, SETTINGS, SHAPES, BACKBONE)
    assert start.runs == 1
    assert (start.routes_by == "task") == (row.routes_tasks and row.start == "pretrain")
    is_lora = row.adds_lora or row.start_stage == "average" or adapter_class(row) is Inventory
    assert (type(start) is Inventory) == (is_lora and row.router is None)
    assert any(parameter.requires_grad for parameter in start.parameters()) != (row.router is not None)


def test_settings_reach_the_inventory() -> None:
    mhr = build_adapter(METHODS["mhr"], SETTINGS, SHAPES, BACKBONE, heads=4, tasks=5)
    assert isinstance(mhr, Inventory)
    config = mhr.config
    assert (config.heads, config.skills, config.rank, config.alpha, config.dropout) == (4, 3, 2, 4.0, 0.1)
    assert (config.routing, config.temperature) == ("learned", 0.5)
    assert mhr.routing_parameters()[0].shape == (1, 2, 5, 12)
    plain = SETTINGS.model_copy(update={"relaxed_bernoulli": False})
    assert build_adapter(METHODS["poly"], plain, SHAPES, BACKBONE, heads=1, tasks=2).config.temperature is None
    assert build_adapter(METHODS["random_mu"], SETTINGS, SHAPES, BACKBONE, heads=1, tasks=2).config.routing == "random"


def test_a_matched_lora_has_as_many_numbers_as_an_inventory_and_its_scaling() -> None:
    matched = build_adapter(METHODS["lora_matched"], SETTINGS, SHAPES, BACKBONE, heads=1, tasks=5)
    poly = build_adapter(METHODS["poly"], SETTINGS, SHAPES, BACKBONE, heads=1, tasks=5)
    assert isinstance(matched, Inventory)
    assert (matched.skills, matched.rank) == (1, 6)
    assert matched.scaling == poly.scaling
    assert trainable(matched.skill_parameters()) == trainable(poly.skill_parameters())


def test_options_reach_the_method_that_has_them() -> None:
    settings = SETTINGS.model_copy(update={"options": {"copies": 2, "sparse": "full"}})
    mosa = build_adapter(METHODS["mosa"], settings, SHAPES, BACKBONE, heads=1, tasks=5)
    assert isinstance(mosa, MoSA)
    assert (mosa.copies, mosa.sparse, mosa.consistency) == (2, "full", MosaOptions().consistency)
    assert trainable(mosa.parameters()) == 2 * (8 + 16 + 8 + 8)


def test_experts_are_as_many_as_skills_and_share_what_their_class_says() -> None:
    hydra = build_adapter(METHODS["hydra_lora"], SETTINGS, SHAPES, BACKBONE, heads=1, tasks=5)
    assert isinstance(hydra, HydraLoRA)
    assert ([bank.shape[3] for bank in hydra.lora_A], [bank.shape[3] for bank in hydra.lora_B]) == ([1, 1], [3, 3])
    assert (hydra.rank, hydra.alpha, hydra.dropout) == (2, 4.0, 0.1)


def test_the_dropout_of_experts_is_the_methods_option() -> None:
    settings = SETTINGS.model_copy(update={"options": {"expert_dropout": 0.3}})
    smear = build_adapter(METHODS["smear"], settings, SHAPES, BACKBONE, heads=1, tasks=5)
    assert isinstance(smear, SMEAR)
    assert (smear.skills, smear.expert_dropout) == (3, 0.3)
    assert [bank.shape[3] for bank in (*smear.lora_A, *smear.lora_B)] == [3] * 4


def test_a_router_over_a_pool_has_an_expert_for_each_adapter() -> None:
    pool = build_adapter(METHODS["adapter_soup"], SETTINGS, SHAPES, BACKBONE, heads=1, tasks=3)
    arrow = router_over_pool(METHODS["arrow"], pool, ["a", "b", "c"], {"top_k": 2, "general": ["b"]})
    assert isinstance(arrow, Arrow)
    by_task = router_over_pool(METHODS["arrow"], pool, ["a", "b", "c"], {}, left_out=["c", "new"])
    assert isinstance(by_task, Arrow)
    assert by_task.left_out == (2, None)
    assert (arrow.skills, arrow.token_routing) == (2, TokenRouting(2, unsigned=True))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide layer"):
        build_adapter(METHODS["mhr"], SETTINGS, SHAPES, BACKBONE, heads=3, tasks=1)


def test_adapters_can_be_built_without_storage() -> None:
    with torch.device("meta"):
        for row in METHODS.values():
            adapter = build_adapter(row, SETTINGS, SHAPES, nn.Linear(4, 4), heads=1, tasks=2)
            assert all(parameter.is_meta for parameter in adapter.parameters())


def test_every_soup_has_a_rule() -> None:
    merges = {row.merge for row in METHODS.values() if row.needs_index}
    assert merges == {"mean", "search", *RULES}
    for row in METHODS.values():
        if row.merge in RULES:
            Merge(RULES[row.merge], **row.adapt_options().model_dump())
