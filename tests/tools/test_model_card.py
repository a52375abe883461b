"""The README of an export: its code is run, and says what `mhrctl evaluate` has recorded."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.sealing import sealed
from mhrctl.config.cells import Cell
from mhrctl.tools.model_card import looked_up
from tests.conftest import PARAMS, Run, mhrctl, write_tasks
from tests.data.kinds import CHATS, llama_3

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # peft calls it
]


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the code of a folder's README prints, run in the folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(folder / "README.md"), "exec"), {})  # noqa: S102 - what a user does
    return printed.getvalue().removesuffix("\n")


def first_answer(project: Path, cell: str, task: str, phase: str = "adapted") -> str:
    """What `mhrctl evaluate` has recorded for a task's first test example."""
    rows = pq.read_table(project / "data/evaluate" / cell / "predictions.parquet").to_pylist()
    return next(str(row["prediction"]) for row in rows if (row["task"], row["phase"]) == (task, phase))


@pytest.mark.parametrize("options", [[], ["--merge"]], ids=["peft", "merged"])
@pytest.mark.parametrize("method", ["lora", "mhr"])
def test_the_code_answers_as_the_evaluation_did(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, method: str, options: list[str]
) -> None:
    assert run("export", "-m", method, *options, "-C", copy) == 0
    cell = "mhr-h4-s0" if method == "mhr" else "lora-s0"
    for task in ("swap", "twice"):
        folder = copy / f"data/export/adapt/{cell}/{task}"
        assert executed(folder, monkeypatch).strip() == first_answer(copy, cell, task)
        code = (folder / "README.md").read_text()
        assert str(copy) not in code.partition("```python")[2].partition("```")[0]
        assert (folder / "tokenizer.json").exists()


def causal_project(folder: Path, tokenizer: str, *, chat: bool) -> Path:
    """A project on a Llama with a tokenizer of its own, whose checkpoint ends texts as no chat does, with an adapted LoRA."""
    theirs = CHATS[tokenizer]() if chat else llama_3()
    theirs.save_pretrained(str(folder / "theirs"))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(theirs), eos_token_id=theirs.eos_token_id, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "theirs")
    text = PARAMS.replace("  tokenizer: word\n", f"  tokenizer: theirs\n  framing: causal\n{'  chat: true' if chat else ''}\n")
    start, _, rest = text.partition("  source: scratch\n")
    (folder / "params.yaml").write_text(f"{start}  source: local\n  name: theirs\n\n{rest.partition(chr(10) * 2)[2]}")
    write_tasks(folder / "tasks")
    for step in (["prepare"], ["backbone"], *([stage, "-m", "lora"] for stage in ("pretrain", "adapt", "evaluate"))):
        assert mhrctl(*step, "-C", folder) == 0, step
    return folder


