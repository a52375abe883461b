"""The faults that were found by trying: each folder of ../shared/faults gives the right answer of its README."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from tests.robustness.outcomes import Ended
from tests.robustness.workshop import ROOT, Runner

FAULTS = next((parent / "shared/faults" for parent in ROOT.parents if (parent / "shared/faults").is_dir()), None)
pytestmark = pytest.mark.skipif(FAULTS is None, reason="../shared/faults is not there")
LORA = ("-m", "lora", "--seed", "0")


class Fault:
    """A fault is a copy of a folder, in which its commands are run."""

    def __init__(self, runner: Runner, root: Path) -> None:
        self.runner, self.root = runner, root

    def run(self, *argv: object) -> Ended:
        """Run a command that may end in any way but a bug's."""
        ended = self.runner.run(*argv, "-C", self.root)
        assert ended.kind() in {"right", "refused"}, ended.err
        return ended

    def right(self, *argv: object) -> Ended:
        """Run a command that must end well."""
        ended = self.run(*argv)
        assert ended.code == 0, ended.err
        return ended

    def refused(self, *argv: object) -> str:
        """Run a command that must be refused, and return its line."""
        ended = self.run(*argv)
        assert ended.code == 2, ended.text
        return ended.errors[0]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a Parquet file below data."""
        rows: list[dict[str, Any]] = pq.read_table(self.root / "data" / name).to_pylist()
        return rows

    def set(self, section: str, **settings: Any) -> None:
        """Change params.yaml."""
        yaml = YAML(typ="safe", pure=True)
        tree = yaml.load(self.root / "params.yaml")
        tree[section].update(settings)
        yaml.dump(tree, self.root / "params.yaml")


@pytest.fixture
def fault(request: pytest.FixtureRequest, runner: Runner, tmp_path: Path) -> Fault:
    """A copy of the folder that the test's mark names."""
    assert FAULTS is not None
    return copied(runner, FAULTS / request.param, tmp_path / "project")


def copied(runner: Runner, folder: Path, root: Path) -> Fault:
    """Copy a folder, to be written to."""
    shutil.copytree(folder, root, symlinks=True)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    return Fault(runner, root)


