"""Damaged backbones, tokenizers and adapters of other libraries: refused with their folder before anything is trained."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.robustness.conftest import Counting
from tests.robustness.outcomes import Ended, Kind, sampled
from tests.robustness.test_corruptions import a_folder, cut, emptied, garbled, lengthened, missing, zeroed
from tests.robustness.workshop import Workshop, content

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
Damage = Callable[[Path], None]


def in_json(name: str, **changes: Any) -> Damage:
    """Return what sets keys of a JSON file; `...` takes a key away."""

    def change(folder: Path) -> None:
        tree = json.loads((folder / name).read_text())
        for key, value in changes.items():
            if value is ...:
                tree.pop(key, None)
            else:
                tree[key] = value
        (folder / name).write_text(json.dumps(tree))

    return change


def in_both(**changes: Any) -> Damage:
    """Return what sets keys of the config and of what it says of generation, either of which may be asked."""

    def change(folder: Path) -> None:
        for name in ("config.json", "generation_config.json"):
            in_json(name, **changes)(folder)

    return change


def in_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Damage:
    """Return what changes the tensors of a file."""

    def changed(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, {"format": "pt"})

    return changed


def in_file(name: str, damage: Damage) -> Damage:
    """Return what damages a file of a folder."""
    return lambda folder: damage(folder / name)


def written(name: str, text: str) -> Damage:
    """Return what puts another text into a file."""

    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _name(tensors: dict[str, torch.Tensor], part: str = "") -> str:
    return [name for name in sorted(tensors) if part in name and "shared" not in name][-1]


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[_name(tensors)]


def _drop_half(tensors: dict[str, torch.Tensor]) -> None:
    for name in sorted(tensors)[::2]:
        del tensors[name]


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["renamed"] = tensors.pop(_name(tensors))


def _further(tensors: dict[str, torch.Tensor]) -> None:
    tensors["decoder.block.7.layer.0.SelfAttention.q.weight"] = torch.ones(4, 4)


def _wider(tensors: dict[str, torch.Tensor]) -> None:
    name = _name(tensors, "q")
    tensors[name] = torch.ones(tensors[name].shape[0] + 3, *tensors[name].shape[1:])


def _integers(tensors: dict[str, torch.Tensor]) -> None:
    name = _name(tensors)
    tensors[name] = tensors[name].to(torch.int64)


def _nothing(tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_name(tensors)].view(-1)[0] = float("nan")


def _infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_name(tensors)].view(-1)[0] = float("-inf")


def _pickled(name: str) -> Damage:
    """Return what puts a pickle in the place of safetensors, which would print a word if it were loaded."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("a pickle has been run",))

    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))

    return change


TENSORS = {
    change.__name__: change for change in (_drop, _drop_half, _rename, _further, _wider, _integers, _nothing, _nan, _infinite)
}
FILES = {damage.__name__: damage for damage in (cut, emptied, missing, garbled, lengthened, a_folder, zeroed)}
WEIGHTS = "model.safetensors"
BACKBONES: dict[str, Damage] = {
    **{f"weights {name}": in_tensors(WEIGHTS, change) for name, change in TENSORS.items()},
    **{
        f"weights {name}": in_file(WEIGHTS, damage) for name, damage in FILES.items() if damage is not zeroed
    },  # a finite number
    **{f"config {name}": in_file("config.json", damage) for name, damage in FILES.items()},
    **{f"tokenizer {name}": in_file("tokenizer.json", damage) for name, damage in FILES.items()},
    "weights a pickle": _pickled(WEIGHTS),
    "more layers in the config": in_json("config.json", num_layers=3),
    "more decoder layers in the config": in_json("config.json", num_decoder_layers=2),
    "fewer layers in the config": in_json("config.json", num_decoder_layers=0, num_layers=0),
    "another width": in_json("config.json", d_model=32),
    "another number of heads": in_json("config.json", num_heads=3),
    "a negative width": in_json("config.json", d_model=-1),
    "a huge vocabulary": in_json("config.json", vocab_size=10**12),
    "a smaller vocabulary": in_json("config.json", vocab_size=8),
    "a text as width": in_json("config.json", d_model="wide"),
    "no decoder start": in_both(decoder_start_token_id=None, forced_bos_token_id=None, bos_token_id=None, model_type="mbart"),
    "a decoder start beyond the vocabulary": in_json("config.json", decoder_start_token_id=10**6),
    "a negative decoder start": in_json("config.json", decoder_start_token_id=-1),
    "a pad beyond the vocabulary": in_json("config.json", pad_token_id=10**6),
    "an end beyond the vocabulary": in_both(eos_token_id=10**6),
    "no model type": in_json("config.json", model_type=...),
    "an unknown model type": in_json("config.json", model_type="nope"),
    "an encoder alone": in_json("config.json", model_type="bert"),
    "a decoder alone": in_json("config.json", model_type="gpt2"),
    "remote code": in_json("config.json", auto_map={"AutoConfig": "code.Config"}, model_type="mine"),
    "an unknown activation": in_json("config.json", dense_act_fn="nope", feed_forward_proj="gated-nope"),
    "a list": written("config.json", "[1]"),
    "generation: a list": written("generation_config.json", "[1]"),
    "generation: cut": written("generation_config.json", '{"min_len'),
    "generation: no number": written("generation_config.json", '{"min_length": "x"}'),
    "generation: a forced word that there is not": written("generation_config.json", '{"forced_bos_token_id": 1000000}'),
    "no tokens": in_json("tokenizer.json", model={"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"}),
    "an unknown kind of tokenizer": in_json("tokenizer.json", model={"type": "nope"}),
    "more tokens than embeddings": in_json(
        "tokenizer.json",
        model={"type": "WordLevel", "vocab": {f"w{i}": i for i in range(5000)} | {"<unk>": 5000}, "unk_token": "<unk>"},
    ),
}
"""{what is damaged in a local backbone: how}; each is refused by `check`, `prepare` or `backbone`."""


