"""Exports go to a hub that stands in for the real one, through the real client."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from mhrctl.artifacts.cards import try_card
from mhrctl.artifacts.names import Project
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.tools.export import export
from mhrctl.tools.push import Pushed, parcel, push
from tests.conftest import Run, reseal
from tests.tools.stand_in_hub import Hub

REPO = "someone/lists"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),  # httpx, of how huggingface_hub uploads
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # peft calls it
]


def send(folder: Path, repo: str = REPO, *, public: bool = False, replace: bool = False, licence: str | None = "mit") -> Pushed:
    made = parcel(folder, repo, licence=licence, datasets=[], project=Project(folder))
    return push(made, repo, public=public, replace_other=replace)


def test_an_export_goes_in_one_commit_into_a_private_repository(hub: Hub, exported: Path, tmp_path: Path) -> None:
    sent = send(exported / "swap")
    repository = hub.repositories[REPO]
    assert repository.private
    assert sent.is_private
    assert [message for *_, message in repository.commits] == ["first", "swap, by mhrctl"]
    assert sent.commit == repository.commits[-1][0]
    there = hub.files(REPO)
    names = {path.name for path in (exported / "swap").iterdir()}
    assert there.keys() == names | {".gitattributes"}
    for name in names - {"README.md", "card.json"}:
        assert there[name] == (exported / "swap" / name).read_bytes()
    for name, content in there.items():
        (tmp_path / "got").mkdir(exist_ok=True)
        (tmp_path / "got" / name).write_bytes(content)
    card = try_card(tmp_path / "got")  # whose seal fits, and which lists the README that was sent
    assert card is not None
    assert card.files is not None
    assert card.files["README.md"]["bytes"] == len(there["README.md"])


def test_the_model_card_is_in_the_hubs_form(hub: Hub, exported: Path) -> None:
    made = parcel(exported / "swap", REPO, licence="apache-2.0", datasets=["a/b"], project=Project(exported))
    push(made, REPO, public=True, replace_other=False)
    with pytest.raises(DataError, match=r"^push to someone/lists: it is public, .*; add --public, or name another"):
        push(made, REPO, public=False, replace_other=False)
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert (card.data.get("license"), card.data.get("datasets"), card.data.get("library_name")) == (
        "apache-2.0",
        ["a/b"],
        "peft",
    )
    results = ModelCard.load(exported / "swap/README.md").data.eval_results
    assert results
    assert card.data.get("eval_results") == results
    assert f'"{REPO}")' in card.text
    assert 'from_pretrained(".")' not in card.text
    assert "Run this in the folder" not in card.text
    assert "## Recipe" in card.text
    assert not hub.repositories[REPO].private


def test_a_licence_is_asked_for_and_not_guessed(hub: Hub, exported: Path) -> None:
    with pytest.raises(ParamsError, match=r"^--license: no licence is recorded; name that of these weights"):
        send(exported / "swap", licence=None)
    assert not hub.asked


def test_a_folder_of_exports_is_a_pool(hub: Hub, exported: Path) -> None:
    sent = send(exported)
    there = hub.files(REPO)
    assert {"swap/adapter_config.json", "twice/adapter_config.json", "README.md", "card.json"} <= there.keys()
    assert len(hub.repositories[REPO].commits) == 2
    card = ModelCard(there["README.md"].decode())
    names = {result.dataset_name for result in card.data.get("eval_results") or ()}
    assert names == {"swap", "twice"}
    assert "2 adapters on" in card.text
    assert f'"{REPO}", subfolder="swap"' in card.text
    facts = json.loads(there["card.json"])["facts"]
    assert facts["tasks"] == {"swap": "swap", "twice": "twice"}
    again = send(exported)
    assert again.commit == hub.repositories[REPO].commits[-1][0]
    assert sent.url == again.url


def test_what_an_earlier_push_has_left_goes_in_the_same_commit(hub: Hub, exported: Path) -> None:
    send(exported)
    send(exported / "swap")
    assert not any(name.startswith(("swap/", "twice/")) for name in hub.files(REPO))
    assert len(hub.repositories[REPO].commits) == 3


def test_a_repository_of_others_is_left_alone_unless_it_is_to_be_replaced(hub: Hub, exported: Path) -> None:
    hub.make(REPO, {"README.md": b"mine", "card.json": b"{}"}, private=True)
    with pytest.raises(DataError, match=r"^push to someone/lists: it holds what mhrctl has not made"):
        send(exported / "swap")
    assert hub.files(REPO)["README.md"] == b"mine"
    send(exported / "swap", replace=True)
    assert b"mhrctl" in hub.files(REPO)["README.md"]


def test_a_commit_that_fails_changes_nothing(hub: Hub, exported: Path) -> None:
    send(exported / "swap")
    before = hub.files(REPO)
    hub.refuses = (500, "no room")
    with pytest.raises(DataError, match=r"^push to someone/lists: 127.0.0.1:\d+ says 500: .*no room"):
        send(exported / "twice")
    assert hub.files(REPO) == before


def test_without_a_token_nothing_is_asked(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"^push to someone/lists: no token; run `hf auth login`, or set HF_TOKEN"):
        send(exported / "swap")
    assert not hub.asked


@pytest.mark.usefixtures("hub")
def test_a_token_that_may_not_write_is_one_line(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 32)
    with pytest.raises(DataError, match=r"^push to someone/lists: .* says 401: .*; see that the token .* is valid"):
        send(exported / "swap")


@pytest.mark.parametrize("repo", ["lists", "a/b/c", "a/..b", "a b/c"])
def test_a_name_that_is_none_is_rejected(exported: Path, repo: str) -> None:
    with pytest.raises(ParamsError, match=rf"^{repo}: (no name of a repository|name the owner)"):
        parcel(exported, repo, licence="mit", datasets=[], project=Project(exported))


def test_what_is_no_whole_export_is_refused(copy: Path, exported: Path) -> None:
    def refused(folder: Path, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            parcel(folder, REPO, licence="mit", datasets=[], project=Project(copy))

    refused(copy / "nothing", DataError, "no folder; `mhrctl export` writes one")
    refused(copy / "data/pretrain/lora-s0", DataError, "no export")
    refused(copy / "tasks", DataError, "no export")
    (exported / "notes.txt").write_text("mine")
    refused(exported, DataError, "holds notes.txt, which is no export")
    (exported / "notes.txt").unlink()
    (exported / "swap/notes.txt").write_text("mine")
    refused(exported, ArtifactError, r"swap/notes.txt: is not listed by the card")
    (exported / "swap/notes.txt").unlink()
    weights = exported / "swap/adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"?")
    refused(exported, ArtifactError, r"adapter_model.safetensors: holds other bytes than were written; export it again")
    weights.write_bytes(content)
    assert parcel(exported, REPO, licence="mit", datasets=[], project=Project(copy)).files


def test_an_export_of_what_was_made_again_since_is_refused(copy: Path, exported: Path, run: Run) -> None:
    assert run("adapt", "-m", "lora", "--set", "adapt.lr=0.5", "--set", "adapt.keep_start=false", "-C", copy) == 0
    with pytest.raises(ArtifactError, match="made from an earlier adapt output of lora-s0; export it again"):
        parcel(exported / "swap", REPO, licence="mit", datasets=[], project=Project(copy))
    elsewhere = Path(shutil.copytree(exported / "swap", copy.parent / "elsewhere"))
    assert parcel(elsewhere, REPO, licence="mit", datasets=[], project=Project(copy)).files


def test_exports_of_two_backbones_are_no_pool(copy: Path, exported: Path) -> None:
    record = json.loads((exported / "swap/card.json").read_text())
    record["facts"]["backbone"] = "0" * 64
    (exported / "swap/card.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="no export"):  # of which nothing is known, since its seal does not fit
        parcel(exported, REPO, licence="mit", datasets=[], project=Project(copy))
    from mhrctl.artifacts.sealing import sealed

    del record["seal"]
    (exported / "swap/card.json").write_text(json.dumps(sealed(record)))
    reseal(exported / "swap")
    with pytest.raises(ParamsError, match="its exports belong on different backbones; push them one by one"):
        parcel(exported, REPO, licence="mit", datasets=[], project=Project(copy))


def test_the_note_says_that_the_backbone_is_here_alone(exported: Path) -> None:
    made = parcel(exported, REPO, licence="mit", datasets=[], project=Project(exported))
    assert made.note
    assert "is on this machine alone" in made.note


def test_a_merged_model_is_a_model(hub: Hub, walked: Path, tmp_path: Path) -> None:
    from mhrctl.config.cells import Cell

    cell = Cell(method="lora")
    (folder,) = export(cell, stage="adapt", tasks=["swap"], merge=True, project=Project(walked), out=tmp_path / "merged")
    send(folder)
    assert parcel(folder, REPO, licence="mit", datasets=[], project=Project(walked)).note == (
        f"the path of its backbone, {walked / 'data/backbone'}, is in the files"
    )
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert card.data.get("library_name") == "transformers"
    assert "model.safetensors" in hub.files(REPO)
