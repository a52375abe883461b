"""Losses without kept logits against those of all logits, in values, gradients and what is there at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.data.batches import Ragged
from mhrctl.models import output
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.output import answering, frozen_after, noting_output, reading_only, rectangle, token_losses
from mhrctl.models.speed import Speed
from tests.models.families import DECODERS, ENCODER_DECODERS, VOCABULARY, decoder, encoder_decoder

TOKENS, WIDTH = 11, 6
INPUTS = Ragged(torch.tensor([7, 9, 4, 30, 11, 60, 61, 8, 22, 90, 3]), (6, 1, 4))
TARGETS = Ragged(torch.tensor([5, 6, 13, 2, 22, 2, 17, 18, 19, 20, 21, 2]), (4, 2, 6))


@pytest.mark.parametrize("size", [1, 4, 11, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_gradients_of_some_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch, size: int, smoothing: float) -> None:
    monkeypatch.setattr(output, "LOGITS", size * VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    states, weight = torch.randn(TOKENS, WIDTH, generator=generator), torch.randn(VOCABULARY, WIDTH, generator=generator)
    labels, counts = torch.randint(VOCABULARY, (TOKENS,), generator=generator), torch.randn(TOKENS, generator=generator)
    seen: list[int] = []

    def logits_of(some: Tensor) -> Tensor:
        seen.append(len(some))
        return torch.tanh(some @ weight.t())

    leaf, by_hand = states.clone().requires_grad_(), states.clone().requires_grad_()
    losses = token_losses(leaf, labels, logits_of, vocabulary=VOCABULARY, label_smoothing=smoothing)
    right = F.cross_entropy(torch.tanh(by_hand @ weight.t()), labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses, right)
    (losses * counts).sum().backward()
    (right * counts).sum().backward()
    torch.testing.assert_close(leaf.grad, by_hand.grad)
    assert max(seen) == min(size, TOKENS)
    assert sum(seen) == TOKENS
    with torch.no_grad():
        again = token_losses(leaf, labels, logits_of, vocabulary=VOCABULARY, label_smoothing=smoothing)
    assert torch.equal(again, losses)


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_every_family_has_the_losses_and_gradients_of_all_logits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(output, "LOGITS", 5 * VOCABULARY)
    monkeypatch.setattr("mhrctl.models.encoder_decoder.LOGITS", 5 * VOCABULARY)
    backbone: Any = deepcopy(decoder(kind) if kind in DECODERS else encoder_decoder(kind))
    torch.manual_seed(0)
    adapter = Inventory(inject(backbone, "full"), InventoryConfig(heads=4, skills=3, rank=2, alpha=2.0), tasks=3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model, tasks = AdaptedModel(backbone, adapter, speed=Speed(forward=False)).eval(), torch.tensor([[2, 0, 1]])
    rows: list[int] = []
    hook = backbone.get_output_embeddings().register_forward_hook(lambda _m, _a, given: rows.append(given[..., 0].numel()))
    losses = model(tasks, INPUTS, TARGETS, label_smoothing=0.1)
    assert max(rows) == 5
    hook.remove()
    logits = model(tasks, INPUTS, TARGETS, with_logits=True)
    kept = logits.flatten(0, 1)[TARGETS.places]
    right = F.cross_entropy(kept, TARGETS.tokens, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(losses, rectangle(right, TARGETS), rtol=1e-5, atol=1e-5)
    counts, parameters = torch.arange(1.0, 4)[:, None], list(adapter.parameters())
    sums = (losses * counts).sum(), (rectangle(right, TARGETS) * counts).sum()
    given, expected = (torch.autograd.grad(total, parameters, retain_graph=True) for total in sums)
    for one, other in zip(given, expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max() + 1e-6


def test_only_frozen_ends_can_do_without_their_logits() -> None:
    model: Any = deepcopy(decoder("llama"))
    body = model.get_decoder()
    assert frozen_after(model, [body], {"model.layers.0.self_attn.q_proj"})
    assert not frozen_after(model, [body], {"lm_head"})
    assert not frozen_after(model, [model])
    model.lm_head.weight.requires_grad_(True)
    assert not frozen_after(model, [body])


def test_a_tied_output_layer_that_is_trained_is_not_frozen() -> None:
    """Its weight has two names, of which one is inside the body."""
    model: Any = deepcopy(decoder("gemma"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert frozen_after(model, [model.model])
    model.model.embed_tokens.weight.requires_grad_(True)
    assert not frozen_after(model, [model.model])


@pytest.mark.parametrize("held", [False, True])
def test_a_body_answers_only_meanwhile_also_after_an_exception(held: bool) -> None:
    model: Any = deepcopy(decoder("llama"))
    ids, calls = torch.tensor([[5, 6, 7]]), list[int]()
    if held:  # as accelerate puts one there
        forward = model.model.forward

        def moving(*args: Any, **options: Any) -> Any:
            calls.append(1)
            return forward(*args, **options)

        model.model.forward = moving
    with noting_output(model.model) as outputs:
        logits = model(ids).logits
    states = outputs[0]["last_hidden_state"]
    with answering(model.model, outputs[0]) as tell:
        tell(states[:, 1:])
        assert torch.equal(model(ids).logits, logits[:, 1:])
    with pytest.raises(KeyboardInterrupt), answering(model.model, outputs[0]):
        raise KeyboardInterrupt
    assert torch.equal(model(ids).logits, logits)
    assert len(calls) == (2 if held else 0)
    assert not model.model._forward_hooks


def test_an_output_layer_reads_what_it_is_told() -> None:
    model: Any = deepcopy(decoder("llama"))
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    logits = model(ids).logits
    with reading_only(model, torch.tensor([4, 0])):
        torch.testing.assert_close(model(ids).logits, logits.flatten(0, 1)[[4, 0]][None])
    assert torch.equal(model(ids).logits, logits)
    with reading_only(nn_without_output()):
        pass


def nn_without_output() -> Any:
    class Bare(nn.Module):
        def get_output_embeddings(self) -> None:
            return None

    return Bare()


def test_a_rectangle_has_zeros_after_ends() -> None:
    values = torch.arange(1.0, 13)
    assert rectangle(values, TARGETS).tolist() == [[1, 2, 3, 4, 0, 0], [5, 6, 0, 0, 0, 0], [7, 8, 9, 10, 11, 12]]
    assert rectangle(values[:, None].expand(12, 3), TARGETS).shape == (3, 6, 3)
