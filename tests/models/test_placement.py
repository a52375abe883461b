"""Backbones whose layers are not all in one place: accelerate's hooks, the slots of adapters, and what is refused.

There is one device here, so that layers are kept on a disk in place of another GPU.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mhrctl.errors import DataError, ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.folding import foldable
from mhrctl.models.layer import adapted
from mhrctl.models.placement import is_spread, spread
from mhrctl.training.execution import Execution
from tests.models.families import encoder_decoder
from tests.models.test_decoder_only import INPUTS, TARGETS, Family, attached, ragged

CPU = torch.device("cpu")
ON_DISK = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.norm": "cpu",
    "lm_head": "disk",
}


def written(folder: Path, **devices: Any) -> str:
    path = folder / "map.json"
    path.write_text(json.dumps(devices))
    return str(path)


def results(each: Family, model: AdaptedModel) -> tuple[Any, ...]:
    losses = model(each.ids, ragged(INPUTS), ragged(TARGETS))
    gradients = torch.autograd.grad(losses.sum(), list(each.adapter.parameters()))
    logits = model(each.ids, ragged(INPUTS), ragged(TARGETS), with_logits=True)
    return losses, *gradients, logits, model.generate(each.ids, ragged(INPUTS), max_new_tokens=3, do_sample=False)


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_a_backbone_that_is_partly_on_disk_gives_the_same(tmp_path: Path, packs: bool) -> None:
    each = attached("llama")
    setattr(each.model.backbone, PACKS, packs)
    whole = results(each, AdaptedModel(each.model.backbone, each.adapter).eval())
    execution = Execution(Accelerator(cpu=True), device_map=written(tmp_path, **ON_DISK))
    for _ in range(2):  # the second finds it done
        model = execution.adapted(each.model.backbone, each.adapter).eval()
        assert is_spread(model.backbone)
        assert model.backbone.model.layers[0].mlp.up_proj.weight.is_meta
        assert not model.backbone.model.layers[1].mlp.up_proj.weight.is_meta
        for one, other in zip(results(each, model), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    model.to(CPU)  # moves the adapter alone
    assert model.backbone.lm_head.weight.is_meta
    assert not foldable(model.backbone, each.adapter)


def test_an_encoder_decoder_is_run_by_its_modules(tmp_path: Path) -> None:
    plain: Any = deepcopy(encoder_decoder("t5"))
    whole = AdaptedModel(plain, None).eval()(None, ragged(INPUTS), ragged(TARGETS))
    path = written(tmp_path, shared="cpu", encoder="disk", decoder="cpu", lm_head="cpu")
    model = Execution(Accelerator(cpu=True), device_map=path).adapted(plain, None).eval()
    assert getattr(model.kind, "fast", True) is None
    torch.testing.assert_close(model(None, ragged(INPUTS), ragged(TARGETS)), whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_slots_go_to_the_device_of_their_layer() -> None:
    with FakeTensorMode():  # which knows on which GPU a tensor would be
        linear = nn.Linear(8, 6, bias=False, device="meta")
        linear.weight = nn.Parameter(torch.zeros(6, 8, device="cuda:1"), requires_grad=False)
        layer, x = adapted(linear), torch.zeros(6, 5, 8, device="cuda:1")
        slots = {"down": torch.zeros(3, 2, 8, device="cuda:0"), "up": torch.zeros(3, 2, 6, device="cuda:0")}
        assert torch.func.functional_call(layer, slots, (x,)).device == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["auto", "sequential"])
def test_a_map_is_worked_out_and_one_device_needs_no_hooks(name: str) -> None:
    each = attached("llama")
    spread(each.model.backbone, name, CPU)
    assert not is_spread(each.model.backbone)
    assert {parameter.device for parameter in each.model.backbone.parameters()} == {CPU}


def test_a_map_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    backbone = attached("llama").model.backbone
    with pytest.raises(ParamsError, match=r"^--device-map .*map.json: .*(do not cover|device_map provided)"):
        spread(backbone, written(tmp_path, **{"model.embed_tokens": "cpu", "lm_head": "disk"}), CPU)
    with pytest.raises(ParamsError, match=r"^--device-map .*map.json: 'lm_head' is put on 'tpu'; a device is a GPU's num"):
        spread(backbone, written(tmp_path, **ON_DISK | {"lm_head": "tpu"}), CPU)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"list.json: holds no JSON object"):
        spread(backbone, str(tmp_path / "list.json"), CPU)


def test_gpus_without_room_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = attached("llama").model.backbone
    devices = {"model.embed_tokens": 0, "model.layers.1": "cpu", "lm_head": "disk"}
    monkeypatch.setattr("mhrctl.models.placement.infer_auto_device_map", lambda *_given, **_options: devices)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ParamsError, match=r"^--device-map sequential: the GPUs have no room for model.layers.1 and what fol"):
        spread(backbone, "sequential", CPU)