STEPS = (("check",), ("prepare",), ("backbone",))


def local(workshop: Workshop) -> Path:
    """Make the walked project's backbone and tokenizer a folder of one's own, and let params.yaml name it."""
    mine = workshop.root / "mine"
    shutil.rmtree(mine, ignore_errors=True)
    shutil.copytree(workshop.pristine / "data/backbone", mine, ignore=shutil.ignore_patterns("card.json"))
    shutil.copytree(workshop.pristine / "data/prepare/tokenizer", mine, dirs_exist_ok=True)
    text = (workshop.pristine / "params.yaml").read_text()
    start, end = text.index("backbone:"), text.index("pretrain:")
    text = f"{text[:start]}backbone: {{source: local, name: mine}}\n{text[end:]}"
    (workshop.root / "params.yaml").write_text(text.replace("tokenizer: word", "tokenizer: mine"))
    workshop.remove("data")
    assert workshop.run("grid", "sync").code == 0
    return mine


def test_the_folder_is_good_before_it_is_damaged(workshop: Workshop) -> None:
    local(workshop)
    for argv in (("grid", "sync"), *STEPS, ("evaluate", "-m", "backbone")):
        ended = workshop.run(*argv)
        assert ended.code == 0, ended.err


@FORMS
def test_damaged_backbones_are_refused_before_training(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"bad backbones ({form})")
    for name, damage in sampled([*BACKBONES.items()], form, 4):
        mine = local(workshop)
        damage(mine)
        ends: list[Ended] = []
        for argv in STEPS:
            ends.append(workshop.run(*argv))
            if ends[-1].code and (ends[-1].complaints or not ends[-1].errors):
                break
        campaign.count(name, *_judged(ends))
        workshop.restore()
    campaign.require_clean()


