"""The linear layers of a backbone may have weights of 4 or 8 bits, which a package of its own makes and multiplies.

The backbone stage quantises once and keeps what it made. What is not quantised is in fp32 like any other backbone: embeddings,
norms, and the output layer. Adapters are fp32 always; they are added to what the layer's own forward gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mhrctl.config.sections import QUANTISERS, QuantisationName
from mhrctl.errors import DataError, ParamsError
from mhrctl.models.layer import AdaptedQuantised, is_quantised_layer

ON_CPU = {"": "cpu"}
"""The device map by which weights are quantised and read: the same bits come out wherever a stage runs afterwards."""


def _nf4() -> Any:  # noqa: ANN401 - a config of transformers, which takes seconds to import
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def _llm_int8() -> Any:  # noqa: ANN401
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _int8() -> Any:  # noqa: ANN401
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


CONFIGS: Mapping[QuantisationName, Callable[[], Any]] = {"nf4": _nf4, "llm_int8": _llm_int8, "int8": _int8}
"""{`backbone.quantisation`: what makes transformers' config of it}."""


def require_package(name: QuantisationName) -> None:
    """Check that the package of a quantisation is installed.

    Raises:
        ParamsError: if it is not.
    """
    package = QUANTISERS[name].package
    if find_spec(package) is None:
        raise ParamsError(
            f"backbone.quantisation {name}: needs the package {package}; run `pip install 'mhrctl[quantised]'`, or leave the"
            " setting out"
        )


def require_unquantised(says: Mapping[str, Any], where: str) -> None:
    """Check that a checkpoint's weights are numbers as they are.

    Args:
        says: its config.json.
        where: names it in errors.

    Raises:
        DataError: if somebody has quantised them.
    """
    parts = (says, *(part for part in says.values() if isinstance(part, Mapping)))
    quantised = next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)
    if quantised is not None:
        raise DataError(
            f"{where}: its weights are quantised already ({quantised.get('quant_method', 'by what it does not say')}); name the"
            f" model that they were made from, and set backbone.quantisation ({', '.join(CONFIGS)}) if it is too large"
        )


def loading_options(name: QuantisationName | None) -> dict[str, Any]:
    """Return the options of `from_pretrained` for quantised weights.

    Args:
        name: of the quantisation that is to be done; None if it has been, as config.json then says.

    Raises:
        ParamsError: if the package is not installed.
    """
    quiet()
    options: dict[str, Any] = {"device_map": ON_CPU}
    if name is not None:
        require_package(name)
        options["quantization_config"] = CONFIGS[name]()
    return options


def quiet() -> None:
    """Keep to themselves what the packages say of kernels that they do not have here, and of each product that they round."""
    for package in (
        *(each.package for each in QUANTISERS.values()),
        "torch.utils._pytree",
    ):  # which says that torchao registers a class twice
        logging.getLogger(package).setLevel(logging.ERROR)


def is_quantised(model: nn.Module) -> bool:
    """Return whether a model has a layer of quantised weights, adapted or not."""
    return any(isinstance(layer, AdaptedQuantised) or is_quantised_layer(layer) for layer in model.modules())


def require_changeable(model: nn.Module, what: str) -> None:
    """Check that a model's weights can be changed.

    Args:
        model: the backbone.
        what: would change them, in words.

    Raises:
        ParamsError: if they are quantised.
    """
    if is_quantised(model):
        raise ParamsError(
            f"{what}: this changes the backbone's weights, which are quantised, and no change of theirs is as fine as they are"
            " coarse; leave out backbone.quantisation"
        )


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with those that are made of others (torchao's) taken apart."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not hasattr(tensor, "__tensor_flatten__"):
            plain[name] = tensor
            continue
        parts, _ = tensor.__tensor_flatten__()
        plain |= plain_tensors({f"{name}.{part}": getattr(tensor, part) for part in parts})
    return plain


def settle_layers(model: nn.Module) -> None:
    """Make the products of quantised layers the same at each call.

    On a CPU with the instructions for it, bitsandbytes packs 4-bit weights anew at the first forward that trains nothing, with
    coarser scales: what a model computes would depend on what it computed before.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
