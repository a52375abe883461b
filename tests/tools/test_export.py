"""Adapters that leave: PEFT loads them, and says what we say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from peft.tuners.lora import ArrowConfig, create_arrow_model
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from mhrctl.adapters.files import load_adapter
from mhrctl.adapters.weights import Weights
from mhrctl.artifacts.facts import BackboneFacts
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach
from mhrctl.models.backbones import load_backbone
from mhrctl.tools import export
from tests.conftest import Run
from tests.models.made import logits_of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
TASKS = ["swap", "twice"]
IDS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]])


def ours(project: Path, folder: str, run: int = 0, task: int = 0) -> Tensor:
    """Logits of the backbone with the adapters of a folder's run attached, with a row of its routing."""
    backbone, _ = load_backbone(project / "data/backbone")
    adapter = load_adapter(project / "data" / folder / "adapters.safetensors").select([run]).eval()
    if isinstance(adapter, Weights):
        adapter.put_into(backbone)
        return logits(backbone)
    attach(backbone, adapter)
    with torch.no_grad():
        return logits_of(AdaptedModel(backbone, adapter).eval(), torch.tensor([[task]]), IDS, IDS[:, :3])


@torch.no_grad()
def logits(model: torch.nn.Module, **options: Tensor) -> Tensor:
    output: Tensor = model(input_ids=IDS, labels=IDS[:, :3].contiguous(), **options).logits
    return output


