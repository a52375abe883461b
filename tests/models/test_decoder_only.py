"""Many families of decoder-only models, packed and padded, against transformers' forward of each sequence alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.experts import HydraLoRA
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.mosa import MoSA
from mhrctl.adapters.scales import Scales
from mhrctl.adapters.weights import Weights
from mhrctl.data.batches import Ragged
from mhrctl.errors import ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject, linear_shapes
from mhrctl.models.decoder_only import PACKS, DecoderOnly
from mhrctl.models.layouts import layers_of
from mhrctl.models.speed import Speed
from tests.models.families import DECODERS, END, PAD, UNPACKED, VOCABULARY, changed_weights, decoder, decoder_logits, merged

TASKS = [2, 0, 1]
"""The routing row of each of three groups of two inputs: their numbers of tokens are unequal."""
CHOICES = 2
WAYS = pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
CLOSE: Mapping[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def tokens(generator: torch.Generator, length: int) -> list[int]:
    numbers: list[int] = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
    return numbers


def made_rows() -> tuple[list[list[int]], list[list[int]]]:
    """Six inputs, of one token and up, and two targets of each, one of which is no choice."""
    generator = torch.Generator().manual_seed(0)
    inputs = [tokens(generator, length) for length in (13, 9, 1, 4, 17, 6)]
    targets = [tokens(generator, length) for length in (3, 1, 7, 2, 1, 4, 0, 5, 2, 2, 6, 1)]
    return inputs, targets


INPUTS, TARGETS = made_rows()


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    return Ragged(torch.tensor([token for row in rows for token in row], dtype=torch.long), tuple(map(len, rows)))


@dataclass(frozen=True)
class Family:
    """A model without and with adapters, whose slots differ from group to group.

    Attributes:
        plain: as transformers made it.
        model: with adapters, run by what is tested.
        adapter: which they are.
    """

    plain: PreTrainedModel
    model: AdaptedModel
    adapter: Adapter

    @property
    def ids(self) -> Tensor | None:
        return torch.tensor([TASKS]) if self.adapter.routes_by == "task" else None

    def running(self, *, packs: bool) -> AdaptedModel:
        setattr(self.model.backbone, PACKS, packs)
        return AdaptedModel(self.model.backbone, self.adapter).eval()

    def weights(self, group: int) -> dict[str, Tensor]:
        return changed_weights(self.plain, self.adapter(self.ids), group)


def attached(kind: str, adapter: type[Adapter] | str = Inventory, *, dropout: float = 0.0) -> Family:
    plain = decoder(kind)
    backbone: Any = deepcopy(plain)
    shapes = inject(backbone, "full", dropout=dropout)
    torch.manual_seed(0)
    adapters: Adapter
    if adapter is Scales:
        adapters = Scales(shapes, runs=len(TASKS))
    elif adapter is MoSA:
        adapters = MoSA(shapes, InventoryConfig(rank=2, alpha=2.0), copies=2, sparse="full")
    else:
        config = InventoryConfig(heads=4, skills=3, rank=2, alpha=2.0, dropout=dropout)
        adapters = Inventory(shapes, config, tasks=len(TASKS))
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return Family(plain, AdaptedModel(backbone, adapters), adapters.eval())


family = cache(attached)


def group_of(target: int) -> int:
    return target // (CHOICES * len(INPUTS) // len(TASKS))


def losses_alone(each: Family, *, label_smoothing: float = 0.0) -> Iterator[tuple[int, Tensor]]:
    """The loss of each token of each target that there is."""
    for row, target in enumerate(TARGETS):
        if target:
            logits = decoder_logits(each.plain, each.weights(group_of(row)), INPUTS[row // CHOICES], target)
            yield row, F.cross_entropy(logits, torch.tensor(target), reduction="none", label_smoothing=label_smoothing)


def importance() -> Tensor:
    """What each token's loss counts, so that no gradient is the sum of all tokens alike."""
    return torch.rand(len(TARGETS), max(map(len, TARGETS)), generator=torch.Generator().manual_seed(1))


