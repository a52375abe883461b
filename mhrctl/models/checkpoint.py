"""A checkpoint's weights are loaded whole or not at all: transformers would make up at random what a file has not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel

from mhrctl.adapters.finite import require_finite
from mhrctl.data.loading import json_object, loading, require_report, some_tensors
from mhrctl.errors import DataError
from mhrctl.hub import fetching
from mhrctl.models.quantised import plain_tensors

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Where weights are, in the order in which transformers looks; with `.index.json` after it there are several files."""
FLOATS = {"F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16"}
"""Types in which weights are stored, as safetensors and torch name them."""


WAY_OUT = "set backbone.name to a folder, with backbone.source: local"
TEXT_MODEL = {r"^(model\.)?language_model\.lm_head\.": "lm_head.", r"^(model\.)?language_model\.(model\.)?": "model."}
"""{what text models' tensors are called in a checkpoint that holds more: their names in the text model alone}."""
OTHERS = re.compile(r"^(model\.)?(vision|audio|visual|multi_modal|mm_|embed_vision|embed_audio|image|speech)")
"""What belongs to images and sounds in such a checkpoint."""


def load_whole(
    auto: Any,  # noqa: ANN401
    name: str,
    *,
    where: str,
    revision: str | None,
    dtype: torch.dtype,
    part: PretrainedConfig | None = None,
    options: Mapping[str, Any] = {},
) -> PreTrainedModel:
    """Load a model whose every weight is in its checkpoint: no code of the repository is run, no object but tensors is built.

    Args:
        auto: a class of transformers that has `from_pretrained`.
        name: hub id or folder.
        where: names the model in errors.
        revision: on the hub.
        dtype: of the weights.
        part: config of the text model that is loaded out of a checkpoint that holds more; None loads the whole.
        options: of `from_pretrained` besides.

    Raises:
        DataError: if the checkpoint lacks a tensor, has one too many or of another shape or type, or holds NaN or infinity.
    """
    if (Path(name) / "adapter_config.json").exists():
        raise DataError(
            f"{where}: holds an adapter of PEFT, not a whole model; name the model, and `mhrctl import` the adapter"
        )
    _require_files(Path(name))
    try:
        files = [f"{file}{ending}" for file in WEIGHTS for ending in ("", ".index.json")]
        with loading(where), fetching(name, what=where, way_out=WAY_OUT, files=files, revision=revision):
            model, report = auto.from_pretrained(
                name,
                revision=revision,
                trust_remote_code=False,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # which the report then has by name
                **({} if part is None else {"config": part, "key_mapping": TEXT_MODEL}),
                **options,
            )
    except DataError:
        _require_readable(Path(name))
        raise
    if part is not None:
        report["unexpected_keys"] = {each for each in report["unexpected_keys"] if not OTHERS.search(each)}
    require_report(report, where)
    model.eval()
    weights = plain_tensors(model.state_dict())
    stored = _stored(_folder(name, revision))
    if part is not None:
        stored = {_renamed(each): kind for each, kind in stored.items()}
    require_floats(
        {name: stored[name] for name, tensor in weights.items() if tensor.is_floating_point() and name in stored}, where
    )
    _require_output_layer(model, stored, name, where=where, revision=revision)
    require_finite(weights, where)
    return model  # type: ignore[no-any-return]


def require_floats(types: Mapping[str, str], where: str) -> None:
    """Check the types in which weights are stored.

    Raises:
        DataError: if one is no type of floating-point numbers that can be read as it is.
    """
    if others := sorted(name for name, stored in types.items() if stored not in FLOATS):
        kind = types[others[0]]
        raise DataError(
            f"{where}: {some_tensors(others)} stored as {kind}; a backbone's weights must be {', '.join(sorted(FLOATS)[:4])}"
        )


def _require_output_layer(
    model: PreTrainedModel, stored: Collection[str], name: str, *, where: str, revision: str | None
) -> None:
    """Check that a model has an output layer of its own if its config says so: transformers would tie one that is missing."""
    output = model.get_output_embeddings()
    if output is None or output.weight is not model.get_input_embeddings().weight:
        return
    says, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    names = [f"{full}.weight" for full, module in model.named_modules() if module is output]
    if says.get("tie_word_embeddings") is False and stored and not any(full in stored for full in names):
        raise DataError(
            f"{where}: {some_tensors(names)} missing of the weights, though config.json says that the output layer is not the"
            " embedding (tie_word_embeddings false)"
        )


def _renamed(tensor: str) -> str:
    """The name in the text model alone of a tensor of a checkpoint that holds more."""
    for pattern, short in TEXT_MODEL.items():
        tensor, changes = re.subn(pattern, short, tensor)
        if changes:
            break
    return tensor


def _folder(name: str, revision: str | None) -> Path:
    """Where the files of a model that was loaded are."""
    cached = None if Path(name).is_dir() else try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else Path(name)


def _files(folder: Path) -> list[Path]:
    """The files of weights that transformers reads."""
    for name in WEIGHTS:
        if (folder / name).exists():
            return [folder / name]
        if (index := folder / f"{name}.index.json").exists():
            places = json_object(index).get("weight_map", {})
            return [folder / file for file in sorted({str(file) for file in places.values()})]
    return []


def _stored(folder: Path) -> dict[str, str]:
    """{tensor: its type} of a checkpoint, by its files' headers."""
    return {name: stored for file in _files(folder) for name, stored in _header(file)}


def _header(file: Path) -> Iterable[tuple[str, str]]:
    with loading(str(file)):
        if file.suffix == ".safetensors":
            with safe_open(str(file), framework="pt") as tensors:
                return [(name, str(tensors.get_slice(name).get_dtype())) for name in tensors.keys()]  # noqa: SIM118 - no mapping
        held = torch.load(file, map_location="meta", weights_only=True)
        return [(name, str(tensor.dtype).removeprefix("torch.")) for name, tensor in held.items()]


def _require_files(folder: Path) -> None:
    """Check that weights in a folder are ordinary files: a pipe would be waited for without end."""
    for file in _files(folder):
        if not file.is_file():
            what = "is no ordinary file" if file.exists() else "is missing"
            raise DataError(f"{file}: {what}; the weights of {folder} should be in it")


def _require_readable(folder: Path) -> None:
    """Name the file that could not be read, which the libraries do not."""
    for file in _files(folder):
        _header(file)