def base(project: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(project / "data/backbone").eval()
    return model


ADAPTERS = ["lora", "lora_big", "ia3", "adapter_soup", "poly", "poly_z", "mhr", "mhr_z", "mhr_mu", "random_mu", "mosa"]
RIVALS = ["adamix", "align_lora", "mtl_lora", "c_poly"]


@pytest.mark.parametrize("method", ADAPTERS + RIVALS)
def test_adapted_adapters_load_in_peft_with_our_logits(walked_all: Path, tmp_path: Path, run: Run, method: str) -> None:
    assert run("export", "-m", method, "--to", "peft", "--out", tmp_path, "-C", walked_all) == 0
    cell = f"{method}-h4-s0" if method.startswith("mhr") else f"{method}-s0"
    for number, task in enumerate(TASKS):
        model = peft.PeftModel.from_pretrained(base(walked_all), tmp_path / task).eval()
        torch.testing.assert_close(logits(model), ours(walked_all, f"adapt/{cell}", number))
        assert not torch.allclose(logits(model), logits(base(walked_all)))


def test_peft_routes_an_exported_pool_as_arrow_does(walked_all: Path, tmp_path: Path, run: Run) -> None:
    assert run("export", "-m", "adapter_soup", "--stage", "pretrain", "--out", tmp_path, "-C", walked_all) == 0
    paths = sorted(str(path) for path in tmp_path.iterdir())
    assert len(paths) == 3
    model = create_arrow_model(base(walked_all), paths, ArrowConfig(top_k=3))
    torch.testing.assert_close(logits(model.eval()), ours(walked_all, "adapt/arrow-s0"))
    assert not torch.allclose(logits(model), logits(base(walked_all)))


@pytest.mark.parametrize("method", ["mosa", "adamix", "mtl_lora", "c_poly"])
def test_what_peft_has_no_form_of_leaves_as_its_average(
    walked_all: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    assert run("export", "-m", method, "--stage", "pretrain", "--out", tmp_path / "copies", "-C", walked_all) == 2
    said = f"--to peft: what {method} pre-trains has no form there; use --stage average or --stage adapt"
    assert said in capfd.readouterr().err
    assert not (tmp_path / "copies").exists()
    assert run("export", "-m", method, "--stage", "average", "--out", tmp_path / "mean", "-C", walked_all) == 0
    model = peft.PeftModel.from_pretrained(base(walked_all), tmp_path / "mean").eval()
    torch.testing.assert_close(logits(model), ours(walked_all, f"average/{method}-s0", 0))


def test_an_aligned_lora_leaves_as_any_lora(walked_all: Path, tmp_path: Path, run: Run) -> None:
    assert run("export", "-m", "align_lora", "--stage", "pretrain", "--out", tmp_path / "lora", "-C", walked_all) == 0
    model = peft.PeftModel.from_pretrained(base(walked_all), tmp_path / "lora").eval()
    torch.testing.assert_close(logits(model), ours(walked_all, "pretrain/align_lora-s0", 0))


@pytest.mark.parametrize(("method", "heads"), [("poly", 1), ("mhr", 4)])
def test_a_pretrained_inventory_loads_as_peft_poly(walked_all: Path, tmp_path: Path, run: Run, method: str, heads: int) -> None:
    assert run("export", "-m", method, "--stage", "pretrain", "--out", tmp_path / "out", "-C", walked_all) == 0
    model = peft.PeftModel.from_pretrained(base(walked_all), tmp_path / "out").eval()
    config = model.peft_config["default"]
    assert isinstance(config, peft.PolyConfig)
    assert (config.n_splits, config.n_skills, config.n_tasks) == (heads, 2, 3)
    cell = f"{method}-h4-s0" if method == "mhr" else f"{method}-s0"
    for task in range(3):
        expected = ours(walked_all, f"pretrain/{cell}", task=task)
        torch.testing.assert_close(logits(model, task_ids=torch.tensor([task, task])), expected)


def test_the_average_and_private_adapters_leave_too(walked_all: Path, tmp_path: Path, run: Run) -> None:
    assert run("export", "-m", "mhr_mu", "--stage", "average", "--out", tmp_path / "mean", "-C", walked_all) == 0
    model = peft.PeftModel.from_pretrained(base(walked_all), tmp_path / "mean").eval()
    torch.testing.assert_close(logits(model), ours(walked_all, "average/mhr-h4-s0"))
    options = ("--stage", "pretrain", "--task", "first", "--out", tmp_path / "own")
    assert run("export", "-m", "adapter_soup", *options, "-C", walked_all) == 0
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["first"]
    model = peft.PeftModel.from_pretrained(base(walked_all), tmp_path / "own/first").eval()
    torch.testing.assert_close(logits(model), ours(walked_all, "pretrain/adapter_soup-s0", run=1))


@pytest.mark.parametrize("method", ["lora", "ia3", "mhr", "full_ft"])
def test_merged_models_need_no_adapter_library(walked_all: Path, tmp_path: Path, run: Run, method: str) -> None:
    assert run("export", "-m", method, "--merge", "--task", "twice", "--out", tmp_path, "-C", walked_all) == 0
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "twice").eval()
    cell = "mhr-h4-s0" if method == "mhr" else f"{method}-s0"
    torch.testing.assert_close(logits(model), ours(walked_all, f"adapt/{cell}", 1), rtol=1e-4, atol=1e-5)
    assert (tmp_path / "twice/tokenizer.json").exists()


def test_a_merged_new_lora_is_added_to_the_tuned_weights(walked_all: Path, tmp_path: Path, run: Run) -> None:
    assert run("export", "-m", "full_ft_then_lora", "--merge", "--out", tmp_path, "-C", walked_all) == 0
    backbone, _ = load_backbone(walked_all / "data/backbone")
    tuned = load_adapter(walked_all / "data/pretrain/full_ft-s0/adapters.safetensors")
    assert isinstance(tuned, Weights)
    tuned.put_into(backbone)
    adapter = load_adapter(walked_all / "data/adapt/full_ft_then_lora-s0/adapters.safetensors").select([0])
    attach(backbone, adapter)
    with torch.no_grad():
        expected = logits_of(AdaptedModel(backbone, adapter).eval(), None, IDS, IDS[:, :3])
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "swap").eval()
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


