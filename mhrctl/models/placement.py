"""A backbone that is larger than a GPU is spread over several, layer by layer, by accelerate."""

from __future__ import annotations

import shutil
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory, get_max_memory
from transformers import PreTrainedModel

from mhrctl.data.loading import json_object, reason
from mhrctl.errors import ParamsError
from mhrctl.models.quantised import is_quantised
from mhrctl.models.speed import DEVICE_MAPS

OFFLOADED = ("cpu", "disk")
"""Devices of weights that are brought to the main one for each product."""
Device = int | str


def spread(model: PreTrainedModel, device_map: str, main: torch.device) -> None:
    """Put the layers of a model on the devices of a map; once done, it stays done.

    Args:
        model: with or without slots of adapters, in the precision that it is to have.
        device_map: of `DEVICE_MAPS`, or a JSON file with {module: number of a GPU, `cpu` or `disk`}.
        main: the device of batches and adapters.

    Raises:
        ParamsError: if the GPUs cannot hold the model, or the map of a file does not fit it.
    """
    if is_spread(model):
        return
    devices = _worked_out(model, device_map) if device_map in DEVICE_MAPS else _read(Path(device_map))
    if not set(OFFLOADED).isdisjoint(devices.values()) and len(set(devices.values())) > 1 and is_quantised(model):
        raise ParamsError(
            f"--device-map {device_map}: what backbone.quantisation makes runs on GPUs or on the CPU, not on both"
        )
    folder = mkdtemp(prefix="mhrctl-") if "disk" in devices.values() else None
    if folder is not None:
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    try:
        dispatch_model(
            model,
            devices,
            main_device="cpu" if main.type == "cpu" else main,  # by which name accelerate knows it
            offload_dir=folder,
            skip_keys=model._skip_keys_device_placement,  # noqa: SLF001 - transformers' own loader does the same
        )
    except (ValueError, RuntimeError) as error:
        raise ParamsError(f"--device-map {device_map}: {reason(error)}") from error


def is_spread(model: torch.nn.Module) -> bool:
    """Return whether a model's layers are on devices of their own, so that it must not be moved as one."""
    return hasattr(model, "_hf_hook")


def _worked_out(model: PreTrainedModel, name: str) -> dict[str, Device]:
    """The map that fills the GPUs evenly, or one after the other."""
    whole = list(model._no_split_modules or [])  # noqa: SLF001 - blocks whose residual connections stay on one device
    memory = get_max_memory() if name == "sequential" else get_balanced_memory(model, no_split_module_classes=whole)
    with warnings.catch_warnings(action="ignore"):  # of what is refused below
        devices: dict[str, Device] = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole)
    left = [module for module, device in devices.items() if device in OFFLOADED]
    if left and torch.cuda.is_available():
        raise ParamsError(
            f"--device-map {name}: the GPUs have no room for {left[0] or 'the model'} and what follows it; take more of them,"
            " set backbone.quantisation, or write a map by hand"
        )
    return devices


def _read(path: Path) -> Mapping[str, Device]:
    """The map of a file.

    Raises:
        ParamsError: if it is none.
    """
    devices = json_object(path)
    if wrong := [module for module, device in devices.items() if type(device) is not int and device not in OFFLOADED]:
        raise ParamsError(
            f"--device-map {path}: {wrong[0]!r} is put on {devices[wrong[0]]!r}; a device is a GPU's number, `cpu` or `disk`"
        )
    return devices