def _judged(ends: list[Ended]) -> tuple[Kind, Ended, str]:
    last = ends[-1]
    kind = last.kind()
    if kind == "right":
        return "silent", last, "a damaged backbone is one"
    if "a pickle has been run" in last.text:
        return "silent", last, "a pickle has been run"
    if kind == "refused" and not (last.says("mine") or last.says("prepare.tokenizer")):
        return "unexpected", last, f"names another thing: {last.errors}"
    return kind, last, ""


ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ADAPTERS: dict[str, Damage] = {
    **{f"weights {name}": in_tensors(ADAPTER, change) for name, change in TENSORS.items()},
    **{f"weights {name}": in_file(ADAPTER, damage) for name, damage in FILES.items() if name != "lengthened"},
    **{f"config {name}": in_file(CONFIG, damage) for name, damage in FILES.items()},
    "alpha NaN": in_json(CONFIG, lora_alpha=float("nan")),
    "alpha infinite": in_json(CONFIG, lora_alpha=float("inf")),
    "alpha a text": in_json(CONFIG, lora_alpha="x"),
    "no alpha": in_json(CONFIG, lora_alpha=...),
    "another rank": in_json(CONFIG, r=7),
    "a negative rank": in_json(CONFIG, r=-1),
    "a huge rank": in_json(CONFIG, r=10**12),
    "a rank that is a text": in_json(CONFIG, r="x"),
    "no rank": in_json(CONFIG, r=...),
    "other targets": in_json(CONFIG, target_modules=["nope"]),
    "no targets": in_json(CONFIG, target_modules=None),
    "targets a number": in_json(CONFIG, target_modules=3),
    "an endless regular expression": in_json(CONFIG, target_modules="(.*)*(.*)*(.*)*x$"),
    "a broken regular expression": in_json(CONFIG, target_modules="("),
    "an unknown kind": in_json(CONFIG, peft_type="NOPE"),
    "another kind": in_json(CONFIG, peft_type="PROMPT_TUNING"),
    "no kind": in_json(CONFIG, peft_type=...),
    "DoRA": in_json(CONFIG, use_dora=True),
    "rank patterns": in_json(CONFIG, rank_pattern={"q": 9}),
    "rank patterns that are a text": in_json(CONFIG, rank_pattern="x"),
    "alpha patterns of NaN": in_json(CONFIG, alpha_pattern={"q": float("nan")}),
    "biases": in_json(CONFIG, bias="all"),
    "a list": written(CONFIG, "[1]"),
    "a lone surrogate": written(CONFIG, '{"peft_type": "\\ud83d"}'),
    "brackets": written(CONFIG, "[" * 200_000),
}
"""{what is damaged in an adapter of PEFT: how}"""


def adapter(workshop: Workshop) -> Path:
    """Copy the export of the walked project, which is a folder of PEFT."""
    folder = workshop.root / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        workshop.pristine / "data/export/pretrain/lora-s0", folder, ignore=shutil.ignore_patterns("card.json", "README.md")
    )
    return folder


def test_the_adapter_is_good_before_it_is_damaged(workshop: Workshop) -> None:
    ended = workshop.run("import", adapter(workshop), "--seed", 112)
    assert ended.code == 0, ended.err


@FORMS
def test_damaged_adapters_are_refused(workshop: Workshop, counting: Counting, form: str) -> None:
    """An import that is what it would have been without the damage is right: PEFT's files say some things twice."""
    campaign = counting(f"bad imports ({form})")
    assert workshop.run("import", adapter(workshop), "--seed", 112).code == 0
    imported = "data/pretrain/lora-s112/adapters.safetensors"
    whole = content(workshop.root / imported)
    workshop.restore()
    for name, damage in sampled([*ADAPTERS.items()], form, 6):
        folder = adapter(workshop)
        damage(folder)
        ended = workshop.run("import", folder, "--seed", 112)
        kind, why = ended.kind(), ""
        if kind == "right" and content(workshop.root / imported) != whole:
            kind, why = "silent", "imported, with other tensors"
        elif kind == "refused" and not ended.says("adapter"):
            kind, why = "unexpected", f"names another thing: {ended.errors}"
        changed = [file for file in workshop.changed(but=["adapter/"]) if kind == "refused"]
        campaign.count(name, "lost" if changed else kind, ended, why or f"{changed[:3]}")
        workshop.restore()
    campaign.require_clean()


STRANGE: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello\n",
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "a pickle": pickle.dumps({"a": 1}),
    "a pickle that prints": b"cbuiltins\nprint\n(S'a pickle has been run'\ntR.",
    "garbage": bytes(range(256)) * 10,
    "a safetensors of nothing": b"\x02\0\0\0\0\0\0\0{}",
    "a safetensors of a huge header": b"\xff" * 16,
}


ENDINGS = ("pt", "safetensors", "bin", "ckpt", "th", "txt")


@pytest.mark.parametrize(
    "ending", [pytest.param(name, marks=pytest.mark.slow if number else []) for number, name in enumerate(ENDINGS)]
)
def test_strange_files_are_no_adapters(workshop: Workshop, counting: Counting, ending: str) -> None:
    campaign = counting("bad imports: files")
    for name, strange in STRANGE.items():
        path = workshop.root / f"strange.{ending}"
        path.write_bytes(strange)
        ended = workshop.run("import", path, "--seed", 112)
        kind, why = ended.kind(), ""
        if kind == "right" or "a pickle has been run" in ended.text:
            kind, why = "silent", "taken"
        campaign.count(f"strange.{ending}: {name}", kind, ended, why)
    campaign.require_clean()
