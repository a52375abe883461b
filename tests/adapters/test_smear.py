"""SMEAR against its formula written out plainly, and the prompts that it reads, on both kinds of backbone."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, T5ForConditionalGeneration

from mhrctl.adapters.adapter import trainable
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.smear import SMEAR
from mhrctl.data.batches import Ragged
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.speed import Speed
from tests.adapters.test_inventory import randomised
from tests.models.families import decoder

SHAPES = {"a.q": (6, 6), "a.v": (6, 4), "b.q": (6, 6)}
INPUTS = [[3, 4, 5, 6], [7, 8], [9, 10, 11]]
TARGETS = [[11, 12, 1], [13, 1], [16, 17, 18, 1]]


def smear(shapes: Any = SHAPES, *, experts: int = 3, runs: int = 1, dropout: float = 0.0) -> SMEAR:
    torch.manual_seed(0)
    config = InventoryConfig(skills=experts, rank=2, alpha=4.0)
    made = SMEAR(shapes, config, expert_dropout=dropout, runs=runs)
    randomised(made)
    return made


def means_of(rows: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(rows, d_in) for name, (d_in, _) in SHAPES.items()}


def rows(of: list[list[int]]) -> Ragged:
    return Ragged(torch.tensor([token for row in of for token in row]), tuple(map(len, of)))


def model_of(kind: str, tiny_t5: T5ForConditionalGeneration, **of_smear: Any) -> AdaptedModel:
    backbone: PreTrainedModel = tiny_t5 if kind == "t5" else deepcopy(decoder("llama"))
    setattr(backbone, PACKS, kind == "packed")
    backbone.requires_grad_(requires_grad=False)
    return AdaptedModel(backbone, smear(inject(backbone, "full"), **of_smear)).eval()


KINDS = pytest.mark.parametrize("kind", ["t5", "packed", "padded"])


@pytest.mark.parametrize("runs", [1, 2])
def test_slots_are_the_averages_of_parameters(runs: int) -> None:
    adapter, means = smear(runs=runs), means_of(4)
    slots = adapter.of_prompts(means)
    for stack, (shape, names) in enumerate(adapter.stacks.items()):
        for place, name in enumerate(names):
            for row in range(4):
                run = row * runs // 4
                a, b, router = (bank[stack][run, place] for bank in (adapter.lora_A, adapter.lora_B, adapter.router))
                read = means[name][row]
                normed = (read - read.mean()) / (read.var(unbiased=False) + 1e-5).sqrt()
                p = torch.softmax(router @ normed, 0)
                mean_a, mean_b = (sum(p[e] * bank[0, e] for e in range(3)) for bank in (a, b))
                torch.testing.assert_close(slots[f"{name}.down"][row], mean_a.T, msg=str(shape))
                torch.testing.assert_close(slots[f"{name}.up"][row], mean_b * 4.0 / 2)


def test_gradients_reach_routers_and_experts() -> None:
    adapter = smear()
    sum(slot.square().sum() for slot in adapter.of_prompts(means_of(2)).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.parameters())


def test_new_experts_differ_and_change_nothing() -> None:
    new = SMEAR(SHAPES, InventoryConfig(skills=3, rank=2), expert_dropout=0.1)
    assert not any(bank.any() for bank in new.lora_B)
    assert not torch.equal(new.lora_A[0][:, :, :, 0], new.lora_A[0][:, :, :, 1])
    assert trainable(new.parameters()) == sum(3 * (2 * d_in + 2 * d_out + d_in) for d_in, d_out in SHAPES.values())
    assert (new.routes_by, new.foldable, new.averageable, new.token_routing) == ("input", False, False, None)
    assert (new.routing_parameters(), new.mixing(torch.zeros(1, 1))) == ([], {})
    assert new.average() is new.like_average() is new.composed() is new
    with pytest.raises(TypeError, match="composed of prompts, not of tasks"):
        new()


def test_one_expert_is_that_lora() -> None:
    adapter = smear(experts=1, dropout=0.9).train()
    lora = Inventory(SHAPES, InventoryConfig(rank=2, alpha=4.0))
    for to, of in zip(lora.banks(), [*adapter.lora_A, *adapter.lora_B], strict=True):
        to.data.copy_(of)
    for name, slot in adapter.of_prompts(means_of(3)).items():
        assert torch.equal(slot, lora()[name].expand_as(slot))


def test_experts_are_left_out_while_training_but_never_all() -> None:
    adapter, means = smear(dropout=0.5), means_of(200)
    whole = adapter.eval().weights(means)
    assert torch.equal(whole, adapter.weights(means))
    p = adapter.train().weights(means)
    there = p > 0
    torch.testing.assert_close(p, torch.where(there, whole, 0) / torch.where(there, whole, 0).sum(-1, keepdim=True))
    kept = there.float().mean().item()
    assert abs(kept - (0.5 + 0.5**3)) < 0.05  # a draw that leaves out all leaves out none
    adapter.expert_dropout = 0.0
    assert torch.equal(adapter.weights(means), whole)


def test_every_new_task_has_experts_and_routers_of_its_own() -> None:
    before = smear(dropout=0.2)
    after = before.for_new_tasks([1, 2], train_skills=True)
    assert isinstance(after, SMEAR)
    assert (after.runs, after.expert_dropout) == (2, 0.2)
    assert all(parameter.requires_grad for parameter in after.parameters())
    with torch.no_grad():
        after.router[0][1].zero_()
    slots, means = after.eval().of_prompts(means_of(4)), means_of(4)
    of_old = before.eval().of_prompts(means)
    alone = after.select([1]).eval().of_prompts({name: mean[2:] for name, mean in means.items()})
    for name, slot in slots.items():
        torch.testing.assert_close(slot[:2], of_old[name][:2])
        torch.testing.assert_close(slot[2:], alone[name])
    assert not torch.allclose(slots["a.q.down"][2:], of_old["a.q.down"][2:])


def test_files_keep_all_of_it(tmp_path: Path) -> None:
    adapter, path = smear(runs=2, dropout=0.3), tmp_path / "adapters.safetensors"
    save_adapter(adapter, path)
    again = load_adapter(path)
    assert isinstance(again, SMEAR)
    assert again.settings() == adapter.settings()
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_layer_that_reads_some_tokens_alone_is_refused() -> None:
    means = means_of(2)
    del means["a.v"]
    with pytest.raises(ParamsError, match=r"^targets: smear needs layers that read every token of a prompt; leave out a\.v$"):
        smear().of_prompts(means)


def test_others_are_not_routed_by_prompts() -> None:
    with pytest.raises(TypeError, match="lora: adapters of this kind are not routed by prompts"):
        Inventory(SHAPES).of_prompts(means_of(1))


def read_of(model: AdaptedModel, inputs: list[list[int]], targets: list[list[int]]) -> dict[str, Tensor]:
    """What the adapter is given while losses are made."""
    assert isinstance(model.adapter, SMEAR)
    given: list[Mapping[str, Tensor]] = []
    compose = SMEAR.of_prompts

    def of_prompts(adapter: SMEAR, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given.append(means)
        return compose(adapter, means)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SMEAR, "of_prompts", of_prompts)
        model(None, rows(inputs), rows(targets))
    (means,) = given
    assert means.keys() == model.adapter.shapes.keys()
    return dict(means)


@KINDS
def test_the_prompt_alone_is_read(kind: str, tiny_t5: T5ForConditionalGeneration) -> None:
    """Neither targets, nor their number, nor other rows, nor dropout, nor what is trained change it."""
    model = model_of(kind, tiny_t5)
    for module in model.backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    means = read_of(model, INPUTS, TARGETS)
    choices = [target for target in TARGETS for _ in range(2)]
    others = [read_of(model, INPUTS, TARGETS[::-1]), read_of(model, INPUTS, choices), read_of(model.train(), INPUTS, TARGETS)]
    assert model.backbone.training
    for row, prompt in enumerate(INPUTS):
        for layer, alone in read_of(model, [prompt], [[20, 1]]).items():
            torch.testing.assert_close(means[layer][row, None], alone, rtol=1e-5, atol=1e-5, msg=layer)
    randomised(model.adapter)  # type: ignore[arg-type]
    for other in (*others, read_of(model, INPUTS, TARGETS)):
        for layer, mean in other.items():
            assert torch.equal(means[layer], mean), layer
            assert not mean.requires_grad


def test_a_prompt_is_read_as_by_the_backbone_itself(tiny_t5: T5ForConditionalGeneration) -> None:
    """The encoder's layers at its tokens; the decoder's at the token that it starts with, or at the encoder's states."""
    plain, read = deepcopy(tiny_t5).eval(), dict[str, Tensor]()
    model = model_of("t5", tiny_t5)
    assert model.adapter is not None
    for name in model.adapter.shapes:
        plain.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
    start = torch.tensor([[plain.config.decoder_start_token_id]])
    plain(input_ids=torch.tensor(INPUTS[:1]), decoder_input_ids=start)
    for name, mean in read_of(model, INPUTS, TARGETS).items():
        torch.testing.assert_close(mean[:1], read[name].mean(1), rtol=1e-5, atol=1e-5)


