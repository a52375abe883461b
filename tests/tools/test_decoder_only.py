"""A project on a decoder-only backbone goes through every tool: it is estimated, aligned, inspected, exported and imported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from mhrctl.adapters.files import load_adapter
from mhrctl.artifacts.names import ADAPTERS, Project
from mhrctl.config.cells import Cell
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import attach
from mhrctl.models.backbones import load_backbone
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.estimate import backbone_shape, estimate
from tests.conftest import PARAMS, Run, mhrctl, write_tasks
from tests.models.made import logits_of
from tests.tools.test_estimate import numbers

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
PROMPTS, ANSWERS = torch.tensor([[5, 6, 7, 8], [8, 9, 10, 11]]), torch.tensor([[12, 13], [14, 15]])
TASKS = ["swap", "twice"]


@pytest.fixture(scope="module")
def walked_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose scratch backbone is a Llama, with an MHR and a LoRA that are pre-trained and adapted."""
    folder = tmp_path_factory.mktemp("causal")
    text = PARAMS.replace("  tokenizer: word\n", "  tokenizer: word\n  framing: causal\n")
    (folder / "params.yaml").write_text(text.replace("scratch: {", "scratch: {architecture: llama, "))
    write_tasks(folder / "tasks")
    steps = [["prepare"], ["backbone"], *([stage, "-m", name] for name in ("lora", "mhr") for stage in ("pretrain", "adapt"))]
    for step in steps:
        assert mhrctl(*step, "-C", folder) == 0, step
    return folder


@pytest.fixture
def causal(walked_causal: Path, tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    return Path(shutil.copytree(walked_causal, tmp_path / "project"))


def ours(project: Path, folder: str, *, number: int = 0, task: int = 0) -> Tensor:
    """Logits of answers with the adapters of a folder's run attached, with a row of its routing."""
    backbone, _ = load_backbone(project / "data/backbone")
    adapter = load_adapter(project / "data" / folder / ADAPTERS).select([number]).eval()
    attach(backbone, adapter)
    with torch.no_grad():
        return logits_of(AdaptedModel(backbone, adapter).eval(), torch.tensor([[task]]), PROMPTS, ANSWERS)


def theirs(model: nn.Module, **options: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model.eval()(input_ids=torch.cat([PROMPTS, ANSWERS], 1), **options).logits
    return output[:, PROMPTS.shape[1] - 1 : -1]


def bare(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model


def test_what_leaves_is_the_same_function_and_comes_back(
    causal: Path, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    for method, cell in (("lora", "lora-s0"), ("mhr", "mhr-h4-s0")):
        out = tmp_path / method
        assert run("export", "-m", method, "--out", out, "-C", causal) == 0
        for number, task in enumerate(TASKS):
            wrapped = peft.PeftModel.from_pretrained(bare(causal / "data/backbone"), out / task)
            assert isinstance(wrapped, peft.PeftModelForCausalLM)
            expected = ours(causal, f"adapt/{cell}", number=number)
            torch.testing.assert_close(theirs(wrapped), expected, rtol=1e-4, atol=1e-5)
            assert not torch.equal(expected, theirs(bare(causal / "data/backbone")))
    readme = (tmp_path / "lora/swap/README.md").read_text()
    assert "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(" in readme
    assert "- text-generation\n" in readme
    # An inventory with its routing, as Poly
    assert run("export", "-m", "mhr", "--stage", "pretrain", "--out", tmp_path / "poly", "-C", causal) == 0
    wrapped = peft.PeftModel.from_pretrained(bare(causal / "data/backbone"), tmp_path / "poly")
    for row in range(3):
        said = theirs(wrapped, task_ids=torch.tensor([row, row]))
        torch.testing.assert_close(said, ours(causal, "pretrain/mhr-h4-s0", task=row), rtol=1e-4, atol=1e-5)
    # Whole models
    assert run("export", "-m", "mhr", "--merge", "--task", "twice", "--out", tmp_path / "merged", "-C", causal) == 0
    merged = theirs(bare(tmp_path / "merged/twice"))
    torch.testing.assert_close(merged, ours(causal, "adapt/mhr-h4-s0", number=1), rtol=1e-4, atol=1e-5)
    assert 'AutoModelForCausalLM.from_pretrained(".")' in (tmp_path / "merged/twice/README.md").read_text()
    # And back
    assert run("import", tmp_path / "poly", "--seed", 7, "-C", causal) == 0
    before, after = (load_adapter(causal / f"data/pretrain/mhr-h4-s{seed}" / ADAPTERS).state_dict() for seed in (0, 7))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    assert run("adapt", "-m", "mhr", "--seed", 7, "-C", causal) == 0
    capfd.readouterr()


def test_its_alignment_and_its_routing_are_of_the_model_alone(
    causal: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("align", "-m", "mhr", "--at", "end", "-C", causal) == 0
    shown = capfd.readouterr().out
    (row,) = [line.split() for line in shown.splitlines() if "shared skills" in line]
    assert row[2:4] == ["-", "-"]
    (record,) = [json.loads(path.read_text()) for path in causal.rglob("mhr-h4-s0.json") if "shared" in path.read_text()]
    assert (record["shared"]["encoder"], record["shared"]["decoder"]) == (None, None)
    assert -1 <= record["shared"]["overall"] <= 1
    assert all(layer.startswith("model.layers.") for layer in record["shared"]["layers"])
    assert run("inspect", "-m", "mhr", "--stage", "pretrain", "-C", causal) == 0
    shown = capfd.readouterr().out
    assert "all" in shown
    assert not any(line.split()[:1] in (["encoder"], ["decoder"]) for line in shown.splitlines())


def test_a_routing_of_encoder_and_decoder_is_refused(causal: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    said = "granularity coder: this backbone has no encoder and decoder; use layer, sublayer, block or model"
    for command in (["check"], ["pretrain", "-m", "poly"]):
        capfd.readouterr()
        assert run(*command, "--set", "pretrain.granularity=coder", "-C", causal) == 2
        error = capfd.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert run("pretrain", "-m", "poly", "--set", "pretrain.granularity=block", "-C", causal) == 0


def test_estimates_are_what_the_stages_wrote(causal: Path) -> None:
    where = Project(causal)
    settings = load_params(where.params)
    vocabulary = json.loads((where.output("prepare") / "card.json").read_text())["facts"]["vocab_size"]
    shape = backbone_shape(settings.params.backbone, where.root, vocabulary)
    assert shape is not None
    assert shape.weights == json.loads((where.output("backbone") / "card.json").read_text())["facts"]["parameters"]
    for cell in (Cell(method="lora"), Cell(method="mhr", heads=4)):
        estimated = estimate(resolve_cell(settings, cell), shape, TaskCounts(training=3, datasets=3, test=2))
        for (stage, name), size in estimated.outputs.items():
            assert 4 * numbers(where.output(stage, name) / ADAPTERS) == size, (stage, name)
