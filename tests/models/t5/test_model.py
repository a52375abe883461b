"""The fast forward against transformers' model with the same adapters attached."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.scales import Scales
from mhrctl.data.batches import IGNORED, Ragged
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.encoder_decoder import shift_right
from mhrctl.models.losses import token_losses
from mhrctl.models.speed import Speed
from mhrctl.models.t5.model import FastT5, Lengths, unsupported_reason
from mhrctl.models.t5.packing import Packing
from tests.models.made import not_compiled, ragged

INPUTS = [7, 40, 3, 11, 25, 1]
TARGETS = [4, 1, 9, 2, 6, 3]
CHOICES = [4, 2, 0, 5, 1, 3, 2, 2, 2, 6, 0, 0, 1, 1, 4, 3, 7, 1]


def backbone(feed_forward: str = "gated-gelu", *, tied: bool = False, dropout: float = 0.0, size: int = 32) -> Any:
    """A T5 of two layers each, in which every weight, norms and positions too, makes a difference."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=50,
        d_model=size,
        d_kv=12,
        d_ff=2 * size,
        num_layers=2,
        num_heads=3,
        feed_forward_proj=feed_forward,
        dropout_rate=dropout,
    )
    config.scale_decoder_outputs, config.decoder_start_token_id = tied, 0
    model = T5ForConditionalGeneration(config)
    if not tied:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) / 4)
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        if "relative" in name:
            nn.init.normal_(parameter)
    return model.eval()


def adapter_of(
    shapes: Mapping[str, tuple[int, int]], *, heads: int = 1, rank: int = 1, runs: int = 1, skills: int = 2
) -> Inventory:
    inventory = Inventory(shapes, InventoryConfig(heads=heads, rank=rank, skills=skills), runs=runs, tasks=4).eval()
    for parameter in inventory.parameters():
        nn.init.normal_(parameter, std=0.2)
    return inventory