@pytest.mark.parametrize("tokenizer", ["marked", "llama_3"])
def test_the_code_asks_a_causal_model_as_the_evaluation_did(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> None:
    project = causal_project(tmp_path, tokenizer, chat=tokenizer in CHATS)
    assert run("export", "-m", "lora", "--task", "swap", "-C", project) == 0
    folder = project / "data/export/adapt/lora-s0/swap"
    assert executed(folder, monkeypatch).strip() == first_answer(project, "lora-s0", "swap")
    code = (folder / "README.md").read_text()
    assert ("tokenizer.apply_chat_template(" in code) == (tokenizer in CHATS)


def test_a_merged_model_stops_at_the_end_of_a_turn_outside_mhrctl(tmp_path: Path, run: Run) -> None:
    project = causal_project(tmp_path, "marked", chat=True)
    tokenizer = CHATS["marked"]()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    of_base = GenerationConfig.from_pretrained(project / "theirs").eos_token_id
    assert of_base == tokenizer.eos_token_id != end
    assert run("export", "-m", "lora", "--merge", "--task", "swap", "-C", project) == 0
    folder = project / "data/export/adapt/lora-s0/swap"
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [of_base, end]
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, layer in model.named_parameters():
            layer.zero_()
            if name == "lm_head.weight":
                layer[end] = 1
        model.model.norm.weight.fill_(1)
        model.model.embed_tokens.weight.fill_(1)
    said = model.generate(torch.tensor([[5, 6]]), attention_mask=torch.ones(1, 2, dtype=torch.long), max_new_tokens=9)
    assert said.tolist() == [[5, 6, end]]
    # The adapter alone meets the checkpoint's own settings, and its code says so.
    assert run("export", "-m", "lora", "--task", "swap", "--out", tmp_path / "peft", "-C", project) == 0
    assert f"eos_token_id=[{of_base}, {end}]" in (tmp_path / "peft/swap/README.md").read_text()


def test_scores_and_examples_are_in_the_text_and_in_the_front_matter(copy: Path, run: Run) -> None:
    assert run("export", "-m", "lora", "--task", "swap", "-C", copy) == 0
    card = ModelCard.load(copy / "data/export/adapt/lora-s0/swap/README.md")
    line = next(line for line in (copy / "data/evaluate/lora-s0/scores.csv").read_text().splitlines() if "swap,adapted" in line)
    rouge, exact = map(float, line.split(",")[2:])
    assert card.data.pipeline_tag == "text2text-generation"
    results = {result.metric_type: result for result in card.data.eval_results or ()}
    assert {name: result.metric_value for name, result in results.items()} == {"rouge_l": rouge, "exact_match": exact}
    assert (results["rouge_l"].dataset_name, results["rouge_l"].dataset_type) == ("swap", "jsonl")
    assert "Learned from 3 examples of `swap`, with 3 more to choose the best step; " in card.text
    assert f"ROUGE-L {rouge:.1f}, exact match {exact:.1f} on its 4 test examples (seed 0)." in card.text


def test_without_an_evaluation_of_this_adapter_no_score_is_claimed(copy: Path, run: Run) -> None:
    assert run("adapt", "-m", "lora", "--set", "adapt.steps=2", "--force", "-C", copy) == 0
    assert run("export", "-m", "lora", "--task", "swap", "-C", copy) == 0
    card = ModelCard.load(copy / "data/export/adapt/lora-s0/swap/README.md")
    assert not card.data.eval_results
    assert "not evaluated when it was exported (seed 0)" in card.text


def test_what_is_for_all_tasks_shows_a_training_task(
    walked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    assert run("export", "-m", "lora", "--stage", "pretrain", "--out", tmp_path / "out", "-C", walked) == 0
    prompts = pq.read_table(walked / "data/prepare/training_tasks.parquet", columns=["prompt"])["prompt"].to_pylist()
    text = (tmp_path / "out/README.md").read_text()
    assert f"prompt = {json.dumps(prompts[0])}" in text
    assert "Pre-trained, and adapted to no task yet." in text
    executed(tmp_path / "out", monkeypatch)


def test_a_prompt_that_was_cut_is_not_shown(project: Path, run: Run) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("  examples: 4\n", "  examples: 4\n  max_input_tokens: 2\n", 1))
    assert run("prepare", "-C", project) == 0
    from mhrctl.artifacts.names import TOKENIZER
    from mhrctl.data.tokenization import saved_tokenizer

    where = Project(project)
    tokenizer = saved_tokenizer(where.output("prepare") / TOKENIZER)
    cell = Cell(method="lora")
    assert looked_up(cell, "pretrain", "swap", where, tokenizer=tokenizer, ends=None).shape is None


def test_data_sets_of_the_hub_and_the_recipe_are_named(copy: Path, run: Run) -> None:
    card = copy / "data/prepare/card.json"
    record = json.loads(card.read_text())
    del record["seal"]
    record["params"] |= {"source": "hub", "hub": "someone/questions", "test": {"hub": "someone/answers", "revision": "main"}}
    card.write_text(json.dumps(sealed(record)))
    assert run("export", "-m", "mhr_mu", "--task", "swap", "-C", copy) == 0
    readme = ModelCard.load(copy / "data/export/adapt/mhr_mu-h4-s0/swap/README.md")
    assert readme.data.datasets == ["someone/answers", "someone/questions"]
    recipe = YAML(typ="safe").load(readme.text.partition("```yaml\n")[2].partition("```")[0])
    assert (recipe["pretrain"]["steps"], recipe["adapt"]["shots"]) == (4, 3)
