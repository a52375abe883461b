"""Gradient alignment against gradients of the inventory's own parameters, taken by autograd one task at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5ForConditionalGeneration,
)

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.analysis.alignment import gradient_alignment, require_shared, task_batches, why_unshared
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import PretrainParams
from mhrctl.data.batches import Batch
from mhrctl.data.examples import Examples
from mhrctl.errors import DataError, DivergedError, ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import new_adapter
from mhrctl.models.speed import Speed
from tests.models.made import ragged

TASKS = 4
TRAINING = "data/prepare/training_tasks.parquet"
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CELLS: list[tuple[str, int, dict[str, Any]]] = [
    ("lora", 1, {"alpha": 3.0, "rank": 2}),
    ("ia3", 1, {"targets": "light"}),
    ("random_mu", 1, {}),
    ("poly", 1, {}),
    ("poly", 1, {"granularity": "coder", "rank": 2}),
    ("mhr", 2, {"alpha": 2.0, "rank": 4}),
    ("mhr", 4, {"relaxed_bernoulli": True, "dropout": 0.5}),
    ("mhr", 4, {"granularity": "sublayer"}),
    ("mhr", 2, {"granularity": "model", "targets": ["q", "wi_1"]}),
]


def moved(backbone: PreTrainedModel, method: str, heads: int, settings: Mapping[str, Any]) -> AdaptedModel:
    """A model whose adapter has left its start: B is not 0, and tasks are routed differently."""
    params = PretrainParams(steps=1, batch_size=1, skills=3, **settings)
    adapter = new_adapter(backbone, METHODS[method], params, heads=heads, seed=0, tasks=TASKS)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.skill_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for parameter in adapter.routing_parameters():
            parameter.copy_(torch.randn_like(parameter) * 2)
    return AdaptedModel(backbone, adapter)


def batch_of(task: int, *, seed: int | None = None) -> Batch:
    """Three examples of a task, of unequal lengths."""
    random = torch.Generator().manual_seed(task if seed is None else seed)
    ids, labels = (torch.randint(3, 60, (3, length), generator=random) for length in (7, 4))
    mask = torch.ones_like(ids)
    mask[1, 5:], labels[2, 2:] = 0, -100
    ones = torch.ones(3, dtype=torch.long)
    return Batch(torch.tensor([[task]]), ragged(ids, mask), ragged(labels, labels >= 0), ones, ones * 0)


def some_batches(tasks: int = TASKS) -> dict[str, Batch]:
    return {f"task {task}": batch_of(task) for task in range(tasks)}


def plain_gradients(model: AdaptedModel, adapter: Inventory | Scales, batch: Batch) -> dict[str, Tensor]:
    """{layer: the gradient of the mean token loss on all skills of all heads, as one vector}, straight from autograd."""
    adapted = AdaptedModel(model.backbone, adapter).eval()
    logits = adapted(batch.task_ids, batch.inputs, batch.targets, with_logits=True)
    loss = F.cross_entropy(logits.flatten(0, 1).float(), batch.labels.flatten())
    gradients = torch.autograd.grad(loss, adapter.skill_parameters())
    vectors: dict[str, Tensor] = {}
    for number, names in enumerate(adapter.stacks.values()):
        banks = gradients[number :: len(adapter.stacks)]  # of this shape: A and B, or (IA)3's vectors
        for place, name in enumerate(names):
            vectors[name] = torch.cat([bank[:, place].flatten() for bank in banks])
    return {name: vectors[name] for name in adapter.shapes}


def composed_for(adapter: Inventory | Scales, task: int) -> Inventory | Scales:
    """What a task has, as a plain LoRA: A^t and B^t mixed skill by skill and block by block."""
    if isinstance(adapter, Scales):
        return adapter
    adapter.eval()
    plain = Inventory(adapter.shapes, InventoryConfig(rank=adapter.rank, alpha=adapter.alpha))
    weights = torch.ones(len(adapter.layers), adapter.heads, 1)
    if adapter.skills > 1:
        weights = adapter.routing_weights(torch.tensor([[task]]))[0, 0].detach()
    start = 0
    for number, names in enumerate(adapter.stacks.values()):
        for place in range(len(names)):
            a, b = adapter.lora_A[number][0, place].detach(), adapter.lora_B[number][0, place].detach()
            mixed = [
                [sum(weights[start + place, h, k] * bank[h, k] for k in range(adapter.skills)) for h in range(adapter.heads)]
                for bank in (a, b)
            ]
            with torch.no_grad():
                plain.lora_A[number][0, place, 0, 0] = torch.cat(mixed[0], 0)
                plain.lora_B[number][0, place, 0, 0] = torch.cat(mixed[1], 1)
        start += len(names)
    return plain


def mean_cosine(by_task: Sequence[Mapping[str, Tensor]], layers: Sequence[str]) -> float:
    vectors = [torch.cat([by_layer[layer] for layer in layers]) for by_layer in by_task]
    pairs = list(itertools.combinations(vectors, 2))
    return sum(F.cosine_similarity(one, other, dim=0).item() for one, other in pairs) / len(pairs)


def assert_agrees(agreement: Any, by_task: Sequence[Mapping[str, Tensor]], tolerance: float) -> None:
    layers = list(by_task[0])
    assert agreement.overall == pytest.approx(mean_cosine(by_task, layers), abs=tolerance)
    for coder in ("encoder", "decoder"):
        of_coder = [layer for layer in layers if layer.startswith(coder)]
        assert getattr(agreement, coder) == pytest.approx(mean_cosine(by_task, of_coder), abs=tolerance)
    assert list(agreement.layers) == layers
    for layer in layers:
        assert agreement.layers[layer] == pytest.approx(mean_cosine(by_task, [layer]), abs=tolerance)


@pytest.mark.parametrize(("method", "heads", "settings"), CELLS)
def test_it_is_the_cosine_of_plain_gradients(
    tiny_t5: T5ForConditionalGeneration, method: str, heads: int, settings: dict[str, Any]
) -> None:
    model, batches = moved(tiny_t5, method, heads, settings), some_batches()
    adapter = model.adapter
    assert isinstance(adapter, Inventory | Scales)
    shared = [plain_gradients(model, adapter, batch) for batch in batches.values()]
    composed = [plain_gradients(model, composed_for(adapter, task), batch) for task, batch in enumerate(batches.values())]
    alignment = gradient_alignment(model, batches)
    assert alignment.tasks == tuple(batches)
    assert_agrees(alignment.shared, shared, 1e-5)
    assert_agrees(alignment.composed, composed, 1e-5)
    if method in ("poly", "mhr"):
        assert abs(alignment.shared.overall - alignment.composed.overall) > 1e-3
    else:
        assert alignment.shared.overall == pytest.approx(alignment.composed.overall, abs=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(num_key_value_heads=2, intermediate_size=32, **SIZES),
        OPTConfig(ffn_dim=32, word_embed_proj_dim=16, **SIZES),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_without_encoder_has_neither_number_of_the_halves(config: PretrainedConfig) -> None:
    """Though layers of OPT are called `model.decoder...`."""
    torch.manual_seed(0)
    backbone: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model, batches = moved(backbone, "mhr", 2, {"rank": 2}), some_batches()
    assert isinstance(model.adapter, Inventory)
    gradients = [plain_gradients(model, model.adapter, batch) for batch in batches.values()]
    alignment = gradient_alignment(model, batches)
    for agreement in (alignment.shared, alignment.composed):
        assert (agreement.encoder, agreement.decoder) == (None, None)
    assert alignment.shared.overall == pytest.approx(mean_cosine(gradients, list(model.adapter.shapes)), abs=1e-5)
    assert abs(alignment.shared.overall - alignment.composed.overall) > 1e-3
    assert list(alignment.shared.layers) == list(model.adapter.shapes)


def test_a_backbone_in_bf16(tiny_t5: T5ForConditionalGeneration) -> None:
    model, batches = moved(tiny_t5, "mhr", 4, {}), some_batches()
    exact = gradient_alignment(model, batches)
    tiny_t5.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
    adapter = model.adapter
    assert isinstance(adapter, Inventory)
    assert adapter.lora_A[0].dtype == torch.float32
    in_bf16 = gradient_alignment(AdaptedModel(tiny_t5, adapter, speed=Speed(forward=False)), batches)
    shared = [plain_gradients(model, adapter, batch) for batch in batches.values()]
    assert_agrees(in_bf16.shared, shared, 1e-5)
    for measured in (in_bf16, gradient_alignment(model, batches)):
        assert measured.composed.overall == pytest.approx(exact.composed.overall, abs=0.05)


def route(adapter: Adapter | None, choose: Callable[[int], list[float]]) -> None:
    """Give every task the same logits over skills in all layers and heads."""
    assert isinstance(adapter, Inventory)
    assert adapter.routing is not None
    with torch.no_grad():
        for task in range(TASKS):
            adapter.routing[:, :, task] = torch.tensor(choose(task)).repeat(adapter.heads)


def test_tasks_with_disjoint_skills_share_no_gradient(tiny_t5: T5ForConditionalGeneration) -> None:
    model = moved(tiny_t5, "mhr", 4, {})
    route(model.adapter, lambda task: [50.0 if skill == task else -50.0 for skill in range(3)])
    alignment = gradient_alignment(model, some_batches(3))
    assert alignment.shared.overall == pytest.approx(0, abs=1e-12)
    assert abs(alignment.composed.overall) > 1e-3


def test_the_same_batch_with_the_same_routing_agrees_wholly(tiny_t5: T5ForConditionalGeneration) -> None:
    model = moved(tiny_t5, "mhr", 2, {})
    route(model.adapter, lambda _task: [0.5, -1.0, 2.0])
    alignment = gradient_alignment(model, {"one": batch_of(0), "other": batch_of(1, seed=0)})
    for of in (alignment.shared, alignment.composed):
        assert of.overall == pytest.approx(1, abs=1e-6)
        assert list(of.layers.values()) == pytest.approx([1] * len(of.layers), abs=1e-6)


def test_a_task_without_gradient_agrees_with_none(tiny_t5: T5ForConditionalGeneration) -> None:
    """Of an input of one token: whatever its query is, it attends to itself."""
    model = moved(tiny_t5, "poly", 1, {"targets": r"encoder.*SelfAttention\.q"})
    same = batch_of(0)
    short = replace(same, inputs=ragged(same.inputs.padded(0)[:, :1]))
    alignment = gradient_alignment(model, {"one": same, "other": same, "short": short})
    assert alignment.shared.overall == pytest.approx(1 / 3, abs=1e-6)
    assert alignment.composed.overall == pytest.approx(1 / 3, abs=1e-6)
    assert alignment.composed.decoder is None


def test_it_leaves_no_trace(tiny_t5: T5ForConditionalGeneration) -> None:
    model = moved(tiny_t5, "mhr", 4, {"relaxed_bernoulli": True, "dropout": 0.5}).train()
    for parameter in model.adapter.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    gradients = {name: parameter.grad.clone() for name, parameter in model.adapter.named_parameters()}
    state = torch.get_rng_state()
    first = gradient_alignment(model, some_batches())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    for name, parameter in model.adapter.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradients[name])
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    with torch.no_grad():
        assert gradient_alignment(model.eval(), some_batches()) == first
    assert not model.training


def test_one_task_is_no_alignment(tiny_t5: T5ForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="two or more tasks on one adapter"):
        gradient_alignment(moved(tiny_t5, "lora", 1, {}), some_batches(1))


def test_tasks_with_adapters_of_their_own_are_refused(tiny_t5: T5ForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="two or more tasks on one adapter"):
        gradient_alignment(moved(tiny_t5, "adapter_soup", 1, {}), some_batches())


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.pretrain == name])
def test_which_methods_share_an_adapter(method: str) -> None:
    cell = Cell(method=method)
    if method in ("full_ft", "adapter_soup", "mosa", "adamix", "mtl_lora", "c_poly", "smear"):
        with pytest.raises(ParamsError, match=f"^--here: .*{method} .*; gradient alignment is of lora, lora_big, lora_"):
            require_shared(cell, "--here")
        assert method in str(why_unshared(cell.row))
    else:
        require_shared(cell, "--here")
        assert why_unshared(cell.row) is None


@pytest.fixture
def examples(walked: Path) -> Examples:
    return Examples.read(walked / TRAINING)


def test_the_draw_is_the_seeds(examples: Examples) -> None:
    def drawn(**changed: int) -> dict[str, Batch]:
        return task_batches(examples, **{"tasks": 3, "size": 4, "seed": 0} | changed)

    batches = drawn()
    assert list(batches) == examples.tasks  # more than there are would be all
    assert list(drawn(tasks=99)) == examples.tasks
    assert [batch.task_ids.tolist() for batch in batches.values()] == [[[0]], [[1]], [[2]]]
    for name, batch in drawn(tasks=2).items():
        assert torch.equal(batch.inputs.padded(0), batches[name].inputs.padded(0))
    for name, batch in drawn(size=2).items():
        assert torch.equal(batch.labels, batches[name].labels[:2])
    others = [drawn(seed=seed) for seed in range(1, 6)]
    assert any(not torch.equal(other["copy"].inputs.padded(0), batches["copy"].inputs.padded(0)) for other in others)
    assert len({tuple(drawn(tasks=2, seed=seed)) for seed in range(9)}) == 3


def test_the_examples_are_training_examples_of_the_task(examples: Examples) -> None:
    for name, batch in task_batches(examples, tasks=3, size=99, seed=0).items():
        of_task = examples.of(tasks=[name], split="train")
        inputs = [ids.tolist() for ids in batch.inputs.tokens.split(batch.inputs.lengths)]
        assert sorted(inputs) == sorted(of_task.column("input_ids"))


def test_fewer_than_two_tasks_are_one_line(walked: Path, examples: Examples) -> None:
    with pytest.raises(ParamsError, match="of 1 task: it is between tasks; draw two or more"):
        task_batches(examples, tasks=1, size=4, seed=0)
    alone = Examples(pq.read_table(walked / TRAINING, filters=[("task", "==", "copy")]), ["copy"])
    with pytest.raises(DataError, match="only copy; gradient alignment is between tasks and needs two or more"):
        task_batches(alone, tasks=16, size=4, seed=0)


def test_a_gradient_that_is_not_finite_has_no_cosine(tiny_t5: T5ForConditionalGeneration) -> None:
    model = moved(tiny_t5, "lora", 1, {})
    assert isinstance(model.adapter, Inventory)
    with torch.no_grad():
        for bank in model.adapter.lora_B:
            bank.fill_(1e30)
    with pytest.raises(
        DivergedError, match=r"^alignment: the gradients of task 0: encoder.* and \d+ more hold NaN or infinity; "
    ):
        gradient_alignment(model, some_batches())
