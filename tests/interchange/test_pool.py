"""Pools of adapters that others trained: found, read one by one, of one form, refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from mhrctl.adapters.files import load_adapter, save_runs
from mhrctl.adapters.inventory import Inventory
from mhrctl.errors import DataError
from mhrctl.interchange.peft import CONFIG, TENSORS
from mhrctl.interchange.pool import Member, form_of, members_of, samples_of, stacked

SHAPES = {"a.q": (6, 4), "a.v": (6, 4), "b.o": (4, 6)}


def write_lora(folder: Path, *, rank: int = 2, alpha: float = 2.0, layers: Sequence[str] = tuple(SHAPES), **more: Any) -> Path:
    """A LoRA as peft writes it."""
    generator = torch.Generator().manual_seed(sum(folder.name.encode()))
    tensors = {}
    for layer in layers:
        d_in, d_out = SHAPES[layer]
        tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(rank, d_in, generator=generator)
        tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(d_out, rank, generator=generator)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(layers), **more}
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors, folder / TENSORS)
    return folder


def update(folder: Path, layer: str) -> torch.Tensor:
    """What a LoRA adds to a layer's weight."""
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / TENSORS)
    a, b = (tensors[f"base_model.model.{layer}.{name}.weight"] for name in ("lora_A", "lora_B"))
    return config["lora_alpha"] / config["r"] * b @ a


def members(*folders: Path) -> list[Member]:
    return members_of([str(folder) for folder in folders])


def test_each_adapter_is_a_run_with_the_function_that_it_had(tmp_path: Path) -> None:
    folders = [
        write_lora(tmp_path / "small", rank=1, alpha=4.0),
        write_lora(tmp_path / "large", rank=3, alpha=3.0),
        write_lora(tmp_path / "narrow", rank=2, alpha=1.0, layers=["a.q"]),
    ]
    pool = members(*folders)
    form = form_of(pool, SHAPES)
    assert (form.rank, form.ranks, form.alphas) == (3, [1, 3, 2], [4.0, 3.0, 1.0])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    save_runs(stacked(pool, form, SHAPES, scratch), form.shapes, form.config, tmp_path / "pool.safetensors")
    adapter = load_adapter(tmp_path / "pool.safetensors")
    assert isinstance(adapter, Inventory)
    assert (adapter.runs, adapter.rank, adapter.scaling, adapter.shapes) == (3, 3, 1.0, SHAPES)
    slots = adapter()
    for run, folder in enumerate(folders):
        for layer in SHAPES:
            ours = slots[f"{layer}.up"][run].T @ slots[f"{layer}.down"][run]
            theirs = update(folder, layer) if layer == "a.q" or folder.name != "narrow" else torch.zeros_like(ours)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # products that sum in another order
    one = load_adapter(tmp_path / "pool.safetensors", [2, 0])()
    for name, slot in slots.items():
        assert torch.equal(one[name], slot[[2, 0]])


def test_layers_that_no_adapter_has_are_left_out(tmp_path: Path) -> None:
    pool = members(write_lora(tmp_path / "q", layers=["a.q"]), write_lora(tmp_path / "o", layers=["b.o"]))
    assert list(form_of(pool, SHAPES).shapes) == ["a.q", "b.o"]


def test_a_folder_of_folders_and_a_list_are_pools(tmp_path: Path) -> None:
    for name in ("two", "one"):
        write_lora(tmp_path / "many" / name)
    (tmp_path / "many/two/README.md").write_text("---\nlicense: apache-2.0\n---\n# Two\n")
    assert [(member.name, member.licence) for member in members(tmp_path / "many")] == [("one", None), ("two", "apache-2.0")]
    (tmp_path / "list.jsonl").write_text('{"adapter": "many/one", "name": "first"}\n\n{"adapter": "many"}\n')
    listed = members(tmp_path / "list.jsonl")
    assert [(member.name, member.folder.name) for member in listed] == [("first", "one"), ("one", "one"), ("two", "two")]


