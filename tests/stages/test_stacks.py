"""A cell on another through all stages: what is trained, what is refused, what is swapped, and how it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import peft
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.adapters.stack import over
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach
from mhrctl.models.backbones import load_backbone
from mhrctl.tools.model_card import addressed
from tests.adapters.test_inventory import randomised
from tests.conftest import PARAMS, Run, mhrctl, reseal
from tests.models.made import logits_of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
IDS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]])
OVER = PARAMS.replace("    poly:\n", "    poly: {pretrain: {under: lora}}\n").replace(
    "    mhr_mu: {heads: [4]}\n", "    mhr_mu: {heads: [4], adapt: {under: lora}}\n"
)


@pytest.fixture(scope="module")
def stacked(walked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Poly pre-trained, and MHR's average adapted, on a LoRA that makes a difference."""
    folder = Path(shutil.copytree(walked, tmp_path_factory.mktemp("stacked") / "project"))
    (folder / "params.yaml").write_text(OVER)
    lower = folder / "data/pretrain/lora-s0"
    adapter = load_adapter(lower / ADAPTERS)
    assert isinstance(adapter, Inventory)
    torch.manual_seed(0)
    save_adapter(randomised(adapter), lower / ADAPTERS)
    reseal(lower)
    steps = [["grid", "sync"], ["pretrain", "-m", "poly"], ["adapt", "-m", "poly"], ["evaluate", "-m", "poly"]]
    for step in [*steps, ["adapt", "-m", "mhr_mu"], ["evaluate", "-m", "mhr_mu"]]:
        assert mhrctl(*step, "-C", folder) == 0, step
    return folder


@pytest.fixture
def changed(stacked: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(stacked, tmp_path / "project"))


def card(project: Path, folder: str) -> Any:
    return json.loads((project / "data" / folder / "card.json").read_text())


@pytest.mark.parametrize(("folder", "settings"), [("pretrain/poly-s0", "pretrain"), ("adapt/mhr_mu-h4-s0", "adapt")])
def test_files_hold_the_upper_one_and_cards_name_the_lower(stacked: Path, folder: str, settings: str) -> None:
    lower = digest(stacked / "data/pretrain/lora-s0" / ADAPTERS)
    said = card(stacked, folder)
    assert (said["params"][settings]["under"], said["facts"]["under"]) == (
        "lora",
        {"stage": "pretrain", "cell": "lora-s0", "sha256": lower},
    )
    assert said["parents"]["under"] == said["facts"]["under"]["sha256"]
    plain = card(stacked, "pretrain/mhr-h4-s0")
    assert "under" not in {**plain["facts"], **plain["parents"], **plain["params"]["pretrain"]}


