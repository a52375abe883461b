"""What a stand-in for the hub holds is brought through the real client, and then used."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save
from transformers import AutoModelForSeq2SeqLM

from mhrctl.artifacts.cards import command_of, damaged_files, try_card
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.sealing import sealed
from mhrctl.errors import ArtifactError, DataError
from mhrctl.tools.pull import Pulled, pull, usable
from mhrctl.tools.push import parcel, push
from tests.conftest import Run
from tests.tools.stand_in_hub import TOKEN, Hub

REPO = "someone/lists"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),  # httpx, of how huggingface_hub uploads
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # peft calls it
]
ADAPTER = {
    "adapter_config.json": json.dumps({"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-small"}).encode(),
    "adapter_model.safetensors": save({"a": torch.ones(2)}),
}


def sent(folder: Path, repo: str = REPO) -> str:
    made = parcel(folder, repo, licence="mit", datasets=[], project=Project(folder))
    return push(made, repo, public=False, replace_other=False).commit


def brought(out: Path, revision: str | None = None) -> Pulled:
    return pull(REPO, revision=revision, out=out)


@pytest.mark.usefixtures("hub")
def test_an_export_comes_back_as_it_was_with_the_commit_in_its_card(exported: Path, tmp_path: Path) -> None:
    commit = sent(exported / "swap")
    pulled = brought(tmp_path / "got")
    assert (pulled.form, pulled.commit, pulled.is_new, pulled.left_out) == ("adapter", commit, True, [])
    for file in (exported / "swap").iterdir():
        if file.name not in ("README.md", "card.json"):
            assert (tmp_path / "got" / file.name).read_bytes() == file.read_bytes()
    card = try_card(tmp_path / "got")
    assert card is not None
    assert card.params["pulled"] == {"repo": REPO, "commit": commit}
    assert not list(damaged_files(tmp_path / "got", card))
    assert command_of(card) == f"mhrctl pull {REPO} --revision {commit}"
    assert {path.name for path in (tmp_path / "got").iterdir()} == {path.name for path in (exported / "swap").iterdir()}


@pytest.mark.usefixtures("hub")
def test_a_revision_is_pinned_and_what_is_there_is_not_fetched_again(hub: Hub, exported: Path, tmp_path: Path) -> None:
    first = sent(exported / "swap")
    second = sent(exported / "twice")
    assert brought(tmp_path / "got", first).commit == first
    before = len(hub.asked)
    assert not brought(tmp_path / "got", first).is_new
    assert not any("/resolve/" in path for path in hub.asked[before:])
    assert brought(tmp_path / "got").commit == second  # `main` is another commit
    card = try_card(tmp_path / "got")
    assert card is not None
    assert card.facts["task"] == "twice"


@pytest.mark.usefixtures("hub")
def test_what_was_pulled_answers_and_is_started_from_and_loads_in_peft(
    copy: Path, exported: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    sent(exported)
    out = copy / "data/pull" / REPO
    pulled = brought(out)
    assert pulled.form == "pool"
    kept = brought(out)
    assert (kept.form, kept.is_new) == ("pool", False)
    assert "others: twice" in usable(pulled)
    (copy / "questions.jsonl").write_text(json.dumps({"task": "swap", "input": "ant ant"}) + "\n")
    capfd.readouterr()
    assert run("predict", copy / "questions.jsonl", "--adapter", out / "swap", "-C", copy) == 0
    theirs = capfd.readouterr().out
    assert run("predict", copy / "questions.jsonl", "--adapter", exported / "swap", "-C", copy) == 0
    assert theirs == capfd.readouterr().out
    assert run("import", out / "swap", "--seed", "7", "-C", copy) == 0
    assert (copy / "data/pretrain/lora-s7/card.json").exists()
    model = AutoModelForSeq2SeqLM.from_pretrained(copy / "data/backbone")
    PeftModel.from_pretrained(model, str(out), subfolder="twice")


@pytest.mark.usefixtures("hub")
def test_a_pool_that_was_pulled_can_be_pushed_again_with_its_licence(exported: Path, tmp_path: Path) -> None:
    sent(exported)
    brought(tmp_path / "got")
    made = parcel(tmp_path / "got", "other/lists", licence=None, datasets=[], project=Project(tmp_path))
    assert "license: mit" in made.card
    assert '"other/lists", subfolder="swap"' in made.card


@pytest.mark.usefixtures("hub")
def test_the_code_of_an_export_that_is_pushed_again_names_its_new_place(exported: Path, tmp_path: Path) -> None:
    sent(exported / "swap")
    brought(tmp_path / "got")
    made = parcel(tmp_path / "got", "other/lists", licence=None, datasets=[], project=Project(tmp_path))
    assert 'AutoTokenizer.from_pretrained("other/lists")' in made.card
    assert REPO not in made.card


def test_an_adapter_of_others_comes_without_pickles_and_code(hub: Hub, tmp_path: Path) -> None:
    more = {
        "training_args.bin": pickle.dumps({}),
        "modeling_x.py": b"",
        "checkpoint-1/optimizer.pt": b"",
        "c/README.md": b"",
        ".gitattributes": b"",
    }
    commit = hub.make(REPO, {**ADAPTER, **more, "README.md": b"theirs"})
    pulled = brought(tmp_path / "got")
    assert (pulled.form, pulled.base, pulled.commit) == ("adapter", "google/flan-t5-small", commit)
    assert pulled.left_out == ["c/README.md", "checkpoint-1/optimizer.pt", "modeling_x.py", "training_args.bin"]
    names = {path.name for path in (tmp_path / "got").iterdir()}
    assert names == {*ADAPTER, "README.md", "card.json"}
    card = try_card(tmp_path / "got")
    assert card is not None
    assert (card.stage, card.params) == ("pull", {"pulled": {"repo": REPO, "commit": commit}})
    assert load_file(tmp_path / "got/adapter_model.safetensors")["a"].tolist() == [1, 1]


def test_what_cannot_be_used_is_refused_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    def refused(files: dict[str, bytes], kind: type[Exception], message: str) -> None:
        hub.make(REPO, files)
        with pytest.raises(kind, match=message):
            brought(tmp_path / "got")
        assert not (tmp_path / "got").exists()
        assert not list(tmp_path.glob(".got*partial"))

    config = ADAPTER["adapter_config.json"]
    refused({"adapter_config.json": config, "adapter_model.bin": b"x"}, DataError, "weights that are pickled are not read")
    refused({"README.md": b""}, DataError, "neither an adapter")
    auto = {"config.json": b'{"auto_map": {"AutoModel": "m.M"}}', "model.safetensors": ADAPTER["adapter_model.safetensors"]}
    refused(auto, DataError, r"config.json asks for code of the repository \(auto_map\)")
    refused({**ADAPTER, "tokenizer_config.json": b"{"}, DataError, "tokenizer_config.json is no JSON")
    made_up = sealed({"stage": "export", "params": {}, "files": {"adapter_config.json": "none"}})
    for card in ({}, made_up):
        files = {**ADAPTER, "card.json": json.dumps(card).encode()}
        refused(files, DataError, "card.json is none that `mhrctl push` has sent")


def test_a_card_that_does_not_fit_is_refused(hub: Hub, exported: Path, tmp_path: Path) -> None:
    sent(exported / "swap")
    files = hub.files(REPO)
    hub.make(REPO, {**files, "adapter_config.json": files["adapter_config.json"] + b" "})
    with pytest.raises(ArtifactError, match=r"adapter_config.json has [\d,]+ bytes in place of [\d,]+, says card.json"):
        brought(tmp_path / "got")
    hub.make(REPO, {**files, "card.json": files["card.json"].replace(b'"adapt"', b'"other"', 1)})
    with pytest.raises(ArtifactError, match=r"card.json: not as it was written \(its seal does not fit\)"):
        brought(tmp_path / "got")
    hub.make(REPO, {**files, "notes.txt": b"more"})
    assert brought(tmp_path / "got").left_out == ["notes.txt"]
    assert not (tmp_path / "got/notes.txt").exists()


def test_bytes_that_are_lost_on_the_way_are_seen(hub: Hub, tmp_path: Path) -> None:
    hub.make(REPO, ADAPTER)
    weights = ADAPTER["adapter_model.safetensors"]
    hub.damage["adapter_model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    with pytest.raises(ArtifactError, match=r"adapter_model.safetensors has come with other bytes than the hub lists"):
        brought(tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_a_folder_of_other_things_is_not_replaced(hub: Hub, tmp_path: Path) -> None:
    hub.make(REPO, ADAPTER)
    (tmp_path / "got").mkdir()
    (tmp_path / "got/mine").write_text("mine")
    with pytest.raises(ArtifactError, match="holds other things, which a pull would replace"):
        brought(tmp_path / "got")
    shutil.rmtree(tmp_path / "got")
    brought(tmp_path / "got")
    hub.make("other/one", ADAPTER)
    with pytest.raises(ArtifactError, match="holds other things"):
        pull("other/one", revision=None, out=tmp_path / "got")


def test_a_damaged_copy_is_brought_again(hub: Hub, tmp_path: Path) -> None:
    hub.make(REPO, ADAPTER)
    brought(tmp_path / "got")
    (tmp_path / "got/adapter_config.json").write_text("{}")
    assert brought(tmp_path / "got").is_new
    assert (tmp_path / "got/adapter_config.json").read_bytes() == ADAPTER["adapter_config.json"]


def test_refusals_of_the_hub_are_one_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^pull of someone/lists: there is no such repository, or it is private and the token"):
        brought(tmp_path / "got")
    hub.make(REPO, ADAPTER, private=True)
    with pytest.raises(DataError, match=r"^pull of someone/lists: the repository has no such branch, tag or commit"):
        brought(tmp_path / "got", "v2")
    hub.is_gated = True
    with pytest.raises(DataError, match=r"^pull of someone/lists: its owner gives access on request"):
        brought(tmp_path / "got")
    assert not (tmp_path / "got").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN[:-1] + "b")
    with pytest.raises(DataError, match="it is private"):
        brought(tmp_path / "got")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"^pull of someone/lists: HF_HUB_OFFLINE is set; unset it"):
        brought(tmp_path / "got")