@dataclass
class Batch:
    """Tensors of a batch, and weights of its token losses."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    task_ids: Tensor
    weights: Tensor
    label_smoothing: float = 0.0

    @property
    def decoder_input_ids(self) -> Tensor:
        return shift_right(self.labels, start=0, pad=0)

    @property
    def rows(self) -> tuple[Ragged, Ragged]:
        """Inputs and targets, these whole, as a label that is not counted may lie between others."""
        return ragged(self.input_ids, self.attention_mask), ragged(self.labels)


def batch_of(task_ids: list[list[int]], *, inputs: list[int] = INPUTS, targets: list[int] = TARGETS, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(inputs)) < torch.tensor(inputs)[:, None]).long()
    real = torch.arange(max(targets)) < torch.tensor(targets)[:, None]
    labels = torch.randint(2, 50, real.shape, generator=generator).masked_fill(~real, IGNORED)
    ids = torch.randint(2, 50, mask.shape, generator=generator) * mask
    return Batch(ids, mask, labels, torch.tensor(task_ids), torch.rand(real.shape, generator=generator))


class Given(nn.Module):
    """An adapter whose slots are tensors of the test."""

    replaces_weights, routes_by, token_routing = False, "none", None

    def __init__(self, slots: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.slots = slots

    def forward(self, _task_ids: Tensor) -> Mapping[str, Tensor]:
        return self.slots


Losses = Callable[[Any, Mapping[str, Tensor], Batch], Tensor]


def by_transformers(model: Any, slots: Mapping[str, Tensor], batch: Batch) -> Tensor:
    adapted = AdaptedModel(model, Given(slots), speed=Speed(forward=False))  # type: ignore[arg-type]
    logits = adapted(batch.task_ids, *batch.rows, with_logits=True)
    return token_losses(logits, batch.labels, label_smoothing=batch.label_smoothing)


def by_us(
    model: Any,
    slots: Mapping[str, Tensor],
    batch: Batch,
    *,
    packed: bool | None = True,
    lengths: Lengths | None = None,
    **options: bool,
) -> Tensor:
    return FastT5(model, packed=packed, **options).token_losses(
        slots,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=batch.decoder_input_ids,
        labels=batch.labels,
        label_smoothing=batch.label_smoothing,
        lengths=lengths,
    )


def padded(model: Any, slots: Mapping[str, Tensor], batch: Batch) -> Tensor:
    return by_us(model, slots, batch, packed=False)


def losses_and_gradients(losses: Losses, model: Any, adapter: Adapter, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    slots = {name: slot.detach().requires_grad_() for name, slot in adapter(batch.task_ids).items()}
    computed = losses(model, slots, batch)
    (computed * batch.weights).sum().backward()
    return computed.detach(), {name: slot.grad for name, slot in slots.items() if slot.grad is not None}


def assert_equal(model: Any, adapter: Adapter, batch: Batch) -> None:
    expected, gradients = losses_and_gradients(by_transformers, model, adapter, batch)
    assert len(gradients) == len(adapter(batch.task_ids))
    for ours in (by_us, padded):
        losses, actual = losses_and_gradients(ours, model, adapter, batch)
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
        for name, gradient in gradients.items():
            error = (actual[name] - gradient).norm() / gradient.norm()
            assert error < 1e-4, f"{ours.__name__} {name} {error}"


ROWS = [[0, 1, 2, 3, 0, 1]]
HALVES = [[0, 3]]
ONE = [[2]]


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
@pytest.mark.parametrize("tied", [False, True])
def test_models(feed_forward: str, tied: bool) -> None:
    model = backbone(feed_forward, tied=tied)
    assert_equal(model, adapter_of(inject(model, ".*(q|k|v|o|wi|wi_0|wi_1|wo)")), batch_of(ROWS))


@pytest.mark.parametrize("task_ids", [ROWS, HALVES, ONE], ids=["rows", "parts", "one"])
@pytest.mark.parametrize(("heads", "rank"), [(1, 4), (4, 1)])
def test_groups(task_ids: list[list[int]], heads: int, rank: int) -> None:
    model = backbone()
    assert_equal(model, adapter_of(inject(model, "full"), heads=heads, rank=rank), batch_of(task_ids))


@pytest.mark.parametrize("runs", [1, 3])
def test_runs(runs: int) -> None:
    model = backbone()
    assert_equal(model, adapter_of(inject(model, "full"), runs=runs, skills=1, rank=2), batch_of([[0]] * runs))


@pytest.mark.parametrize("task_ids", [ROWS, HALVES, ONE], ids=["rows", "parts", "one"])
def test_choices_some_of_which_are_absent(task_ids: list[list[int]]) -> None:
    model = backbone()
    assert_equal(model, adapter_of(inject(model, "full")), batch_of(task_ids, targets=CHOICES))


def test_padding_is_left_out_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone().requires_grad_(requires_grad=False)
    kept: list[bool] = []
    of = Packing.of

    def spy(*sizes: Any, packed: bool, **options: Any) -> Packing:
        kept.append(not packed)
        return of(*sizes, packed=packed, **options)

    monkeypatch.setattr(Packing, "of", spy)
    for width in (10, 3000):
        by_us(model, {}, batch_of([[0, 1]], inputs=[2, width], targets=[1, 1]), packed=None)
    assert kept == [True, False]


def test_lengths_that_are_known() -> None:
    model = backbone().requires_grad_(requires_grad=False)
    batch = batch_of(ROWS)
    assert torch.equal(by_us(model, {}, batch, lengths=(INPUTS, TARGETS)), by_us(model, {}, batch))


def test_rows_of_one_length() -> None:
    model = backbone()
    assert_equal(model, adapter_of(inject(model, "full")), batch_of(HALVES, inputs=[9] * 6, targets=[4] * 6))


def test_long_rows() -> None:
    """Each row in an attention of its own, and low-rank products group by group."""
    model = backbone(size=64)
    batch = batch_of([[0, 1, 2, 3]], inputs=[400, 10, 170, 3], targets=[1, 90, 2, 30])
    assert_equal(model, adapter_of(inject(model, "full"), rank=4), batch)


def test_label_smoothing() -> None:
    model = backbone()
    assert_equal(model, adapter_of(inject(model, "full")), replace(batch_of(ROWS), label_smoothing=0.2))


def test_a_label_that_is_not_counted_between_others() -> None:
    model = backbone()
    batch = batch_of(ROWS)
    batch.labels[2, 4] = IGNORED
    assert_equal(model, adapter_of(inject(model, "full")), batch)


@pytest.mark.parametrize("targets", ["light", ["decoder.block.1.layer.2.DenseReluDense.wo"], ["o"]])
def test_some_layers(targets: str | list[str]) -> None:
    model = backbone()
    assert_equal(model, adapter_of(inject(model, targets)), batch_of(HALVES))


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("targets", ["light", "full"])
def test_scales(runs: int, targets: str) -> None:
    model = backbone()
    scales = Scales(inject(model, targets), runs=runs)
    for vector in scales.vectors:
        nn.init.uniform_(vector, 0.5, 1.5)
    assert_equal(model, scales, batch_of([[0]] * runs))


def test_no_adapters() -> None:
    model = backbone().requires_grad_(requires_grad=False)
    batch = batch_of(ROWS)
    expected = by_transformers(model, {}, batch)
    for ours in (by_us, padded):
        torch.testing.assert_close(ours(model, {}, batch), expected, rtol=1e-5, atol=1e-5)


def test_bf16_is_as_near_to_fp32_as_transformers_is() -> None:
    errors: dict[str, list[float]] = {}
    adapters = adapter_of(inject(backbone(), "full"))
    for losses in (by_transformers, by_us, padded):
        for seed in range(3):
            model = backbone()
            inject(model, "full")
            batch = batch_of(ROWS, seed=seed)
            exact, gradients = losses_and_gradients(by_transformers, model, adapters, batch)
            rounded, rounded_gradients = losses_and_gradients(losses, model.bfloat16(), adapters, batch)
            assert {gradient.dtype for gradient in rounded_gradients.values()} == {torch.float32}
            assert rounded.dtype == torch.float32
            error = torch.stack([(rounded_gradients[name] - gradient).norm() for name, gradient in gradients.items()]).norm()
            errors.setdefault(losses.__name__, []).append(float((rounded - exact).norm()))
            errors.setdefault(losses.__name__ + " gradients", []).append(float(error))
    for kind in ("", " gradients"):
        limit = 1.5 * sum(errors["by_transformers" + kind])
        assert 0 < sum(errors["by_us" + kind]) < limit
        assert 0 < sum(errors["padded" + kind]) < limit


def saved_bytes(losses: Losses, model: Any, adapter: Adapter, batch: Batch) -> int:
    """What a forward keeps for backward, without weights and adapters."""
    slots = {name: slot.detach().requires_grad_() for name, slot in adapter(batch.task_ids).items()}
    not_counted = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *slots.values()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in not_counted:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        total = losses(model, slots, batch).sum()
    assert total.requires_grad
    return sum(kept.values())


def test_what_is_saved_for_backward() -> None:
    model = backbone(size=36)
    adapter = adapter_of(inject(model, "full"))
    batch = batch_of(ROWS, inputs=[40] * 6, targets=[8] * 6)
    assert saved_bytes(padded, model, adapter, batch) < 0.6 * saved_bytes(by_transformers, model, adapter, batch)
    uneven = batch_of(ROWS, inputs=[40, 10, 8, 8, 20, 5], targets=[8, 2, 2, 2, 2, 2])
    assert saved_bytes(by_us, model, adapter, uneven) < 0.75 * saved_bytes(padded, model, adapter, uneven)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_checkpointing(feed_forward: str, dropout: float) -> None:
    """The same bits, and less is kept; what is dropped out is dropped out again."""
    model = backbone(feed_forward, size=36, dropout=dropout).train()
    adapter = adapter_of(inject(model, ".*(q|k|v|o|wi|wi_0|wi_1|wo)"))
    batch = batch_of(ROWS, inputs=[40] * 6, targets=[8] * 6)
    results = {}
    for checkpointing in (False, True):
        torch.manual_seed(3)
        losses = partial(by_us, checkpointing=checkpointing)
        results[checkpointing] = losses_and_gradients(losses, model, adapter, batch)
    assert torch.equal(results[False][0], results[True][0])
    assert results[False][1].keys() == results[True][1].keys()
    for name, gradient in results[False][1].items():
        assert torch.equal(gradient, results[True][1][name])
    kept = {key: saved_bytes(partial(by_us, checkpointing=key), model, adapter, batch) for key in (False, True)}
    assert kept[True] < 0.3 * kept[False]


@pytest.mark.parametrize("task_ids", [ROWS, HALVES, ONE])
@pytest.mark.parametrize("targets", ["full", "light"])
@pytest.mark.parametrize(
    ("feed_forward", "dropout", "rank"), [("gated-gelu", 0.0, 2), ("relu", 0.0, 1), ("gated-gelu", 0.2, 1)]
)
def test_what_is_compiled_is_the_same(
    task_ids: list[list[int]], targets: str, feed_forward: str, dropout: float, rank: int
) -> None:
    """Packed rows by regions, padded ones by blocks, where these can be, without the compiler."""
    model = backbone(feed_forward, dropout=dropout).train()
    adapter = adapter_of(inject(model, targets if feed_forward == "gated-gelu" else ".*(k|v|wi|wo)"), rank=rank)
    for batch in (batch_of(task_ids), batch_of(task_ids, inputs=[9] * 6)):
        for ours in (by_us, padded):
            assert_same(ours, model, adapter, batch)


def test_scales_are_compiled_too() -> None:
    model = backbone()
    scales = Scales(inject(model, "full"))
    for vector in scales.vectors:
        nn.init.uniform_(vector, 0.5, 1.5)
    assert_same(padded, model, scales, batch_of(ONE))


def assert_same(ours: Callable[..., Tensor], model: Any, adapter: Adapter, batch: Batch) -> None:
    results = []
    for compiled in (False, True):
        torch.manual_seed(3)
        losses = partial(by_us, packed=ours is by_us, compiled=compiled)
        with not_compiled():
            results.append(losses_and_gradients(losses, model, adapter, batch))
    (expected, gradients), (losses_, actual) = results
    torch.testing.assert_close(losses_, expected, rtol=1e-5, atol=1e-5)
    assert actual.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # which torch.compile does itself
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled() -> None:
    model = backbone()
    adapter = adapter_of(inject(model, "full"))
    for batch in (batch_of(ROWS), batch_of(HALVES, inputs=[9] * 6)):
        expected, gradients = losses_and_gradients(by_us, model, adapter, batch)
        losses, actual = losses_and_gradients(partial(by_us, compiled=True), model, adapter, batch)
        torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_dropout_is_where_transformers_has_it(feed_forward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dropout is made a multiplication, to be comparable."""
    attention = F.scaled_dot_product_attention

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: ARG001
        return x * (1 + p) if training else x

    def attend(*inputs: Any, dropout_p: float = 0.0, **options: Any) -> Tensor:
        return attention(*inputs, **options) * (1 + dropout_p)

    monkeypatch.setattr(F, "dropout", dropout)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    model = backbone(feed_forward, dropout=0.3)
    adapter, batch = adapter_of(inject(model, ".*(q|k|v|o|wi|wi_0|wi_1|wo)")), batch_of(ROWS)
    without = by_us(model, adapter(batch.task_ids), batch)
    assert_equal(model.train(), adapter, batch)
    assert not torch.allclose(by_us(model, adapter(batch.task_ids), batch), without)