def test_the_hub_is_asked_for_a_revision_and_its_commit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    folder = write_lora(tmp_path / "snapshots" / commit)
    asked: list[tuple[str, str | None]] = []

    def fetched(repository: str, *, revision: str | None, allow_patterns: Sequence[str]) -> str:
        assert CONFIG in allow_patterns
        assert TENSORS in allow_patterns
        asked.append((repository, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    (first,) = members_of(["owner/lora@v1"])
    (second,) = members_of(["owner/lora"])
    assert asked == [("owner/lora", "v1"), ("owner/lora", None)]
    assert first == second == Member("lora", "owner/lora", folder, commit)


def test_what_the_hub_cannot_give_is_said_in_a_line() -> None:
    with pytest.raises(DataError, match=r"adapter owner/nothing: .*HF_HUB_OFFLINE is set; .* give a folder"):
        members_of(["owner/nothing"])


def test_adapters_that_cannot_be_used_are_named_and_so_are_the_others(tmp_path: Path) -> None:
    good = [write_lora(tmp_path / name) for name in ("fine", "good")]
    broken = write_lora(tmp_path / "broken")
    tensors = load_file(broken / TENSORS)
    tensors["base_model.model.a.q.lora_A.weight"][0, 0] = float("nan")
    save_file(tensors, broken / TENSORS)
    foreign = write_lora(tmp_path / "foreign", use_dora=True)
    with pytest.raises(DataError) as error:
        form_of(members(*good, broken, foreign), SHAPES)
    said = str(error.value)
    assert said.startswith("pool: 2 of 4 adapters cannot be used: broken: ")
    assert "base_model.model.a.q.lora_A.weight holds NaN or infinity" in said
    assert "; foreign: " in said
    assert "use_dora" in said
    assert said.endswith("; the others can be used: fine, good")


def test_an_ia3_is_no_member(tmp_path: Path) -> None:
    folder = tmp_path / "scales"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": []}))
    save_file({"base_model.model.a.q.ia3_l": torch.ones(4, 1)}, folder / TENSORS)
    with pytest.raises(DataError, match=r"1 of 1 adapters cannot be used: scales: .*no LoRA; a pool holds LoRAs$"):
        form_of(members(folder), SHAPES)


def test_samples_stand_beside_the_list(tmp_path: Path) -> None:
    write_lora(tmp_path / "lists/one")
    (tmp_path / "lists/inputs.jsonl").write_text('{"input": "a b"}\n\n{"input": "c", "target": "d"}\n')
    (tmp_path / "lists/pool.jsonl").write_text('{"adapter": "one", "samples": "inputs.jsonl"}\n')
    (member,) = members(tmp_path / "lists/pool.jsonl")
    assert samples_of(member) == ["a b", "c"]
    assert samples_of(members(tmp_path / "lists/one")[0]) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\n", r"inputs.jsonl: has no samples of one"),
        ('{"input": "a"}\n{"prompt": "b"}\n', r"inputs.jsonl:2: no text `input`, which a sample of one has"),
        ("[1]\n", r"inputs.jsonl:1: no text `input`"),
        (None, r"inputs.jsonl: cannot be read"),
    ],
)
def test_samples_that_cannot_be_read_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "inputs.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        samples_of(Member("one", "one", tmp_path, samples=tmp_path / "inputs.jsonl"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"list.jsonl:2: not JSON"),
        ('{"name": "x"}', r"list.jsonl:2: no `adapter`; a line is \{"),
        ('{"adapter": "one", "rank": "3"}', r"list.jsonl:2: rank: a line has the texts adapter, name, revision, samples"),
        ('{"adapter": "nowhere/"}', r"nowhere"),
        ('{"adapter": "./none"}', r"\./none: no such folder, nor a list \(\.jsonl\) of adapters"),
        ('{"adapter": ".", "name": "x"}', r"list.jsonl:2: \. has 2 adapters, and one name was given"),
        ('{"adapter": ".", "samples": "x"}', r"list.jsonl:2: \. has 2 adapters, and one file of samples was given"),
        ('{"adapter": "one"}', r"pool: two adapters are called one; give them names in a file"),
    ],
)
def test_lists_with_faults_name_the_line(tmp_path: Path, line: str, said: str) -> None:
    for name in ("one", "two"):
        write_lora(tmp_path / name)
    (tmp_path / "list.jsonl").write_text(f'{{"adapter": "one"}}\n{line}\n')
    with pytest.raises(DataError, match=said):
        members_of([str(tmp_path / "list.jsonl")])


def test_what_is_no_pool_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(DataError, match=r"neither adapter_config\.json in it nor folders with one"):
        members(tmp_path / "empty")
    with pytest.raises(DataError, match=r"file.txt: no folder, nor a list"):
        members(tmp_path / "file.txt")
    with pytest.raises(DataError, match=r"list.jsonl: cannot be read"):
        members(tmp_path / "list.jsonl")


@pytest.mark.usefixtures("hub")
def test_what_the_hub_has_not_is_said_as_the_hub_says_it() -> None:
    with pytest.raises(DataError, match=r"^adapter owner/nothing: there is no such repository, or it is private and "):
        members_of(["owner/nothing"])
