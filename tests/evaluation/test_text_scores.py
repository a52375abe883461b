"""The file that scores texts works alone, as a copy beside tasks of the harness; its numbers are tested beside their uses."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mhrctl.evaluation import text_scores
from mhrctl.evaluation.text_scores import MERGES, dataset, of_chosen, of_generated

SOURCE = Path(text_scores.__file__)
METRICS = ["rouge_l", "exact_match", "f1"]


def example(**more: Any) -> dict[str, Any]:
    metrics = [*METRICS, *(f"{name}_drawn" for name in METRICS)]
    row = {"targets": ["the cat", "dogs"], "reference": 1, "rouge_tokenizer": "english", "metrics": metrics}
    return row | more


def test_it_imports_nothing_of_mhrctl_and_no_dataclass() -> None:
    """The harness executes it without putting it among the modules, where dataclasses look."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not {name for name in modules if name.startswith(("mhrctl", "dataclasses"))}


def test_a_copy_scores_every_script_where_there_is_no_mhrctl(tmp_path: Path) -> None:
    shutil.copy(SOURCE, tmp_path / "scores.py")
    shutil.copy(SOURCE.with_name(MERGES), tmp_path / MERGES)
    code = (
        "import sys; sys.modules['mhrctl'] = None; import scores; print(scores.rouge_l('άλφα βήτα', ['άλφα'], 'by_reference'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(text_scores.rouge_l("άλφα βήτα", ["άλφα"], "gpt2"))


def test_a_generated_answer_is_scored_against_all_targets_and_the_drawn_one() -> None:
    said = of_generated(example(), [" The cat.\n"])
    assert said == {
        "rouge_l": 1.0,
        "exact_match": 1.0,
        "f1": 1.0,
        "rouge_l_drawn": 0.0,
        "exact_match_drawn": 0.0,
        "f1_drawn": 0.0,
    }
    assert of_generated(example(metrics=["rouge_l"]), ["dog"]) == {"rouge_l": 1.0}  # the stemmer folds dogs


def test_a_choice_is_the_best_by_token_by_sum_or_by_letter() -> None:
    row = example(
        targets=["b"],
        reference=0,
        choices=["a", "b", "a long one"],
        lengths=[1, 4, 2],
        length_norm=1.0,
        metrics=["accuracy", "acc", "acc_norm", "accuracy_drawn", "exact_match"],
    )
    likelihoods = [(-3.0, True), (-4.0, False), (-9.0, False)]  # a token: -3, -1, -4.5; a letter: -3, -4, -0.9
    assert of_chosen(row, likelihoods) == {
        "accuracy": 1.0,
        "acc": 0.0,
        "acc_norm": 0.0,
        "accuracy_drawn": 1.0,
        "exact_match": 1.0,
    }
    assert of_chosen(row | {"length_norm": 0.0}, likelihoods)["accuracy"] == 0.0
    assert of_chosen(row | {"targets": ["a long one"]}, likelihoods)["acc_norm"] == 1.0
    twice = row | {"choices": ["b", "b", "c"], "targets": ["b"]}
    assert of_chosen(twice, [(-1.0, False), (-9.0, False), (-9.0, False)])["accuracy"] == 1.0  # equal choices are one
    tied = [(-2.0, False), (-8.0, False), (-4.0, False)]
    assert of_chosen(row, tied)["accuracy"] == 0.0  # of equal ones the first


def test_examples_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": "1", "prompt": "a\u2028b"}, {"id": "2", "prompt": "c"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(text_scores, "__file__", str(tmp_path / "scores.py"))
    assert dataset("rows.jsonl", version=1)["test"].to_list() == rows
