"""The README is two screens, and what a stranger does by its words works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.data.kinds import llama_3

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LINES, WIDTH = 150, 120
QUESTION = '{"task": "last", "input": "owl"}'


def test_it_is_two_screens() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES
    assert [line for line in lines if len(line) > WIDTH] == []


def commands_of(section: str) -> list[str]:
    """The commands that a section of the README shows, without its remarks."""
    text = README.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [line.split(" #")[0].strip() for line in re.findall(r"^\$ (.*)$", text, flags=re.MULTILINE)]


def test_the_example_of_a_line_is_one() -> None:
    (line,) = re.findall(r"^    (\{.*\})$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert json.loads(line) == {"definition": "Name the capital.", "input": "France", "target": "Paris"}


def write_tasks(folder: Path) -> None:
    """Three tasks to learn from and two to learn with few examples, in the form that the README shows."""
    words = ["cat", "dog", "sun", "sea", "oak", "bee", "ice", "map", "key", "owl"]
    for role, name, change in (
        ("training", "double", lambda word: f"{word} {word}"),
        ("training", "backwards", lambda word: word[::-1]),
        ("training", "first", lambda word: word[0]),
        ("test", "last", lambda word: word[-1]),
        ("test", "upper", lambda word: word.upper()),
    ):
        path = folder / role / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(f"{one} {number}", number) for number in range(12) for one in words]
        lines = [{"definition": f"Do: {name}.", "input": text, "target": change(text)} for text, _ in rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def save_llama(folder: Path) -> None:
    """A Llama of random weights, with a tokenizer that can say every text."""
    tokenizer = llama_3()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_the_walk_of_own_tasks(tmp_path: Path) -> None:
    """As it stands there, on a tiny model in place of one of the hub, and with fewer steps."""
    write_tasks(tmp_path / "my-tasks")
    save_llama(tmp_path / "model")
    at, seen = tmp_path, list[str]()
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for command in commands_of("Your own tasks"):
        words = shlex.split(re.sub(r"--backbone \S+", f"--backbone {tmp_path / 'model'}", command))
        if words[:2] == ["pip", "install"]:
            continue  # which has been done
        if words[0] == "cd":
            at = at / words[1]
            continue
        done = subprocess.run(words, cwd=at, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        seen.append(words[1])
        if seen[-1] == "init":
            _shorten(tmp_path / "study")
            (tmp_path / "study/questions.jsonl").write_text(QUESTION + "\n", encoding="utf-8")
        if seen[-1] == "predict":
            assert json.loads(done.stdout).items() > json.loads(QUESTION).items()
    assert seen == ["init", "check", "run", "report", "show", "predict", "export"]
    assert shutil.which("mhrctl")
    assert len(list((tmp_path / "study/data/export/adapt/mhr_mu-h8-s0").iterdir())) == 2


def _shorten(project: Path) -> None:
    """Train for a moment; the grid stays what it is."""
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"steps: (10000|200)\b", "steps: 2", text)
    text = re.sub(r"evaluate_every: \d+", "evaluate_every: 1", text)
    text = re.sub(r"max_new_tokens: \d+", "max_new_tokens: 4", text)
    path.write_text(text.replace("seeds: [0, 1, 2]", "seeds: [0]").replace("examples: 100", "examples: 20"), encoding="utf-8")
    subprocess.run(["mhrctl", "grid", "sync"], cwd=project, check=True, capture_output=True)