def test_a_lower_one_changes_training(stacked: Path, walked: Path) -> None:
    before, after = (load_adapter(project / "data/pretrain/poly-s0" / ADAPTERS).tensors() for project in (walked, stacked))
    assert {name: tensor.shape for name, tensor in before.items()} == {name: tensor.shape for name, tensor in after.items()}
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_all_is_up_to_date_until_the_lower_one_changes(changed: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    for stage in ("pretrain", "adapt", "evaluate"):
        assert run(stage, "-m", "poly", "-C", changed) == 0
        assert f"{stage}/poly-s0 is up to date" in capfd.readouterr().err
    assert run("pretrain", "-m", "lora", "--set", "pretrain.steps=1", "-C", changed) == 0
    capfd.readouterr()
    assert run("adapt", "-m", "poly", "-C", changed) == 2
    said = "pretrain/poly-s0: was trained on {}/data/pretrain/lora-s0, which is another now; run `mhrctl pretrain poly-s0`"
    assert said.format(changed) in capfd.readouterr().err
    assert run("predict", "-m", "poly", "-C", changed) == 2
    assert "which is another now; run `mhrctl adapt poly-s0`" in capfd.readouterr().err
    shutil.rmtree(changed / "data/pretrain/lora-s0")
    assert run("export", "-m", "poly", "-C", changed) == 2
    assert "which is not there; run `mhrctl pretrain lora-s0`" in capfd.readouterr().err
    assert run("pretrain", "-m", "poly", "-C", changed) == 2
    assert "data/pretrain/lora-s0: no finished pretrain output" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adapt", "-m", "mhr_mu", "--set", "adapt.under=poly"], "poly is no single LoRA; name a cell of lora, poly_mu"),
        (["adapt", "-m", "mhr_mu", "--set", "adapt.under=nobody"], "adapt.under nobody: no name of a cell, such as lora-s0"),
        (["adapt", "-m", "mhr_mu", "--set", "adapt.under=lora-h4"], "adapt.under lora-h4: --heads 4: lora has one head"),
        (["pretrain", "-m", "ia3", "--set", "pretrain.under=lora"], "--set pretrain.under: ia3 does not read it"),
        (["pretrain", "-m", "lora", "--extra-steps", "2", "--set", "pretrain.under=lora"], "extra steps train the adapter"),
        (
            ["pretrain", "-m", "poly", "--set", "pretrain.align_every=2"],
            "align_every measures an adapter with nothing under it",
        ),
        (["align", "-m", "poly"], "was trained on another adapter, and alignment is of one with nothing under it"),
        (["align", "-m", "poly", "--at", "start"], "pretrain.under lora: alignment is of an adapter with nothing under it"),
        (["export", "-m", "poly", "--stage", "pretrain"], "a routed inventory on another adapter has no form in peft"),
        (["export", "-m", "lora", "--stack"], "--stack: nothing lies under these adapters"),
        (["export", "-m", "poly", "--stack", "--merge"], "--stack: PEFT folders alone are stacked"),
    ],
)
def test_what_cannot_be_stacked_is_refused_in_a_line(
    stacked: Path, run: Run, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(*arguments, "-C", stacked) == 2
    captured = capfd.readouterr().err
    assert said in captured
    assert "Traceback" not in captured


def test_a_section_for_all_methods_is_refused_by_those_that_train_no_lora(
    changed: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (changed / "params.yaml").read_text().replace("pretrain:\n  skills", "pretrain:\n  under: lora\n  skills")
    (changed / "params.yaml").write_text(text.replace("    lora:\n", "    lora:\n    ia3:\n"))
    assert run("check", "-C", changed) == 2
    said = "params.yaml:12: cell ia3-s0: pretrain.under lora: ia3 cannot be trained on another adapter"
    assert said in capfd.readouterr().err


def test_another_lower_one_is_put_under_without_training(changed: Path, run: Run) -> None:
    """The lower one of seed 1 in place of that of seed 0 answers as it does by hand."""
    assert run("pretrain", "-m", "lora", "--seed", 1, "-C", changed) == 0
    assert run("evaluate", "-m", "poly", "--set", "evaluate.under=lora-s1", "-C", changed) == 0
    assert card(changed, "evaluate/poly-s0")["params"]["evaluate"]["under"] == "lora-s1"
    swapped = changed / "data/pretrain/lora-s1" / ADAPTERS
    assert card(changed, "evaluate/poly-s0")["parents"]["under"] == digest(swapped)


def ours(project: Path, folder: str, under: str | None, number: int) -> Tensor:
    backbone, _ = load_backbone(project / "data/backbone")
    adapter = load_adapter(project / "data" / folder / ADAPTERS).select([number])
    lower = load_adapter(project / "data" / under / ADAPTERS) if under else None
    adapter = over(lower, adapter)
    attach(backbone, adapter)
    with torch.no_grad():
        return logits_of(AdaptedModel(backbone, adapter).eval(), torch.tensor([[0]]), IDS, IDS[:, :3])


def base(project: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(project / "data/backbone").eval()
    return model


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    output: Tensor = model(input_ids=IDS, labels=IDS[:, :3].contiguous()).logits
    return output


def test_exports_give_our_logits_in_peft(stacked: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Joined into one LoRA, as a stack of two, and merged into the weights."""
    for form, option in (("joined", []), ("stack", ["--stack"]), ("merged", ["--merge"])):
        assert run("export", "-m", "poly", *option, "--out", tmp_path / form, "-C", stacked) == 0
    for number, task in enumerate(("swap", "twice")):
        expected = ours(stacked, "adapt/poly-s0", "pretrain/lora-s0", number)
        assert not torch.allclose(expected, ours(stacked, "adapt/poly-s0", None, number))
        joined = peft.PeftModel.from_pretrained(base(stacked), tmp_path / "joined" / task).eval()
        assert json.loads((tmp_path / "joined" / task / "adapter_config.json").read_text())["r"] == 2
        torch.testing.assert_close(logits(joined), expected)
        stack = peft.PeftModel.from_pretrained(base(stacked), tmp_path / "stack" / task)
        stack.load_adapter(tmp_path / "stack" / task, adapter_name="under", subfolder="under")
        cast("Any", stack.base_model).set_adapter(["under", "default"])
        torch.testing.assert_close(logits(stack.eval()), expected)
        torch.testing.assert_close(
            logits(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged" / task).eval()), expected, atol=1e-4, rtol=1e-4
        )
    readme = (tmp_path / "stack/swap/README.md").read_text()
    assert 'model.base_model.set_adapter(["under", "default"])' in readme
    assert 'model.load_adapter("me/mine", adapter_name="under", subfolder="under")' in addressed(readme, "me/mine")
    capfd.readouterr()
    asked = tmp_path / "in.jsonl"
    asked.write_text('{"input": "ant bee"}')
    assert run("predict", asked, "--adapter", tmp_path / "stack/swap", "-C", stacked) == 2
    assert "is one of two adapters; export it without --stack, or name its cell" in capfd.readouterr().err


def test_predictions_are_those_of_evaluation(stacked: Path, tmp_path: Path, run: Run) -> None:
    """Predict reads the lower one by the card of the upper."""
    lines = (stacked / "tasks/test/swap.jsonl").read_text().splitlines()
    rows = pq.read_table(stacked / "data/evaluate/poly-s0/predictions.parquet").to_pylist()
    evaluated = {row["prediction"] for row in rows if row["phase"] == "adapted" and row["task"] == "swap"}
    asked, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("\n".join(lines))
    assert run("predict", asked, "-m", "poly", "--task", "swap", "--out", out, "-C", stacked) == 0
    assert evaluated <= {json.loads(line)["answer"] for line in out.read_text().splitlines()}
