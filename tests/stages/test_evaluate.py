"""evaluate: phases, references, and the scores that git keeps."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from mhrctl.adapters.adapter import Adapter
from mhrctl.adapters.files import load_adapter, save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.errors import ArtifactError
from mhrctl.evaluation import answering
from mhrctl.evaluation.scores import read_metrics
from mhrctl.evaluation.text_scores import exact_match, rouge_l
from mhrctl.models.folding import folded
from mhrctl.stages import evaluate
from tests.adapters.test_inventory import randomised
from tests.conftest import Run, reseal


def test_predictions_and_scores_agree(walked: Path) -> None:
    metrics = read_metrics(walked / "data/metrics/evaluate")
    rows = pq.read_table(walked / "data/evaluate/mhr-h4-s0/predictions.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 4  # phases, tasks, examples
    for row in rows:
        assert row["rouge_l"] == rouge_l(row["prediction"], row["references"])
        assert row["exact_match"] == exact_match(row["prediction"], row["references"])
    adapted = metrics["mhr-h4-s0"].adapted
    assert adapted is not None
    assert adapted["rouge_l"] == pytest.approx(fmean(row["rouge_l"] for row in rows if row["phase"] == "adapted"), abs=1e-4)
    assert (metrics["mhr-h4-s0"].tasks, metrics["mhr-h4-s0"].examples) == (2, 8)
    assert (metrics["mhr-h4-s0"].layout, metrics["backbone"].layout) == ("full", None)


def test_variants_of_a_method_start_from_the_same_zero_shot(walked: Path) -> None:
    metrics = read_metrics(walked / "data/metrics/evaluate")
    assert metrics["mhr-h4-s0"].zero_shot == metrics["mhr_z-h4-s0"].zero_shot == metrics["mhr_mu-h4-s0"].zero_shot
    assert metrics["backbone"].adapted is None


def test_zero_shot_needs_no_adaptation(copy: Path, run: Run) -> None:
    before = json.loads((copy / "data/metrics/evaluate/lora-s0.json").read_text())
    assert run("evaluate", "-m", "lora", "--zero-shot", "-C", copy) == 0
    after = json.loads((copy / "data/metrics/evaluate/lora-s0.json").read_text())
    assert after["zero_shot"] == before["zero_shot"]
    assert after["adapted"] is None


def test_adapters_of_other_tasks_are_refused(copy: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "-C", copy, "--set", "prepare.test_tasks=[swap]") == 0
    capfd.readouterr()
    assert run("evaluate", "-m", "lora", "-C", copy) == 2
    assert "test_tasks.parquet has changed since; run `mhrctl adapt lora-s0`" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["lora", "mhr"])
def test_folding_changes_no_prediction(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    name = "mhr-h4-s0" if method == "mhr" else "lora-s0"
    inside: list[Adapter] = []

    def noticed(backbone: Any, adapter: Adapter) -> AbstractContextManager[None]:
        inside.append(adapter)
        return folded(backbone, adapter)

    def answers(phase: str, cell: str = name) -> list[str]:
        rows = pq.read_table(copy / f"data/evaluate/{cell}/predictions.parquet").to_pylist()
        return [row["prediction"] for row in rows if row["phase"] == phase]

    monkeypatch.setattr(answering, "folded", noticed)
    with_choices(copy / "tasks/test/twice.jsonl")  # the answers of the other task are generated
    start = copy / f"data/pretrain/{name}/adapters.safetensors"
    adapter = load_adapter(start)
    assert isinstance(adapter, Inventory)
    torch.manual_seed(0)
    randomised(adapter)
    with torch.no_grad():
        for parameter in adapter.lora_B:
            parameter.mul_(10)  # it makes a difference, whatever the tiny backbone says
    save_adapter(adapter, start)
    reseal(start.parent)
    assert run("prepare", "-C", copy) == 0
    prepared = copy / "data/prepare"
    parents = {"examples": prepared / "test_tasks.parquet", "tasks": prepared / "tasks.json", "start": start}
    reseal(copy / "data/adapt" / name, **parents)
    said, scores = [], []
    for options in ((), ("--off", "folding")):
        assert run("evaluate", "-m", method, "-C", copy, "--force", *options) == 0
        said.append((answers("zero_shot"), answers("adapted")))
        scores.append((copy / f"data/metrics/evaluate/{name}.json").read_text())
    assert said[0] == said[1]
    assert scores[0] == scores[1]
    assert [adapter.runs for adapter in inside] == [1]  # the adapter before adaptation, which serves both tasks
    assert run("evaluate", "-m", "backbone", "-C", copy) == 0
    assert said[0][0] != answers("zero_shot", "backbone")  # it made a difference


def test_places_of_chosen_answers_are_kept(copy: Path, run: Run) -> None:
    with_choices(copy / "tasks/test/twice.jsonl")
    assert run("prepare", "-C", copy) == 0
    assert run("evaluate", "-m", "backbone", "-C", copy) == 0
    for row in pq.read_table(copy / "data/evaluate/backbone/predictions.parquet").to_pylist():
        assert (row["place"] is None) == (row["accuracy"] is None) == (row["task"] == "swap")
        if row["place"] is not None:
            assert row["accuracy"] == 100.0 * (row["place"] in row["right_places"])


def test_scores_and_cards_name_the_tokenizer_and_the_weights(copy: Path, run: Run) -> None:
    path = copy / "tasks/test/twice.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"target": f"{row['target']} άλφα"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("prepare", "-C", copy) == 0
    expected = {"swap": "english", "twice": "gpt2"}
    table = json.loads((copy / "data/prepare/tasks.json").read_text())["tasks"]
    assert {row["name"]: row["rouge_tokenizer"] for row in table if row["role"] == "test"} == expected
    assert run("adapt", "-m", "lora", "-C", copy) == 0
    assert run("evaluate", "-m", "lora", "-C", copy) == 0
    for stage in ("adapt", "evaluate"):
        card = json.loads((copy / f"data/{stage}/lora-s0/card.json").read_text())
        assert card["facts"]["rouge_tokenizers"] == expected
    cell = read_metrics(copy / "data/metrics/evaluate")["lora-s0"]
    assert {task: of.rouge_tokenizer for task, of in cell.by_task.items()} == expected
    for row in pq.read_table(copy / "data/evaluate/lora-s0/predictions.parquet").to_pylist():
        assert row["rouge_l"] == rouge_l(row["prediction"], row["references"], expected[row["task"]])
    facts = json.loads((copy / "data/backbone/card.json").read_text())["facts"]
    assert cell.frozen is not None
    assert cell.frozen.model_dump() == {name: facts[name] for name in ("source", "parameters", "fingerprint")}


def test_a_setting_decides_the_tokenizer(copy: Path, run: Run) -> None:
    assert run("prepare", "-C", copy, "--set", "prepare.rouge_tokenizer=gpt2") == 0
    table = json.loads((copy / "data/prepare/tasks.json").read_text())["tasks"]
    assert {row.get("rouge_tokenizer") for row in table if row["role"] == "test"} == {"gpt2"}
    assert run("prepare", "-C", copy, "--set", "prepare.rouge_tokenizer=gpt3") == 2


def test_a_task_without_test_examples_is_refused(walked: Path, tmp_path: Path) -> None:
    table = pq.read_table(walked / "data/prepare/test_tasks.parquet")
    keep = pc.or_(pc.not_equal(table["task"], "twice"), pc.not_equal(table["split"], "test"))
    pq.write_table(table.filter(keep), tmp_path / "test_tasks.parquet")
    with pytest.raises(ArtifactError, match=r"test_tasks.parquet: no test examples: twice; run `mhrctl prepare`"):
        evaluate._test_examples(tmp_path)
    pq.write_table(table.slice(0, 0), tmp_path / "test_tasks.parquet")
    with pytest.raises(ArtifactError, match="no test examples: of any task"):
        evaluate._test_examples(tmp_path)


def with_choices(path: Path) -> None:
    """Make a task one whose answers are chosen."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    words = sorted({row["target"] for row in rows})
    path.write_text("".join(json.dumps({**row, "choices": words}) + "\n" for row in rows))
