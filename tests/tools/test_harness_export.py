"""Test tasks leave as the harness's: what is written, what is refused. `test_harness.py` runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.config.sections import EvaluateParams
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.evaluation import text_scores
from mhrctl.tools.harness_export import export_tasks


def test_a_task_is_a_yaml_and_its_examples(walked: Path, tmp_path: Path) -> None:
    out = export_tasks(Project(walked), EvaluateParams(beams=2, max_new_tokens=7), tasks=["twice"], out=tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", "scores.py", "twice.jsonl", "twice.yaml"]
    assert (out / "scores.py").read_text() == Path(text_scores.__file__).read_text()
    yaml = YAML(typ="safe")
    yaml.constructor.add_constructor("!function", lambda loader, node: f"!{loader.construct_scalar(node)}")
    task = yaml.load(out / "twice.yaml")
    assert task["task"] == "mhrctl_twice"
    assert task["generation_kwargs"] == {"until": [], "do_sample": False, "max_gen_toks": 7, "num_beams": 2}
    assert task["process_results"] == "!scores.of_generated"
    assert [each["metric"] for each in task["metric_list"]] == ["rouge_l", "exact_match"]
    assert task["metadata"]["mhrctl"]["task"] == "twice"
    rows = [json.loads(line) for line in (out / "twice.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert rows[0]["prompt"].startswith("twice\n\n")
    assert rows[0]["target"] in rows[0]["targets"]
    assert f"--harness-tasks {out}" in (out / "README.md").read_text()
    # The same again is written over; other things are not.
    assert export_tasks(Project(walked), EvaluateParams(), tasks=["twice"], out=out) == out


def test_what_cannot_leave_is_one_line(walked: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--task copy: unknown test task 'copy' \(known: swap, twice\)"):
        export_tasks(Project(walked), EvaluateParams(), tasks=["copy"], out=tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="holds other things, which an export would replace"):
        export_tasks(Project(walked), EvaluateParams(), out=tmp_path / "mine")
    with pytest.raises(ParamsError):
        export_tasks(Project(walked), EvaluateParams(), out=walked / "data/prepare/tokenizer/x")
    with pytest.raises(ArtifactError, match="no finished prepare output"):
        export_tasks(Project(tmp_path), EvaluateParams(), out=tmp_path / "out")
