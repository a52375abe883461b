"""`mhrctl check`."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from transformers import T5ForConditionalGeneration

from mhrctl.cli import check as checking
from mhrctl.cli import display
from mhrctl.config.resolve import load_params
from mhrctl.errors import DataError
from mhrctl.projects.templates import dvc_yaml
from mhrctl.suites.task import Seen, TaskCounts
from mhrctl.tools.check import shape_of
from tests.conftest import Run

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def synced(project: Path, run: Run) -> Path:
    assert run("grid", "sync", "-C", project) == 0
    return project


def edit(project: Path, old: str, new: str, run: Run) -> None:
    params = project / "params.yaml"
    assert old in params.read_text()
    params.write_text(params.read_text().replace(old, new))
    assert run("grid", "sync", "-C", project) == 0


def test_seeds_share_a_row_with_sizes_before_anything_runs(synced: Path, run: Run, capfd: Capture) -> None:
    edit(synced, "seeds: [0]", "seeds: [0, 1, 2, 3, 7]", run)
    capfd.readouterr()
    assert run("check", "-C", synced) == 0
    said = capfd.readouterr().out
    assert re.search(r"^ *25 cells *$", said, re.MULTILINE)
    assert re.search(r"^ mhr_mu-h4 0-3 7 +average +4 x 4 +4 x 2 +\d+ kB +[\d.]+ MB +0/5 *$", said, re.MULTILINE)
    assert "tasks: 3 to train on, 2 to test on" in said
    assert "?" not in said


def test_trials_that_take_as_much_are_one_row(synced: Path, run: Run, capfd: Capture) -> None:
    search = "    lora: {search: {lr: [0.01, 0.02, 0.03], steps: [2, 4]}}\n"
    edit(synced, "    lora:\n", search, run)
    capfd.readouterr()
    assert run("check", "-C", synced) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith(" lora")]
    assert [(row[0], row[6:9]) for row in rows] == [("lora", ["2", "x", "2"]), ("lora", ["4", "x", "2"])]
    edit(synced, search, "    lora: {search: {lr: [0.01, 0.02, 0.03]}}\n", run)
    capfd.readouterr()
    assert run("check", "-C", synced) == 0
    (row,) = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith(" lora")]
    assert (row[0], row[-1]) == ("lora", "0/3")


@pytest.mark.parametrize("study", sorted(path.name for path in (ROOT / "pipelines").iterdir()))
def test_the_studies_fit_80_columns_and_two_pages(
    study: str, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known_shape(*arguments: Any) -> Any:
        with suppress(DataError):
            return shape_of(*arguments)
        return None

    monkeypatch.setattr(display.out, "width", 80)
    monkeypatch.setattr(checking, "check_suite", lambda *_: Seen(TaskCounts(300, 40, 12)))  # whose files may be missing
    monkeypatch.setattr(checking, "check_backbone", lambda *_: [])
    monkeypatch.setattr(checking, "shape_of", known_shape)
    assert run("check", "-C", ROOT / "pipelines" / study) == 0
    lines = capfd.readouterr().out.splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if number > 4 and not line.strip())]
    rows = table[5:]
    assert len(lines) < 66
    assert rows
    assert all(re.search(r"\d/\d+ *$", row) for row in rows)  # nothing was folded into a second line
    assert all(re.match(r" [a-z_0-9-]+ +\d", row) for row in rows)


def test_what_does_not_fit_is_reported_in_a_line_each_without_a_table(synced: Path, run: Run, capfd: Capture) -> None:
    (synced / "tasks/test/swap.jsonl").write_text('{"input": 3}\n')
    params = synced / "params.yaml"
    params.write_text(params.read_text().replace("heads: [4]", "heads: [3]"))
    capfd.readouterr()
    assert run("check", "-C", synced) == 2
    said = capfd.readouterr()
    assert said.out == ""
    errors = said.err.splitlines()
    assert len(errors) == 3
    assert "swap.jsonl:1" in errors[0]
    line = 1 + params.read_text().splitlines().index("    mhr: {heads: [3]}")
    assert errors[1].startswith(f"error: {params}:{line}: cell mhr-h3-s0: 3 heads do not divide layer encoder")
    assert "run `mhrctl grid sync`" in errors[2]


@pytest.mark.parametrize("named", [["--method", "mhr", "--heads", "3"], ["mhr-h3-s0"]])
def test_heads_that_divide_no_layer_are_rejected_in_place_of_settings(
    synced: Path, run: Run, capfd: Capture, named: list[str]
) -> None:
    capfd.readouterr()
    assert run("check", *named, "-C", synced) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: cell mhr-h3-s0: 3 heads do not divide layer encoder.block.0.layer.0.SelfAttention.q")
    assert said.err.endswith("all layers can have 1, 2, 4, 8, 16\n")
    assert run("check", "--method", "mhr", "--heads", "8", "-C", synced) == 0
    assert "cell mhr-h8-s0" in capfd.readouterr().out


def test_settings_of_a_cell_are_shown_without_torch(synced: Path) -> None:
    code = (
        "import sys; from mhrctl.cli.app import main; sys.argv = ['mhrctl', 'check', 'mhr-h4-s0', '-C', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(synced)], check=False, cwd=ROOT).returncode == 0


def test_alignment_that_cannot_be_measured_is_warned_of(synced: Path, run: Run, capfd: Capture) -> None:
    edit(synced, "    lora:\n", "    lora:\n    adapter_soup:\n", run)
    capfd.readouterr()
    assert run("check", "-C", synced) == 0
    assert "align_every" not in capfd.readouterr().out
    assert run("check", "-C", synced, "--set", "pretrain.align_every=5000") == 0
    said = capfd.readouterr().out
    warning = "warning: pretrain.align_every: the training tasks of adapter_soup share no adapter"
    assert [line for line in said.splitlines() if line.startswith(warning)]
    assert "will refuse adapter_soup-s0;" in said
    assert run("pretrain", "-m", "adapter_soup", "-C", synced, "--set", "pretrain.align_every=5000") == 2


def test_sources_are_looked_at_without_being_read(synced: Path, run: Run, capfd: Capture) -> None:
    edit(synced, "source: jsonl\n  path: tasks", "source: superni\n  path: clone", run)
    assert run("check", "-C", synced) == 2
    assert "clone/splits/default/train_tasks.txt: no such file" in capfd.readouterr().err
    (synced / "clone/splits/default").mkdir(parents=True)
    (synced / "clone/tasks").mkdir()
    for role, name in (("train", "task1_a"), ("test", "task2_b")):
        (synced / f"clone/splits/default/{role}_tasks.txt").write_text(f"{name}\n")
    (synced / "clone/tasks/task1_a.json").write_text("not read")
    assert run("check", "-C", synced) == 2
    assert "test_tasks.txt: names task2_b, but there is no" in capfd.readouterr().err
    (synced / "clone/tasks/task2_b.json").write_text("not read")
    assert run("check", "-C", synced) == 0
    assert "tasks: 1 to train on, 1 to test on" in capfd.readouterr().out


def test_few_shot_sets_must_have_the_grids_seeds(synced: Path, run: Run, capfd: Capture) -> None:
    edit(synced, "source: jsonl\n  path: tasks", "source: t0\n  hub: a/b\n  test_tasks: [rte]\n  t0: {few_shot: sets}", run)
    edit(synced, "shots: 3", "shots: null", run)
    (synced / "sets/rte").mkdir(parents=True)
    (synced / "sets/rte/seed5.jsonl").write_text("")
    assert run("check", "-C", synced) == 2
    assert "task rte has no few-shot set of seed 0 (it has 5)" in capfd.readouterr().err
    edit(synced, "seeds: [0]", "seeds: [5]", run)
    assert run("check", "-C", synced) == 0
    said = capfd.readouterr().out
    assert "tasks: 313 to train on, 1 to test on" in said
    assert "not looked at: prepare.hub a/b, evaluation splits on the hub" in said


def test_a_backbone_that_was_not_fetched_leaves_sizes_unknown(synced: Path, run: Run, capfd: Capture) -> None:
    params = synced / "params.yaml"
    text = re.sub(
        r"backbone:\n.*\n.*\n", "backbone: {source: hub, name: nobody/has-this, revision: main}\n", params.read_text()
    )
    params.write_text(text)
    assert run("check", "-C", synced) == 0
    said = capfd.readouterr().out
    assert "not checked: the config of nobody/has-this at main is not in the hub's cache yet" in said
    assert re.search(r"^ lora .* \? +\? +0/1 *$", said, re.MULTILINE)
    assert "time: not known: nothing has run here, and the size of the backbone" in said
    assert said.endswith("ok: nothing to fix in what could be checked\n")


def test_a_t5_is_checked_without_transformers(synced: Path) -> None:
    code = (
        "import sys; from mhrctl.cli.app import main; sys.argv = ['mhrctl', 'check', '-C', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(synced)], check=False, cwd=ROOT).returncode == 0


def test_a_dvc_yaml_that_params_have_outgrown_is_reported(synced: Path, run: Run, capfd: Capture) -> None:
    (synced / "dvc.yaml").write_text(dvc_yaml(load_params(synced / "params.yaml").params))
    assert run("check", "-C", synced) == 2
    assert "is not under DVC, which refuses dvc.yaml; run `dvc init`" in capfd.readouterr().err
    (synced / ".dvc").mkdir()
    assert run("check", "-C", synced) == 0
    assert "warning" not in capfd.readouterr().out
    edit(synced, "tables: [1, 2]", "tables: [2, 6]", run)
    edit(synced, "path: tasks", "path: tasks/training", run)
    stages = (synced / "dvc.yaml").read_text().replace("cmd: mhrctl backbone", "cmd: sh my-backbone.sh")
    (synced / "dvc.yaml").write_text(stages.replace("        - data/cells/${key}.json: [cell, adapt]", "        - x.json: [a]"))
    run("check", "-C", synced)
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("warning: ")]
    where = f"warning: {synced / 'dvc.yaml'}: stage"
    assert said == [
        f"{where} prepare does not name deps tasks/training",
        *(f"{where} {stage} does not name params data/cells/${{key}}.json {key}" for stage, key in ADAPTS),
        f"{where} report does not name outs data/report/table6.md",
        f"{where} report names outs data/report/table1.md, but will not write it",
    ]
    (synced / "dvc.yaml").write_text("stages: [")
    assert run("check", "-C", synced) == 2
    assert "dvc.yaml:1: not valid YAML" in capfd.readouterr().err


ADAPTS = [(stage, key) for stage in ("adapt", "adapt-soup") for key in ("adapt", "cell")]


def test_a_backbone_that_cannot_start_is_a_line_and_what_shapes_answers_another(
    synced: Path, run: Run, capfd: Capture, tiny_t5: T5ForConditionalGeneration
) -> None:
    tiny_t5.generation_config.min_length = 3
    tiny_t5.save_pretrained(synced / "checkpoint")
    edit(synced, "source: scratch", "source: local\n  name: checkpoint", run)
    assert run("check", "-C", synced) == 0
    assert "generation: min_length 3; backbone.generation sets it otherwise" in capfd.readouterr().out
    for name in ("config.json", "generation_config.json"):
        path = synced / "checkpoint" / name
        path.write_text(path.read_text().replace('"decoder_start_token_id": 0', '"decoder_start_token_id": null'))
    assert run("check", "-C", synced) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "has a decoder_start_token_id; set backbone.generation.decoder_start_token_id" in errors[0]


def test_what_is_passed_over_and_what_is_short_is_noted(synced: Path, run: Run, capfd: Capture) -> None:
    (synced / "tasks/test/[b]notes.txt").write_text("x")
    assert run("prepare", "-C", synced) == 0
    params = synced / "params.yaml"
    params.write_text(params.read_text().replace("shots: 3", "shots: 300"))
    assert run("grid", "sync", "-C", synced) == 0
    capfd.readouterr()
    assert run("check", "-C", synced) == 0
    said = capfd.readouterr().out
    assert "note: 1 files without the ending .jsonl passed over: test/[b]notes.txt" in said
    assert "note: fewer examples than the 300 shots and 3 of validation that are asked for" in said
    assert "swap (8), twice (8)" in said