@KINDS
def test_each_row_of_a_batch_has_its_losses_and_answers_alone(kind: str, tiny_t5: T5ForConditionalGeneration) -> None:
    model = model_of(kind, tiny_t5, runs=3)
    assert model.adapter is not None
    losses = model(None, rows(INPUTS), rows(TARGETS))
    assert model.greedy(None) is None
    options: Any = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    answers = model.generate(None, rows(INPUTS), **options)
    for run, (prompt, target) in enumerate(zip(INPUTS, TARGETS, strict=True)):
        alone = AdaptedModel(model.backbone, model.adapter.select([run])).eval()
        torch.testing.assert_close(losses[run, None, : len(target)], alone(None, rows([prompt]), rows([target])))
        answer = alone.generate(None, rows([prompt]), **options)
        assert answers[run, : answer.shape[1]].tolist() == answer[0].tolist()


def test_the_forward_of_our_own_and_packing_change_nothing(tiny_t5: T5ForConditionalGeneration) -> None:
    model = model_of("t5", tiny_t5)
    assert model.kind.fast is not None  # type: ignore[attr-defined]
    plain = AdaptedModel(tiny_t5, model.adapter, speed=Speed(forward=False)).eval()
    torch.testing.assert_close(model(None, rows(INPUTS), rows(TARGETS)), plain(None, rows(INPUTS), rows(TARGETS)))
    packed = model_of("packed", tiny_t5)
    padded = model_of("padded", tiny_t5)
    torch.testing.assert_close(packed(None, rows(INPUTS), rows(TARGETS)), padded(None, rows(INPUTS), rows(TARGETS)))


@KINDS
def test_it_learns_where_its_prompts_are_read(kind: str, tiny_t5: T5ForConditionalGeneration) -> None:
    model = model_of(kind, tiny_t5, dropout=0.1).train()
    model(None, rows(INPUTS), rows(TARGETS)).sum().backward()
    assert model.adapter is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.adapter.parameters())