def of(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that runs in a copy of a folder."""
    return pytest.mark.parametrize("fault", [name], indirect=True)


def scores(fault: Fault, cell: str) -> dict[tuple[str, str], float]:
    """Return {(task, metric): score} of the adapted model of a cell."""
    with (fault.root / f"data/evaluate/{cell}/scores.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["phase"] == "adapted"]
    metrics = ("accuracy", "rouge_l", "exact_match")
    return {(row["task"], name): float(row[name]) for row in rows for name in metrics if row.get(name)}


@of("choices-punctuation")
def test_choices_are_compared_by_their_place(fault: Fault) -> None:
    fault.set("prepare", examples=8)  # since most of its instances are equal, which leaves a task too few otherwise
    for stage in (("prepare",), ("backbone",), ("pretrain", *LORA), ("adapt", *LORA), ("evaluate", *LORA)):
        ended = fault.right(*stage)
    predictions = [row for row in fault.rows("evaluate/lora-s0/predictions.parquet") if row["phase"] == "adapted"]
    shares = {}
    for task in ("sign", "negate"):
        of_task = [row for row in predictions if row["task"] == task]
        assert len(of_task) == 8
        shares[task] = 100 * sum(row["prediction"] in row["references"] for row in of_task) / len(of_task)
    table = {task: score for (task, metric), score in scores(fault, "lora-s0").items() if metric == "accuracy"}
    assert table == pytest.approx(shares, abs=0.051)
    printed = re.search(r"adapted: accuracy ([\d.]+)", ended.out + ended.err)
    assert printed
    assert float(printed[1]) == pytest.approx(sum(shares.values()) / 2, abs=0.06)
    assert float(printed[1]) < 100


@of("generation-config")
def test_what_the_checkpoint_says_of_answers_is_shown_and_can_be_undone(fault: Fault, runner: Runner, tmp_path: Path) -> None:
    fault.right("grid", "sync")
    checked = fault.run("check")
    for name in ("min_length", "no_repeat_ngram_size"):
        assert checked.says(name)
    fault.right("prepare")
    fault.right("backbone")
    card = json.loads((fault.root / "data/backbone/card.json").read_text())
    assert "min_length" in json.dumps(card)
    assert FAULTS is not None
    plain = copied(runner, FAULTS / "nan-training", tmp_path / "plain")
    for stage in (("prepare",), ("backbone",), ("evaluate", "-m", "backbone")):
        plain.right(*stage)
    fault.right("evaluate", "-m", "backbone")
    other = json.loads((plain.root / "data/backbone/card.json").read_text())
    assert card["facts"]["fingerprint"] != other["facts"]["fingerprint"]
    answers = [row["prediction"] for row in plain.rows("evaluate/backbone/predictions.parquet")]
    assert [row["prediction"] for row in fault.rows("evaluate/backbone/predictions.parquet")] != answers
    fault.set("backbone", generation={"neutral": True})
    fault.right("backbone")
    fault.right("evaluate", "-m", "backbone")
    assert [row["prediction"] for row in fault.rows("evaluate/backbone/predictions.parquet")] == answers


@of("hidden-files")
def test_hidden_files_are_no_tasks_and_are_named(fault: Fault) -> None:
    (fault.root / "tasks/training/._base.jsonl").write_bytes(b"\x00\x05\x16\x07\xff")
    ended = fault.right("prepare")
    names = {row["name"] for row in json.loads((fault.root / "data/prepare/tasks.json").read_text())["tasks"]}
    assert names == {"base", "other"}
    assert ended.says(".ipynb_checkpoints")
    assert ended.says("._base.jsonl") or ended.says("3")


@of("symlink")
def test_links_below_the_tasks_are_followed(fault: Fault) -> None:
    extra = fault.root / "tasks/training/extra"
    if not extra.is_symlink():  # a copy may have made a text of the link
        extra.unlink()
        extra.symlink_to("../../elsewhere")
    fault.right("prepare")
    names = {row["name"] for row in json.loads((fault.root / "data/prepare/tasks.json").read_text())["tasks"]}
    assert names == {"a", "base", "other"}


@of("symlink")
def test_the_folder_of_a_role_may_be_a_link(fault: Fault) -> None:
    (fault.root / "tasks/training").rename(fault.root / "really")
    (fault.root / "really/extra").unlink()
    (fault.root / "tasks/training").symlink_to("../really")
    fault.right("prepare")
    names = {row["name"] for row in json.loads((fault.root / "data/prepare/tasks.json").read_text())["tasks"]}
    assert names == {"base", "other"}


@pytest.mark.parametrize(("file", "line"), [("emoji.jsonl", 4), ("big-integer.jsonl", None), ("deep-nesting.jsonl", None)])
@of("json-errors")
def test_json_that_fails_otherwise_is_named_by_line(fault: Fault, file: str, line: int | None) -> None:
    if line is None:
        whole = (fault.root / file).read_text()
        (fault.root / "tasks/training/emoji.jsonl").write_text(whole)
        line = next(number for number, text in enumerate(whole.splitlines(), 1) if len(text) > 1000)
    assert f"tasks/training/emoji.jsonl:{line}:" in fault.refused("prepare")
    assert not (fault.root / "data/prepare").exists()


@of("minimal-params")
def test_minimal_params_are_refused_before_a_stage_or_run(fault: Fault) -> None:
    made = fault.root / "study"
    ended = fault.runner.run("init", made, "--no-scm")
    assert ended.code == 0, ended.err
    shutil.copy(fault.root / "params.yaml", made / "params.yaml")
    ended = fault.runner.run("grid", "sync", "-C", made)
    assert ended.kind() in {"right", "refused"}
    checked = fault.runner.run("check", "-C", made)
    in_step = fault.runner.run("grid", "sync", "--check", "-C", made)
    missing = [name for name in ("recipe", "report", "index") if _dvc_wants(made, name)]
    if missing:
        assert ended.kind() == "refused" or checked.kind() == "refused" or in_step.kind() == "refused"
        assert all(checked.says(f"{name}") for name in missing)
    else:
        assert (ended.code, in_step.code) == (0, 0)


def _dvc_wants(project: Path, section: str) -> bool:
    """Whether a stage of dvc.yaml depends on a section that params.yaml has not."""
    yaml = YAML(typ="safe")
    stages = yaml.load(project / "dvc.yaml")["stages"].values()
    wanted = {name for stage in stages for name in stage.get("do", stage).get("params", []) if isinstance(name, str)}
    return section in wanted and section not in yaml.load(project / "params.yaml")


@of("nan-adapter")
def test_an_adapter_with_nan_is_refused_by_its_tensor(fault: Fault) -> None:
    fault.right("prepare")
    fault.right("backbone")
    line = fault.refused("import", fault.root / "adapter", "--seed", "112")
    assert "lora_B" in line
    assert "adapter" in line
    assert not (fault.root / "data/pretrain").exists()


@of("nan-training")
def test_a_training_whose_loss_is_nan_is_refused_with_step_and_rate(fault: Fault) -> None:
    """A rate of 1e25 may be refused as a setting already; the highest that is none ends in a refusal or in finite tensors."""
    fault.right("prepare")
    fault.right("backbone")
    line = fault.refused("pretrain", *LORA, "--set", "pretrain.lr=1e25")
    assert "pretrain.lr" in line or re.search(r"step \d+", line)
    assert not (fault.root / "data/pretrain/lora-s0").exists()
    patched = fault.runner.run(
        "pretrain",
        *LORA,
        "--set",
        "pretrain.lr=1e9",
        "--set",
        "pretrain.steps=60",
        "--set",
        "pretrain.clip_norm=1e9",
        "-C",
        fault.root,
    )
    assert patched.kind() in {"right", "refused"}, patched.err
    if patched.code:
        assert re.search(r"step \d+", patched.err)
        assert "rate" in patched.err
        assert not (fault.root / "data/pretrain/lora-s0").exists()


@of("no-decoder-start")
def test_a_backbone_without_a_decoder_start_is_refused_before_training(fault: Fault) -> None:
    fault.right("grid", "sync")
    assert fault.run("check").says("decoder_start_token_id")
    prepared = fault.run("prepare")
    made = fault.run("backbone")
    assert "decoder_start_token_id" in (prepared.err if prepared.code else made.err)
    assert 2 in {prepared.code, made.code}


@pytest.mark.parametrize("tasks", ["tasks", pytest.param("tasks-latin", marks=pytest.mark.slow)])
@of("nonlatin-rouge")
def test_text_of_every_script_is_scored(fault: Fault, tasks: str) -> None:
    if tasks != "tasks":
        shutil.rmtree(fault.root / "tasks")
        (fault.root / tasks).rename(fault.root / "tasks")
    cell = ("-m", "full_ft", "--seed", "0")
    for stage in (("prepare",), ("backbone",), ("pretrain", *cell), ("adapt", *cell), ("evaluate", *cell)):
        fault.right(*stage)
    table = scores(fault, "full_ft-s0")
    assert {score for (_, metric), score in table.items() if metric == "rouge_l"} == {100.0}


@pytest.mark.parametrize("tokenizer", ["tok-nosent", "tok-bartlike", "tok-noeos"])
@of("own-tokenizer")
def test_a_scratch_backbone_takes_the_tokenizer_as_it_is(fault: Fault, tokenizer: str) -> None:
    """Either it is used rightly, with its own special tokens, or it is refused by its name before any training."""
    fault.set("prepare", tokenizer=tokenizer)
    for stage in (("prepare",), ("backbone",)):
        ended = fault.run(*stage)
        if ended.code:
            assert tokenizer in ended.err or "tokenizer" in ended.err
            return
    special = {
        entry["content"]: entry["id"]
        for entry in json.loads((fault.root / tokenizer / "tokenizer.json").read_text())["added_tokens"]
    }
    config = json.loads((fault.root / "data/backbone/config.json").read_text())
    assert (config["pad_token_id"], config["eos_token_id"]) == (special["<pad>"], special["</s>"])
    rows = fault.rows("prepare/training_tasks.parquet")
    ids = [target for row in rows for target in _targets(row)]
    assert {target[-1] for target in ids} == {special["</s>"]}


def _targets(row: dict[str, Any]) -> list[list[int]]:
    ids = row["target_ids"]
    return [ids] if isinstance(ids[0], int) else ids


@of("repeated-instances")
def test_repeated_instances_stand_in_one_split_and_are_counted(fault: Fault) -> None:
    ended = fault.right("prepare")
    by_split: dict[str, set[tuple[str, ...]]] = {}
    for row in fault.rows("prepare/test_tasks.parquet"):
        if row["task"] == "dup":
            by_split.setdefault(row["split"], set()).add((row["prompt"], *row["targets"]))
    assert not by_split.get("test", set()) & by_split.get("pool", set())
    assert re.search(r"dup.*\b40\b|\b40\b.*dup", ended.err)  # so many of its pool are equal to test examples


@of("unk-choices")
def test_choices_that_the_tokenizer_cannot_tell_apart_are_refused(fault: Fault) -> None:
    line = fault.refused("prepare")
    assert "zh" in line
    assert not (fault.root / "data/prepare").exists()