def test_an_export_says_where_it_came_from(walked_all: Path, run: Run) -> None:
    assert run("export", "-m", "mhr", "--task", "swap", "-C", walked_all) == 0
    folder = walked_all / "data/export/adapt/mhr-h4-s0/swap"
    card = json.loads((folder / "card.json").read_text())
    assert (card["stage"], card["params"]["cell"]["method"], card["facts"]["task"]) == ("export", "mhr", "swap")
    assert set(card["parents"]) == {"adapt"}
    readme = ModelCard.load(folder / "README.md")
    assert readme.data.library_name == "peft"
    assert "mhr" in readme.data.tags
    assert "task `swap`" in readme.text
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("data/backbone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "mhr", "--task", "swop"], "--task swop: unknown task 'swop'; did you mean 'swap'?"),
        (
            ["-m", "mhr", "--stage", "pretrain", "--task", "swap"],
            "--task swap: the pretrain output of mhr-h4-s0 is one",
        ),
        (["-m", "mhr", "--stage", "pretrain", "--merge"], "--merge: a routed inventory is no single adapter"),
        (["-m", "full_ft"], "--to peft: full_ft tunes whole weights, which are no adapter; use --merge"),
        (
            ["-m", "hydra_lora", "--merge"],
            "--merge: hydra_lora mixes its LoRAs for each token, as no single one does; answer with it by `mhrctl predict",
        ),
        (["-m", "smear"], "--to peft: smear mixes its LoRAs for each prompt, as no single one does; answer with it by `mhrctl"),
        (
            ["-m", "arrow"],
            "as no single one does; export the pool (`mhrctl export adapter_soup-s0 --stage pretrain`)",
        ),
        (["-m", "full_ft_then_lora"], "--to peft: the LoRA of full_ft_then_lora belongs on tuned weights; use --merge"),
        (["-m", "lorauter"], "lorauter-s0: each query is answered by a mixture of its own, so that there is no one adapter"),
        (["-m", "mhr", "--heads", "2"], "run `mhrctl adapt mhr-h2-s0`"),
        (["-m", "lora", "--extra-steps", "3"], "--extra-steps: such a cell is not adapted; export --stage pretrain"),
        ([], "name the cell, such as mhr-h8-s0, or its --method"),
    ],
)
def test_what_cannot_leave_is_rejected(
    walked_all: Path, run: Run, capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run("export", *options, "-C", walked_all) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nothing_of_the_users_is_replaced(
    walked_all: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    options = ("export", "-m", "lora", "--stage", "pretrain", "-C", walked_all)
    for out in (tmp_path / "mine", walked_all / "data/pretrain/lora-s0"):
        before = sorted(path.name for path in out.iterdir())
        assert run(*options, "--out", out) == 2
        assert "holds other things, which an export would replace; name a new folder" in capfd.readouterr().err
        assert sorted(path.name for path in out.iterdir()) == before
    for _ in range(2):  # an export may be made again
        assert run(*options, "--out", tmp_path / "new") == 0


def test_tied_weights_are_not_merged(copy: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "-m", "lora", "--set", "pretrain.targets=.*", "-C", copy) == 0
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", tmp_path / "a", "-C", copy) == 0
    assert run("export", "-m", "lora", "--stage", "pretrain", "--merge", "--out", tmp_path / "b", "-C", copy) == 2
    assert "--merge: lm_head shares its weights with another layer" in capfd.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_file_beside_an_export_s_own_is_not_lost(
    walked_all: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("export", "-m", "lora", "--stage", "pretrain", "-C", walked_all)
    assert run(*options, "--out", tmp_path / "new") == 0
    (tmp_path / "new/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for out, said in (("new", "holds notes.txt"), ("file", "is a file"), ("/proc/self/x", "cannot be written")):
        capfd.readouterr()
        assert run(*options, "--out", tmp_path / out) == 2
        assert said in capfd.readouterr().err
    assert (tmp_path / "new/notes.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_what_was_trained_on_a_gguf_file_belongs_on_the_weights_that_were_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = BackboneFacts(
        source="hub",
        name="a/b",
        path=None,
        revision="abc",
        parameters=1,
        tied_output=True,
        fingerprint="f",
        gguf="b-q4.gguf",
    )
    monkeypatch.setattr(export, "read_card", lambda *_args, **_options: SimpleNamespace(facts=facts))
    base = export._base(tmp_path)
    assert (base.source, base.name, base.revision) == ("local", str(tmp_path.resolve()), None)
    facts = facts.model_copy(update={"gguf": None})
    base = export._base(tmp_path)
    assert (base.source, base.name, base.revision) == ("hub", "a/b", "abc")