@pytest.mark.parametrize("feed_forward", ["gated-gelu", "relu"])
def test_gradients_flow_through_dropout(feed_forward: str) -> None:
    model = backbone(feed_forward, dropout=0.1)
    adapter, batch = adapter_of(inject(model, ".*(q|k|v|o|wi|wi_0|wi_1|wo)")), batch_of(ROWS)
    _, gradients = losses_and_gradients(by_us, model.train(), adapter, batch)
    assert len(gradients) == len(adapter(batch.task_ids))
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())


def test_it_follows_the_weights_of_the_model() -> None:
    model = backbone().requires_grad_(requires_grad=False)
    batch = batch_of(ROWS)
    before = by_us(model, {}, batch)
    model.decoder.block[0].layer[1].EncDecAttention.v.weight.mul_(2)
    torch.testing.assert_close(by_us(model, {}, batch), by_transformers(model, {}, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(by_us(model, {}, batch), before)


def test_models_that_it_cannot_run() -> None:
    assert "trained" in str(unsupported_reason(backbone()))
    assert unsupported_reason(backbone().requires_grad_(requires_grad=False)) is None
    assert "output layer" in str(unsupported_reason(backbone().requires_grad_(requires_grad=False), ["lm_head"]))
    assert "Linear" in str(unsupported_reason(nn.Linear(2, 2)))
    assert "gated-silu" in str(unsupported_reason(backbone("gated-silu")))
    mixed = backbone().requires_grad_(requires_grad=False)
    mixed.decoder.block[0].layer[2].DenseReluDense.wo.bfloat16()
    assert "dtypes" in str(unsupported_reason(mixed))
    with pytest.raises(ValueError, match="trained"):
        FastT5(backbone())


def test_adapters_that_it_does_not_support() -> None:
    model = backbone()
    shapes = inject(model, "full", dropout=0.1)
    batch = batch_of(ROWS)
    slots = adapter_of(shapes)(batch.task_ids)
    by_us(model, slots, batch)
    assert not FastT5(model).trains
    with pytest.raises(ValueError, match="dropout"):
        by_us(model.train(), slots, batch)
    with pytest.raises(ValueError, match="lm_head is no layer"):
        by_us(model.eval(), {"lm_head.down": torch.ones(1, 1, 32)}, batch)
    with pytest.raises(ValueError, match="6 rows has no 4 equal groups"):
        by_us(model, {name: slot[:4] for name, slot in slots.items()}, batch)


def test_a_mask_with_holes() -> None:
    model = backbone().requires_grad_(requires_grad=False)
    batch = batch_of(ROWS)
    batch.attention_mask[0, 2] = 0
    with pytest.raises(ValueError, match="ones followed by zeros"):
        by_us(model, {}, batch)
