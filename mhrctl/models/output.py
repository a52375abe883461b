"""Losses of targets are made without the logits of all of them: of a large vocabulary they are the largest tensor of a step.

What comes after a model's body (its output layer, and the caps and scales that some families have behind it) is run as the
model's code has it, on the states of some tokens at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from mhrctl.data.batches import Ragged

LOGITS = 2**25
"""Logits that are there at a time: 128 MiB in fp32, for each of the few tensors that a loss makes of them."""


def frozen_after(model: PreTrainedModel, bodies: Sequence[nn.Module], slots: Iterable[str] = ()) -> bool:
    """Return whether all that comes after the bodies of a model is frozen.

    Args:
        model: a language model.
        bodies: the parts of it that make the states of tokens; the model itself, if it has no such part.
        slots: names of what a call gives to layers, or in place of their weights.
    """
    if model in bodies or model.get_output_embeddings() is None:
        return False
    inside = tuple(f"{name}." for name, module in model.named_modules() if module in bodies)
    trained = (name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad)
    return all(name.startswith(inside) for name in (*slots, *trained))


@contextmanager
def reading_only(model: PreTrainedModel, places: Tensor | None = None) -> Iterator[None]:
    """Have the output layer read only some tokens, whatever the model gives it.

    Its rows are contiguous: of a slice, such as each row's last token in generation, torch copies the matrix for every row. In
    bf16 on a CPU that is most of the time of a step, where vocabularies are large.

    Args:
        model: the backbone.
        places: of the tokens among all rows, one after the other; they become one row. None is all, as they are.
    """

    def chosen(_layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states, *others = given
        if places is not None:
            states = states.flatten(0, -2).index_select(0, places.to(states.device))[None]
        return states.contiguous(), *others

    layer = model.get_output_embeddings()
    hook = None if layer is None else layer.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


@contextmanager
def noting_output(body: nn.Module) -> Iterator[list[ModelOutput]]:
    """Note what a body gives meanwhile."""
    outputs: list[ModelOutput] = []
    hook = body.register_forward_hook(lambda _body, _given, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def target_losses(
    model: PreTrainedModel,
    body: nn.Module,
    run: Callable[[], object],
    after: Callable[[Tensor], Tensor],
    targets: Ragged,
    places: Tensor,
    *,
    label_smoothing: float,
) -> Tensor:
    """Compute the cross-entropy of each target token, of whose logits some are there at a time.

    Args:
        model: one of which all is frozen that comes after its body.
        body: what makes the states of tokens.
        run: runs the model.
        after: runs the model while its body gives states that it is told, [1, tokens, d]; returns the logits.
        targets: rows of targets.
        places: of the states among those of the run, row after row, from which the target tokens are predicted.
        label_smoothing: part of the target mass that is spread over the vocabulary.

    Returns:
        [targets, longest], in fp32; 0 after the end of a target.
    """
    with noting_output(body) as outputs, reading_only(model, places[:0]):
        run()
    (output,) = outputs
    states = output["last_hidden_state"].flatten(0, -2)
    states = states.index_select(0, places.to(states.device)).to(places.device)  # the body's end may be on another GPU
    with answering(body, output) as tell, reading_only(model):

        def logits_of(some: Tensor) -> Tensor:
            tell(some[None])
            return after(some[None])[0]

        losses = token_losses(
            states, targets.tokens, logits_of, vocabulary=vocabulary_of(model), label_smoothing=label_smoothing
        )
    return rectangle(losses, targets)


def vocabulary_of(model: PreTrainedModel) -> int:
    """Return how many logits a token has."""
    return len(cast("Tensor", model.get_output_embeddings().weight))


def token_losses(
    states: Tensor, labels: Tensor, logits_of: Callable[[Tensor], Tensor], *, vocabulary: int, label_smoothing: float
) -> Tensor:
    """Compute the cross-entropy of each token, of some tokens at a time.

    Args:
        states: [tokens, d].
        labels: [tokens].
        logits_of: makes logits of states, each token's of its state alone; what it reads beside them has no gradient.
        vocabulary: entries of it.
        label_smoothing: part of the target mass that is spread over the vocabulary.

    Returns:
        [tokens], in fp32.
    """

    def losses_of(some: Tensor, gold: Tensor) -> Tensor:
        return F.cross_entropy(logits_of(some).float(), gold, label_smoothing=label_smoothing, reduction="none")

    size = max(1, LOGITS // vocabulary)
    if not (torch.is_grad_enabled() and states.requires_grad):
        parts = zip(states.split(size), labels.split(size), strict=True)
        return torch.cat([losses_of(some, gold) for some, gold in parts])
    losses: Tensor = _TokenLosses.apply(states, labels, losses_of, size)  # type: ignore[no-untyped-call]
    return losses


def rectangle(values: Tensor, targets: Ragged) -> Tensor:
    """Return values of target tokens, [target tokens, ...], as [targets, longest, ...] with zeros after the ends."""
    filled = values.new_zeros(len(targets.lengths) * targets.longest, *values.shape[1:])
    return filled.index_copy(0, targets.places, values).view(len(targets.lengths), targets.longest, *values.shape[1:])


class _TokenLosses(Function):
    """See `token_losses`.

    The gradient of a token's loss is made at once, from the logits that are there, and kept instead of them: it is as wide as a
    state. What backward then brings is a factor a token, for a loss is that token's alone.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        states: Tensor,
        labels: Tensor,
        losses_of: Callable[[Tensor, Tensor], Tensor],
        size: int,
    ) -> Tensor:
        losses, grads = [], []
        for some, gold in zip(states.split(size), labels.split(size), strict=True):
            leaf = some.detach().requires_grad_()
            with torch.enable_grad():
                loss = losses_of(leaf, gold)
                grads += torch.autograd.grad(loss.sum(), leaf)
            losses.append(loss.detach())
        ctx.save_for_backward(torch.cat(grads))
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (grads,) = ctx.saved_tensors
        return (grads * grad[:, None]).to(grads.dtype), None, None, None


@contextmanager
def answering(body: nn.Module, output: ModelOutput) -> Iterator[Callable[[Tensor], None]]:
    """Have a body give states that it is told instead of computing any.

    Args:
        body: of the model.
        output: what it has given; all but its states is given again.

    Yields:
        What takes the states, [rows, tokens, d].
    """
    told: list[ModelOutput] = [output]

    def tell(states: Tensor) -> None:
        told[0] = dataclasses.replace(output, last_hidden_state=states)  # type: ignore[type-var]

    # An instance's forward may be another than its class's: accelerate puts one there that moves what it is given.
    held = vars(body).get("forward")
    body.forward = lambda *_given, **_options: told[0]
    try:
        yield tell
    finally:
        del body.forward
        if held is not None:
            body.forward = held