def gradients(adapter: Adapter, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(adapter.parameters()), materialize_grads=True, retain_graph=True))


def assert_close_gradients(adapter: Adapter, total: Tensor, expected: Tensor) -> None:
    """Biases of keys have none, whatever is computed: hence the 1e-6, where the largest are of the order of 1."""
    given, by_hand = gradients(adapter, total), gradients(adapter, expected)
    assert max(float(gradient.abs().max()) for gradient in by_hand) > 0.5
    for one, other in zip(given, by_hand, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max() + 1e-6


@WAYS
@pytest.mark.parametrize("kind", DECODERS)
def test_losses_and_gradients_of_unequal_groups_are_those_of_each_sequence_alone(kind: str, packs: bool) -> None:
    each = family(kind)
    assert set(each.adapter.shapes) == set(layers_of("full", linear_shapes(each.plain)))
    together = each.running(packs=packs)(each.ids, ragged(INPUTS), ragged(TARGETS))
    assert together.shape == (len(TARGETS), max(map(len, TARGETS)))
    alone = dict(losses_alone(each))
    for row, target in enumerate(TARGETS):
        assert not together[row, len(target) :].any()
        if target:
            torch.testing.assert_close(together[row, : len(target)], alone[row], **CLOSE)
    counts = importance()
    total = torch.stack([(losses * counts[row, : len(losses)]).sum() for row, losses in alone.items()]).sum()
    assert_close_gradients(each.adapter, (together * counts).sum(), total)
    assert all(gradient.any() for gradient in gradients(each.adapter, total))


@WAYS
@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_logits_and_smoothed_losses_are_those_of_each_sequence_alone(kind: str, packs: bool) -> None:
    each = family(kind)
    model = each.running(packs=packs)
    logits = model(each.ids, ragged(INPUTS), ragged(TARGETS), with_logits=True)
    smoothed = model(each.ids, ragged(INPUTS), ragged(TARGETS), label_smoothing=0.1)
    assert logits.shape == (*smoothed.shape, VOCABULARY)
    for row, losses in losses_alone(each, label_smoothing=0.1):
        expected = decoder_logits(each.plain, each.weights(group_of(row)), INPUTS[row // CHOICES], TARGETS[row])
        torch.testing.assert_close(logits[row, : len(losses)], expected, **CLOSE)
        torch.testing.assert_close(smoothed[row, : len(losses)], losses, **CLOSE)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", [*DECODERS, *UNPACKED])
@torch.no_grad()
def test_answers_with_an_adapter_a_group_are_those_of_each_input_alone(kind: str, beams: int) -> None:
    each = family(kind)
    options: dict[str, Any] = {"num_beams": beams, "do_sample": False, "max_new_tokens": 5}
    answers = each.running(packs=kind in DECODERS).generate(each.ids, ragged(INPUTS), **options)
    assert answers.shape[0] == len(INPUTS)
    models = [merged(each.plain, each.adapter(each.ids), group) for group in range(len(TASKS))]
    for row, (answer, source) in enumerate(zip(answers, INPUTS, strict=True)):
        ids = torch.tensor([source])
        (alone,) = models[row // 2].generate(ids, attention_mask=torch.ones_like(ids), **options)
        rest = alone[len(source) :]
        assert answer[: len(rest)].tolist() == rest.tolist()
        assert {*answer[len(rest) :].tolist()} <= {PAD, END}  # beam search fills up with the end token where padding is 0
    assert len({tuple(answer.tolist()) for answer in answers}) > 1


@pytest.mark.parametrize("kind", UNPACKED)
@torch.no_grad()
def test_what_cannot_be_packed_is_right_where_it_is_padded_and_wrong_or_an_error_where_it_is_packed(kind: str) -> None:
    """So it is measured for each backbone whether it can be packed, rather than looked up."""
    each = family(kind)
    alone = dict(losses_alone(each))
    padded = each.running(packs=False)(each.ids, ragged(INPUTS), ragged(TARGETS))
    for row, losses in alone.items():
        torch.testing.assert_close(padded[row, : len(losses)], losses, **CLOSE)
    model = each.running(packs=True)
    try:
        packed = model(each.ids, ragged(INPUTS), ragged(TARGETS))
    except (ValueError, TypeError, RuntimeError, KeyError):
        return
    assert max(float((packed[row, : len(losses)] - losses).abs().max()) for row, losses in alone.items()) > 0.01


@WAYS
@pytest.mark.parametrize("adapter", [Scales, MoSA])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_other_kinds_of_adapters_are_right_too(kind: str, adapter: type[Adapter], packs: bool) -> None:
    each = family(kind, adapter)
    together = each.running(packs=packs)(each.ids, ragged(INPUTS), ragged(TARGETS))
    groups = len(next(iter(each.adapter(each.ids).values())))
    assert groups == (len(TASKS) if adapter is Scales else 1)
    total = torch.zeros(())
    counts = importance()
    for row, target in enumerate(TARGETS):
        if target:
            weights = each.weights(group_of(row) if groups > 1 else 0)
            logits = decoder_logits(each.plain, weights, INPUTS[row // CHOICES], target)
            losses = F.cross_entropy(logits, torch.tensor(target), reduction="none")
            torch.testing.assert_close(together[row, : len(target)], losses, **CLOSE)
            total = total + (losses * counts[row, : len(target)]).sum()
    assert_close_gradients(each.adapter, (together * counts).sum(), total)


@WAYS
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "opt", "qwen3_moe"])
def test_whole_weights_stand_in_for_those_of_the_backbone(kind: str, packs: bool) -> None:
    plain = decoder(kind)
    backbone: Any = deepcopy(plain)
    adapter = Weights.of(backbone)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    setattr(backbone, PACKS, packs)
    model = AdaptedModel(backbone, adapter).eval()
    together, alone = model(None, ragged(INPUTS), ragged(TARGETS)), []
    for row, target in enumerate(TARGETS):
        if target:
            logits = decoder_logits(plain, adapter(), INPUTS[row // CHOICES], target)
            alone.append(F.cross_entropy(logits, torch.tensor(target), reduction="none"))
            torch.testing.assert_close(together[row, : len(target)], alone[-1], **CLOSE)
    assert_close_gradients(adapter, together.sum(), torch.cat(alone).sum())
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4}
    adapter.put_into(plain_copy := deepcopy(plain))
    answers = model.generate(None, ragged(INPUTS[:2]), **options)
    for answer, source in zip(answers, INPUTS[:2], strict=True):
        ids = torch.tensor([source])
        (by_hand,) = plain_copy.generate(ids, attention_mask=torch.ones_like(ids), **options)  # type: ignore[operator]
        assert answer.tolist() == by_hand[len(source) :].tolist()


@WAYS
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_dropout_is_of_the_updates_inputs_and_of_training_alone(kind: str, packs: bool) -> None:
    each = family(kind, dropout=0.5)
    model = each.running(packs=packs)
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # of the model's own

    def losses(*, training: bool, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        values: Tensor = model.train(training)(each.ids, ragged(INPUTS), ragged(TARGETS))
        return values.detach()

    quiet = losses(training=False)
    for row, expected in losses_alone(each):
        torch.testing.assert_close(quiet[row, : len(expected)], expected, **CLOSE)
    assert torch.equal(losses(training=True), losses(training=True))
    assert not torch.allclose(losses(training=True), losses(training=True, seed=1), atol=1e-3)
    assert not torch.allclose(losses(training=True), quiet, atol=1e-3)
    with torch.no_grad():
        bare = AdaptedModel(model.backbone, None).train()
        assert torch.equal(*(bare(None, ragged(INPUTS), ragged(TARGETS)) for _ in range(2)))


@WAYS
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2"])
def test_a_bf16_backbone_gives_fp32_losses_and_gradients_near_those_of_fp32(kind: str, packs: bool) -> None:
    each = attached(kind)
    each.model.backbone.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
    together = each.running(packs=packs)(each.ids, ragged(INPUTS), ragged(TARGETS))
    assert together.dtype == torch.float32
    counts = importance()
    total = torch.zeros(())
    for row, losses in losses_alone(each):
        assert (together[row, : len(losses)] - losses).abs().max() < 0.2
        total = total + (losses * counts[row, : len(losses)]).sum()
    pairs = zip(gradients(each.adapter, (together * counts).sum()), gradients(each.adapter, total), strict=True)
    for one, other in pairs:
        assert one.dtype == torch.float32
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


def test_a_model_is_packed_only_where_it_has_passed_its_test_and_nobody_forbids_it() -> None:
    model: Any = deepcopy(decoder("llama"))
    assert not DecoderOnly(model, Speed()).packs
    setattr(model, PACKS, True)
    assert DecoderOnly(model, Speed()).packs
    assert not DecoderOnly(model, Speed(packing=False)).packs
    with pytest.raises(ParamsError, match="--checkpointing is an option of mhrctl's own forward of T5, not of llama"):
        DecoderOnly(model, Speed(checkpointing=True))


@WAYS
@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2", "gemma2"])
def test_logits_are_made_of_targets_alone_and_packed_sequences_have_no_padding(kind: str, packs: bool) -> None:
    each = family(kind)
    model = each.running(packs=packs)
    seen: dict[str, list[int]] = {}

    def noting(name: str) -> Any:
        return lambda _layer, _given, output: seen.update({name: [*output.shape[:-1]]})

    layers = {"input": model.backbone.get_input_embeddings(), "output": model.backbone.get_output_embeddings()}
    hooks = [layer.register_forward_hook(noting(name)) for name, layer in layers.items()]
    with torch.no_grad():
        model(each.ids, ragged(INPUTS), ragged(TARGETS))
    for hook in hooks:
        hook.remove()
    sizes = [len(INPUTS[row // CHOICES]) + len(target) - 1 for row, target in enumerate(TARGETS) if target]
    once = sum(map(len, INPUTS)) + sum(len(target) - 1 for target in TARGETS if target)  # choices share their input
    read = [1, once] if packs else [len(TARGETS), max(sizes)]
    assert seen == {"input": read, "output": [1, sum(map(len, TARGETS))]}


@WAYS
@pytest.mark.parametrize("adapter", [Inventory, Scales])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_output_layer_may_be_adapted_too(kind: str, adapter: type[Adapter], packs: bool) -> None:
    plain = decoder(kind)
    backbone: Any = deepcopy(plain)
    torch.manual_seed(0)
    shapes = inject(backbone, ["lm_head", *linear_shapes(plain)])
    adapters = Inventory(shapes, InventoryConfig(rank=2, skills=3), tasks=3) if adapter is Inventory else Scales(shapes, runs=3)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    each = Family(plain, AdaptedModel(backbone, adapters), adapters.eval())
    together = each.running(packs=packs)(each.ids, ragged(INPUTS), ragged(TARGETS))
    assert "lm_head.weight" in each.weights(0)
    for row, losses in losses_alone(each):
        torch.testing.assert_close(together[row, : len(losses)], losses, **CLOSE)


def test_where_padding_is_the_end_token_generation_still_masks_it() -> None:
    """Llama's and GPT-2's tokenizers have no other: transformers then guesses no mask."""
    plain: Any = deepcopy(decoder("llama"))
    for where in (plain.config, plain.generation_config):
        where.pad_token_id = END
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    answers = AdaptedModel(plain, None).generate(None, ragged(INPUTS), **options)
    for answer, source in zip(answers, INPUTS, strict=True):
        ids = torch.tensor([source])
        (alone,) = plain.generate(ids, attention_mask=torch.ones_like(ids), **options)
        rest = alone[len(source) :].tolist()
        assert answer.tolist() == rest + [END] * (4 - len(rest))


def test_nothing_of_a_call_is_kept_in_the_model() -> None:
    each = family("llama")
    model, ids = each.running(packs=True), torch.tensor([INPUTS[0]])
    before = each.plain(ids).logits
    with torch.no_grad():
        model(each.ids, ragged(INPUTS), ragged(TARGETS))
        model.generate(each.ids, ragged(INPUTS), max_new_tokens=2, do_sample=False)
        assert torch.equal(model.backbone(ids).logits, before)


def test_an_answer_that_ends_early_is_followed_by_padding() -> None:
    """Rows are cut at nothing: what is behind the end token is no answer."""
    plain: Any = deepcopy(decoder("llama"))
    with torch.no_grad():
        plain.lm_head.weight[END] = 0.0
    ids = ragged(INPUTS[:2])
    free = AdaptedModel(plain, None).generate(None, ids, max_new_tokens=4, do_sample=False)
    end = int(free[0, 1])
    assert end not in free[1]
    plain.generation_config.eos_token_id = end
    ended = AdaptedModel(plain, None).generate(None, ids, max_new_tokens=4, do_sample=False)
    length = free[0].tolist().index(end) + 1
    assert ended[0].tolist() == [*free[0, :length].tolist(), *[PAD] * (4 - length)]
    assert ended[1].tolist() == free[1].tolist()


def test_what_penalises_repeated_tokens_does_not_see_the_padding_of_a_batch() -> None:
    """Qwen's checkpoints ask for it, and padding may be the end token, whose penalty would keep answers from ending."""
    model: Any = deepcopy(decoder("llama"))
    model.config.pad_token_id = model.generation_config.pad_token_id = model.config.eos_token_id
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "repetition_penalty": 3.0, "min_new_tokens": 6}
    attached = AdaptedModel(model, None)
    together = attached.generate(None, ragged(INPUTS[:3]), **options)
    for row, answer in zip(INPUTS[:3], together, strict=True):
        assert torch.equal(attached.generate(None, ragged([row]), **options)[0], answer)


def test_generation_hands_the_output_layer_contiguous_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of slices, torch copies the whole matrix for each row: 26 times as slow in bf16 with Gemma's vocabulary."""
    model: Any = deepcopy(decoder("llama"))
    seen: list[bool] = []
    linear = model.lm_head.forward

    def noting(states: Tensor) -> Tensor:
        seen.append(states.is_contiguous())
        logits: Tensor = linear(states)
        return logits

    monkeypatch.setattr(model.lm_head, "forward", noting)
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
    rows = ragged(INPUTS[:2])
    model.generate(rows.padded(PAD, left=True), attention_mask=rows.mask(left=True), **options)
    assert not all(seen)
    seen.clear()
    AdaptedModel(model, None).generate(None, rows, **options)
    assert seen
    assert all(seen)
    assert not model.lm_head._forward_pre_hooks


@torch.no_grad()
def test_routed_tokens_are_those_of_each_sequence_alone_packed_or_padded() -> None:
    backbone: Any = deepcopy(decoder("llama"))
    torch.manual_seed(0)
    adapter = HydraLoRA(inject(backbone, "full"), InventoryConfig(skills=3, rank=2, alpha=2.0), runs=len(TASKS))
    for parameter in adapter.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    losses = {}
    for packs in (True, False):
        setattr(backbone, PACKS, packs)
        losses[packs] = AdaptedModel(backbone, adapter).eval()(None, ragged(INPUTS), ragged(TARGETS))
    torch.testing.assert_close(losses[True], losses[False], **CLOSE)
    for row, target in enumerate(TARGETS):
        alone = AdaptedModel(backbone, adapter.select([group_of(row)])).eval()
        given = alone(None, ragged([INPUTS[row // CHOICES]]), ragged([target]))[0]
        torch.testing.assert_close(losses[True][row, : len(target)], given, **CLOSE)
