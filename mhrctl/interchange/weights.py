"""An adapter of any library comes down to the weights here; the readers of their formats share the rest."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mhrctl.adapters.finite import require_finite
from mhrctl.errors import DataError, listed

Shapes = Mapping[str, tuple[int, int]]
"""{layer name: (d_in, d_out)} of all linear layers of a backbone."""

_MALFORMED = (
    pickle.UnpicklingError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
)
"""Loading tensors out of a damaged or foreign file may raise any of these."""

LARGEST_ALPHA = 1_000_000
"""A LoRA whose alpha is larger is a damaged one."""

_GLOBAL = re.compile(r"\bGLOBAL (\S+)")


@dataclass(frozen=True, eq=False)
class LayerSkills:
    """A layer has these skills.

    Attributes:
        lora_A: [heads, skills, d_in / heads, rank].
        lora_B: [heads, skills, rank, d_out / heads].
        routing: logits Z, [tasks, heads, skills]; None for one skill, and for several that always count alike.
    """

    lora_A: Tensor  # noqa: N815 - as in the files
    lora_B: Tensor  # noqa: N815
    routing: Tensor | None = None


@dataclass(frozen=True, eq=False)
class SkillWeights:
    """Skills are LoRAs, of which several may be routed; one LoRA is one skill of one head.

    With W of [d_out, d_in], a layer gives W x + (alpha / rank) * (x A) B.

    Attributes:
        alpha: of the scaling.
        rank: r of each skill.
        heads: H.
        skills: K.
        layers: {layer name: its skills}.
    """

    alpha: float
    rank: int
    heads: int
    skills: int
    layers: dict[str, LayerSkills]


@dataclass(frozen=True, eq=False)
class ScaleWeights:
    """Scales are those of (IA)3, with which a layer gives scale * (W x).

    Attributes:
        scales: {layer name: [d_out]}.
    """

    scales: dict[str, Tensor]


def skill_weights(file: Path, alpha: float, layers: dict[str, LayerSkills]) -> SkillWeights:
    """Put layers together that must agree in all but their widths.

    Args:
        file: for the error.
        alpha: of the scaling alpha / rank.
        layers: {layer name: its skills}, at least one.

    Returns:
        The layers with their common rank, heads and skills.

    Raises:
        DataError: if layers differ in rank, heads, skills or tasks.
    """
    sizes = {name: _sizes(layer) for name, layer in layers.items()}
    first, size = next(iter(sizes.items()))
    if other := [name for name, theirs in sizes.items() if theirs != size]:
        raise refused(file, other, f"differ from {first} in heads, skills, rank or tasks, which all layers must share")
    heads, skills, rank, _ = size
    return SkillWeights(alpha, rank, heads, skills, layers)


def _sizes(layer: LayerSkills) -> tuple[int, int, int, int | None]:
    heads, skills, _, rank = layer.lora_A.shape
    return heads, skills, rank, None if layer.routing is None else len(layer.routing)


def refused(file: Path, names: Iterable[str], reason: str) -> DataError:
    """Make the error that names a file, the first few of the tensors or layers at fault, and the reason."""
    shown = [name if name.isprintable() else ascii(name) for name in names]
    return DataError(f"{file}: {listed(shown, 3)}: {reason}")


def no_such_layer(file: Path, names: Iterable[str], shapes: Shapes) -> DataError:
    """Make the error for tensors of layers that the backbone lacks."""
    example = next(iter(shapes), "none")
    return refused(file, names, f"the backbone has no such linear layer (its own are named like {example})")


def as_numbers(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an adapter's tensors as fp32.

    Args:
        file: for the error.
        tensors: {name in the file: tensor}.

    Raises:
        DataError: if one is not dense and real, or holds what is no finite number in fp32; names it.
    """
    if odd := [name for name, tensor in tensors.items() if not _is_plain(tensor)]:
        raise refused(file, odd, "no dense tensor of floating-point numbers")
    numbers = {name: tensor.float() for name, tensor in tensors.items()}
    require_finite(numbers, file, how="only an adapter whose numbers are all finite in fp32 is read")
    return numbers


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and not tensor.is_quantized
    )


def read_alpha(file: Path, value: object, *, name: str = "lora_alpha") -> float:
    """Check the alpha of a file's settings.

    Args:
        file: for the error.
        value: what the settings have.
        name: of the setting.

    Raises:
        DataError: if it is no number, or none that a LoRA is scaled by.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{file}: {name}: {value!a} is no number")
    if not 0 < value <= LARGEST_ALPHA:
        shown = f"{value:g}" if isinstance(value, float) or abs(value) < LARGEST_ALPHA**2 else "a number of many digits"
        raise DataError(f"{file}: {name}: {shown} scales no LoRA; it is above 0 and at most {LARGEST_ALPHA:,}")
    return float(value)


def load_tensors(file: Path) -> object:
    """Load a file that may come from anywhere: safetensors, or a pickle of tensors and plain containers.

    Args:
        file: `.safetensors`, or of any other name what `torch.save` wrote.

    Returns:
        What the file holds; of safetensors {name: tensor}.

    Raises:
        DataError: if it is missing or damaged, or if its pickle would build any other Python object.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            content: object = torch.load(file, map_location="cpu", weights_only=True)
            return content
    except SafetensorError as error:
        raise DataError(f"{file}: no safetensors file ({_line(error)})") from None
    except _MALFORMED as error:
        if built := _GLOBAL.search(str(error)):
            raise DataError(
                f"{file}: its pickle builds the Python object {ascii(built[1])[1:-1]}, and only tensors and plain containers"
                " are read; if you trust the file, save its state dict alone:"
                " torch.save(torch.load(file, weights_only=False)['state_dict'], 'adapter.pt')"
            ) from None
        raise DataError(f"{file}: not a file that torch.save wrote, or a damaged one ({type(error).__name__})") from None


def _line(error: Exception) -> str:
    return ascii(str(error).partition("\n")[0])[1:-1]
