"""(IA)3 against peft's."""

from __future__ import annotations

import peft
import torch

from mhrctl.adapters.scales import Scales
from mhrctl.models.attach import inject
from tests.adapters.test_inventory import Stack


def test_forward_and_gradients_equal_peft_ia3() -> None:
    torch.manual_seed(0)
    model, reference = Stack(), Stack()
    reference.load_state_dict(model.state_dict())
    wrapped = peft.get_peft_model(reference, peft.IA3Config(target_modules=["q", "wo"], feedforward_modules=[]))
    layers = dict(wrapped.base_model.model.named_modules())
    scales = Scales(inject(model, ["q", "wo"]))
    with torch.no_grad():
        for (name,), bank in zip(scales.stacks.values(), scales.vectors, strict=True):
            bank.normal_()
            layers[name].ia3_l["default"].copy_(bank[0, 0][:, None])
    x = torch.randn(4, 7, 64)
    ours, theirs = torch.func.functional_call(model, scales(), (x,)), wrapped(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for (name,), bank in zip(scales.stacks.values(), scales.vectors, strict=True):
        assert bank.grad is not None
        torch.testing.assert_close(bank.grad[0, 0], layers[name].ia3_l["default"].grad[:, 0])


def test_new_scales_leave_the_function_as_it_was() -> None:
    model, x = Stack(), torch.randn(2, 3, 64)
    before = model(x)
    scales = Scales(inject(model, ["q", "wo"]))
    assert torch.equal(torch.func.functional_call(model, scales(), (x,)), before)


def test_runs_side_by_side_equal_runs_one_by_one() -> None:
    model = Stack()
    base = Scales(inject(model, ["q", "wo"]))
    both = base.for_new_tasks([1, 2], train_skills=True)
    with torch.no_grad():
        for bank in both.vectors:
            bank.normal_()
    x = torch.randn(6, 3, 64)
    together = torch.func.functional_call(model, both(), (x,))
    alone = [torch.func.functional_call(model, both.select([run])(), (part,)) for run, part in enumerate(x.chunk(2))]
    torch.testing.assert_close(together, torch.cat(alone))
