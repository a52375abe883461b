"""A family leaves for servers: a LoRA a task, and who answers what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import Gemma3Config, PretrainedConfig

from mhrctl.errors import ParamsError
from mhrctl.interchange.serving import require_servable
from mhrctl.tools.serving import require_servable_backbone
from tests.conftest import Run
from tests.tools.test_decoder_only import TASKS, bare, causal, ours, theirs, walked_causal

__all__ = ["causal", "walked_causal"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft calls it
Capture = pytest.CaptureFixture[str]


def test_a_routed_family_leaves_as_a_lora_a_task(causal: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    assert run("evaluate", "-m", "mhr", "-C", causal) == 0
    assert run("export", "-m", "mhr", "--to", "serving", "--out", tmp_path / "family", "-C", causal) == 0
    assert f"wrote 2 PEFT folders to {tmp_path / 'family'}, and routes.json" in capfd.readouterr().err
    record = json.loads((tmp_path / "family/routes.json").read_text())
    assert record["base"] == {"source": "scratch", "name": str(causal / "data/backbone"), "revision": None}
    assert (record["cell"], record["stage"], record["suite"], record["max_lora_rank"]) == ("mhr-h4-s0", "adapt", "jsonl", 1)
    assert list(record["routes"]) == TASKS
    by_task = json.loads((causal / "data/metrics/evaluate/mhr-h4-s0.json").read_text())["by_task"]
    for number, (task, route) in enumerate(record["routes"].items()):
        folder = tmp_path / "family" / route["adapter"]
        require_servable(folder)
        assert (route["model"], route["rank"], route["metric"]) == (task, 1, "rouge_l")
        assert route["score"] == by_task[task]["adapted"]
        assert route["sha256"] == hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        assert len(route["skills"]) == 2
        assert sum(route["skills"]) == pytest.approx(1, abs=1e-3)
        wrapped = peft.PeftModel.from_pretrained(bare(causal / "data/backbone"), folder)
        expected = ours(causal, "adapt/mhr-h4-s0", number=number)
        torch.testing.assert_close(theirs(wrapped), expected, rtol=1e-4, atol=1e-5)
    assert record["routes"]["swap"]["sha256"] != record["routes"]["twice"]["sha256"]


def test_a_light_adapter_is_filled_up(causal: Path, tmp_path: Path, run: Run) -> None:
    for stage in ("pretrain", "adapt"):
        assert (
            run(stage, "-m", "lora", "-C", causal, *(("--set", "pretrain.targets=light") if stage == "pretrain" else ())) == 0
        )
    assert run("export", "-m", "lora", "--to", "serving", "--task", "swap", "--out", tmp_path / "light", "-C", causal) == 0
    record = json.loads((tmp_path / "light/routes.json").read_text())
    assert list(record["routes"]) == ["swap"]
    assert record["routes"]["swap"]["score"] is None  # nobody has evaluated it
    assert "skills" not in record["routes"]["swap"]
    config = json.loads((tmp_path / "light/swap/adapter_config.json").read_text())
    assert {name.rpartition(".")[2] for name in config["target_modules"]} >= {"q_proj", "k_proj", "v_proj"}
    wrapped = peft.PeftModel.from_pretrained(bare(causal / "data/backbone"), tmp_path / "light/swap")
    torch.testing.assert_close(theirs(wrapped), ours(causal, "adapt/lora-s0"), rtol=1e-4, atol=1e-5)


def test_what_no_server_loads_is_one_line(causal: Path, walked_all: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    out = ("--to", "serving", "--out", tmp_path / "out")
    assert run("export", "-m", "lora", *out, "-C", walked_all) == 2
    assert "vLLM and SGLang serve no encoder-decoder, such as this t5; use --to peft and tran" in capfd.readouterr().err
    assert run("export", "-m", "ia3", *out, "-C", walked_all) == 2
    assert "--to serving: what ia3 trains is no LoRA, and servers take nothing else; use --merge" in capfd.readouterr().err
    for wrong in (("--stage", "pretrain"), ("--merge",)):
        assert run("export", "-m", "mhr", *wrong, *out, "-C", causal) == 2
        assert "--to serving: writes a LoRA a task, which --stage adapt has" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_backbone_must_be_the_whole_model(tmp_path: Path) -> None:
    config = Gemma3Config()
    config.save_pretrained(tmp_path / "whole")
    text = config.get_text_config(decoder=True)
    text.save_pretrained(tmp_path / "text")
    require_servable_backbone(text, str(tmp_path / "text"), None, transposed=False)
    with pytest.raises(ParamsError, match="whole is a gemma3, whose layers are called otherwise than those of its gemma3_text"):
        require_servable_backbone(text, str(tmp_path / "whole"), None, transposed=False)
    with pytest.raises(ParamsError, match="the layers of gemma3_text have transposed weights, to which no server adds a LoRA"):
        require_servable_backbone(text, str(tmp_path / "text"), None, transposed=True)
    assert isinstance(text, PretrainedConfig)
