"""The DVC pipeline: what an edit makes run again, as `dvc status` tells it, and as the commands that `dvc repro` runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.versions import STAGE_VERSIONS
from mhrctl.config.resolve import load_params
from tests.conftest import PARAMS, Run, mhrctl, write_tasks

ROOT = Path(__file__).parents[1]


def dvc(project: Path, *arguments: str, commands: Path | None = None) -> str:
    result = run_dvc(project, *arguments, commands=commands)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_dvc(project: Path, *arguments: str, commands: Path | None = None) -> subprocess.CompletedProcess[str]:
    folders = [*([str(commands)] if commands else []), str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=os.environ | {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def pipeline(copy: Path) -> Path:
    """The walked project under DVC, everything up to date."""
    shutil.copy(ROOT / "dvc.yaml", copy)
    dvc(copy, "init", "--no-scm", "-q")
    dvc(copy, "commit", "-f", "-q")
    return copy


def stages_to_run(project: Path) -> set[str]:
    """Stages that changed themselves; what hangs on them follows. Left out is `grid`, which any edit of params.yaml runs."""
    stages = {stage.split("@")[0] for stage in re.findall(r"^([a-z@_0-9-]+):$", dvc(project, "status"), re.MULTILINE)}
    return stages - {"grid"}


def edit(project: Path, run: Run, old: str, new: str) -> None:
    params = project / "params.yaml"
    assert old in params.read_text()
    params.write_text(params.read_text().replace(old, new))
    assert run("grid", "sync", "-C", project) == 0


def test_an_edit_reruns_only_what_hangs_on_it(pipeline: Path, run: Run) -> None:
    assert stages_to_run(pipeline) == set()
    edit(pipeline, run, "evaluate:\n  max_new_tokens: 4", "evaluate:\n  max_new_tokens: 5")
    assert stages_to_run(pipeline) == {"evaluate", "evaluate-backbone"}
    planned = set(re.findall(r"stage '([a-z-]+)", dvc(pipeline, "repro", "--dry", "--force-downstream")))
    assert planned.isdisjoint({"pretrain", "average", "adapt", "backbone"}), planned
    edit(pipeline, run, "evaluate:\n  max_new_tokens: 5", "evaluate:\n  max_new_tokens: 4")
    assert stages_to_run(pipeline) == set()


def test_the_index_and_extra_steps_rerun_what_hangs_on_them(walked_all: Path, tmp_path: Path, run: Run) -> None:
    project = Path(shutil.copytree(walked_all, tmp_path / "project"))
    params = project / "params.yaml"
    text = params.read_text().replace("    lora:\n", "    lora: {extra_steps: [3]}\n")
    text = text.replace("    mhr: {heads: [4]}", "    mhr: {heads: [4], variants: [plain, light]}")
    params.write_text(text.replace("mhr_mu: {heads: [4]}", "mhr_mu: {heads: [4], extra_steps: [3]}"))
    assert run("grid", "sync", "-C", project) == 0
    shutil.copy(ROOT / "dvc.yaml", project)
    dvc(project, "init", "--no-scm", "-q")
    dvc(project, "commit", "-f", "-q")
    assert stages_to_run(project) == set()
    edit(project, run, "index:\n  examples: 9", "index:\n  examples: 8")
    assert stages_to_run(project) == {"index"}
    edit(project, run, "index:\n  examples: 8", "index:\n  examples: 9")
    edit(project, run, "extra_steps: [3]}\n    poly", "extra_steps: [4]}\n    poly")
    assert stages_to_run(project) == {"pretrain-extra", "evaluate-zero-shot", "report"}


STUB = """\
#!/bin/sh
# Stands for mhrctl: notes its arguments and writes the outputs of its stage, never the same twice; `grid` is the real one.
test "$1" = grid && exec {python} -m mhrctl "$@"
echo "$*" >> ran.txt
put() {{ mkdir -p "$(dirname "$1")" && date +%N$$ > "$1"; }}
case "$1" in
prepare)
    for name in training_tasks test_tasks backbone_tasks; do put data/prepare/$name.parquet; done
    put data/prepare/tokenizer/tokenizer.json ;;
pretrain) put "data/pretrain/$3/card.json"; put "data/metrics/pretrain/$3.csv" ;;
evaluate) put "data/evaluate/$3/card.json"; put "data/metrics/evaluate/$3.json" ;;
average | adapt) put "data/$1/$3/card.json" ;;
backbone | index) put "data/$1/card.json" ;;
report)
    for name in table1.md table2.md results.md differences.md summary.json scores.csv curves.csv; do
        put data/report/$name
    done ;;
esac
"""


class Pipeline:
    """A project under DVC whose commands are stubs that are counted."""

    def __init__(self, root: Path, commands: Path) -> None:
        self.root, self.commands = root, commands

    def edit(self, old: str, new: str, *, sync: bool = True) -> None:
        params = self.root / "params.yaml"
        assert params.read_text().count(old) == 1
        params.write_text(params.read_text().replace(old, new))
        if sync:
            assert mhrctl("grid", "sync", "-C", self.root) == 0

    def repro(self) -> list[str]:
        """Reproduce, and say what ran, such as `adapt lora-s0`; the report, which follows everything, is left out."""
        ran = self.root / "ran.txt"
        ran.write_text("")
        dvc(self.root, "repro", "-q", commands=self.commands)
        return sorted(line.replace(" --cell", "") for line in ran.read_text().splitlines() if line != "report")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Everything of the toy grid has run once, in a git repository."""
    folder = tmp_path_factory.mktemp("stubbed")
    commands, root = folder / "bin", folder / "project"
    commands.mkdir()
    root.mkdir()
    stub = commands / "mhrctl"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    (root / "params.yaml").write_text(PARAMS)
    write_tasks(root / "tasks")
    shutil.copy(ROOT / "dvc.yaml", root)
    (root / ".gitignore").write_text("ran.txt\n")
    git(root, "init", "-q")
    dvc(root, "init", "-q")
    pipeline = Pipeline(root, commands)
    assert mhrctl("grid", "sync", "-C", root) == 0
    assert len(pipeline.repro()) == 2 + 3 + 1 + 5 + 5 + 1  # prepare and backbone, pretrain, average, adapt, evaluate, bare
    git(root, "add", "-A")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "run")
    return pipeline


@pytest.fixture
def stubbed(reproduced: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy of the reproduced pipeline, to be changed."""
    return Pipeline(Path(shutil.copytree(reproduced.root, tmp_path / "project", symlinks=True)), reproduced.commands)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_new_seeds_methods_and_heads_run_their_own_cells(stubbed: Pipeline) -> None:
    assert stubbed.repro() == []
    stubbed.edit("    mhr: {heads: [4]}\n", "    mhr: {heads: [4, 8]}\n    poly_z:\n    ia3:\n")
    ran = stubbed.repro()
    assert ran == sorted(
        [
            *(f"{stage} mhr-h8-s0" for stage in ("pretrain", "adapt", "evaluate")),
            *(f"{stage} ia3-s0" for stage in ("pretrain", "adapt", "evaluate")),
            *(f"{stage} poly_z-s0" for stage in ("adapt", "evaluate")),  # its pre-training is that of poly
        ]
    )
    stubbed.edit("    ia3:\n", "", sync=False)
    stubbed.edit("    poly_z:\n", "", sync=False)
    stubbed.edit("    mhr: {heads: [4, 8]}\n", "    mhr: {heads: [4]}\n", sync=False)
    stubbed.edit("seeds: [0]", "seeds: [0, 1]")
    ran = stubbed.repro()
    assert len(ran) == 3 + 1 + 5 + 5
    assert all(line.endswith("-s1") for line in ran)


def test_a_methods_rate_and_a_cells_override_rerun_what_hangs_on_them(stubbed: Pipeline) -> None:
    stubbed.edit("    mhr: {heads: [4]}\n", "    mhr: {heads: [4], pretrain: {lr: 0.5}}\n")
    of_mhr = ["pretrain mhr-h4-s0", "average mhr-h4-s0"]
    of_mhr += [f"{stage} {method}-h4-s0" for method in ("mhr", "mhr_z", "mhr_mu") for stage in ("adapt", "evaluate")]
    assert stubbed.repro() == sorted(of_mhr)
    stubbed.edit("    mhr_mu: {heads: [4]}\n", "    mhr_mu: {heads: [4]}\n  overrides: {poly-s0: {adapt: {lr: 0.3}}}\n")
    assert stubbed.repro() == ["adapt poly-s0", "evaluate poly-s0"]
    stubbed.edit("pretrain: {lr: 0.5}", "pretrain: {lr: 0.001}")  # the default, written out
    assert stubbed.repro() == []  # all of it from the run-cache


def test_evaluation_report_and_index_settings_train_nothing_and_reverting_runs_nothing(stubbed: Pipeline) -> None:
    stubbed.edit("evaluate:\n  max_new_tokens: 4", "evaluate:\n  max_new_tokens: 5", sync=False)
    stubbed.edit("index:\n  examples: 9", "index:\n  examples: 8", sync=False)
    stubbed.edit("tables: [1, 2]", "tables: [1]")
    ran = stubbed.repro()
    assert len(ran) == 6
    assert {line.split()[0] for line in ran} == {"evaluate"}
    stubbed.edit("evaluate:\n  max_new_tokens: 5", "evaluate:\n  max_new_tokens: 4")
    assert stubbed.repro() == []


def test_sections_that_params_leave_out_are_not_missed(stubbed: Pipeline) -> None:
    """DVC refuses a key that a stage depends on and params.yaml does not have."""
    stubbed.edit("recipe: null\n", "", sync=False)
    stubbed.edit("index:\n  examples: 9\n", "", sync=False)
    stubbed.edit("report:\n  tables: [1, 2]\n", "", sync=False)
    assert mhrctl("grid", "sync", "-C", stubbed.root) == 0
    assert stubbed.repro() == []
    assert mhrctl("check", "-C", stubbed.root) == 0


def test_a_raised_stage_version_reruns_that_stage_and_what_hangs_on_it(
    stubbed: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhrctl.tools.grid.STAGE_VERSIONS", STAGE_VERSIONS | {"average": STAGE_VERSIONS["average"] + 1})
    assert mhrctl("grid", "sync", "--check", "-C", stubbed.root) == 2
    assert mhrctl("check", "-C", stubbed.root) == 2
    assert mhrctl("grid", "sync", "-C", stubbed.root) == 0
    assert stubbed.repro() == ["adapt mhr_mu-h4-s0", "average mhr-h4-s0", "evaluate mhr_mu-h4-s0"]
    assert stubbed.repro() == []


def test_repro_stops_where_sync_was_forgotten(stubbed: Pipeline) -> None:
    stubbed.edit("seeds: [0]", "seeds: [0, 1]", sync=False)
    stubbed.edit("evaluate:\n  max_new_tokens: 4", "evaluate:\n  max_new_tokens: 5", sync=False)
    stubbed.root.joinpath("ran.txt").write_text("")
    result = run_dvc(stubbed.root, "repro", commands=stubbed.commands)
    assert result.returncode != 0
    assert "params.yaml has changed" in result.stderr
    assert "run `mhrctl grid sync`" in result.stderr
    assert stubbed.root.joinpath("ran.txt").read_text() == ""


def test_a_removed_cell_is_pruned_and_comes_back_from_the_cache(stubbed: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    stubbed.edit("    poly:\n", "    poly_z:\n")
    stubbed.edit("    mhr: {heads: [4]}\n", "")
    assert stubbed.repro() == ["adapt poly_z-s0", "evaluate poly_z-s0"]
    assert "outputs of 2 cells that the grid has not; `mhrctl grid prune` lists them" in capfd.readouterr().err
    before = YAML(typ="safe").load(stubbed.root / "dvc.lock")["stages"]
    assert mhrctl("grid", "prune", "--yes", "-C", stubbed.root) == 0
    after = YAML(typ="safe").load(stubbed.root / "dvc.lock")["stages"]
    gone = {f"{stage}@{cell}" for stage in ("adapt", "evaluate") for cell in ("poly-s0", "mhr-h4-s0")}
    assert set(before) - set(after) == gone
    assert all(after[name] == before[name] for name in after)
    assert sorted(path.name for path in (stubbed.root / "data/pretrain").glob("[a-z]*")) == ["lora-s0", "mhr-h4-s0", "poly-s0"]
    assert stages_to_run(stubbed.root) == {"report"}  # which reads the folder of scores
    stubbed.edit("    poly_z:\n", "    poly:\n    poly_z:\n")
    assert stubbed.repro() == []
    assert (stubbed.root / "data/adapt/poly-s0/card.json").exists()


def test_a_clone_with_the_cache_is_clean(stubbed: Pipeline, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(stubbed.root), str(clone))
    dvc(clone, "cache", "dir", "--local", str(stubbed.root / ".dvc/cache"))
    dvc(clone, "checkout", "-q")
    assert "up to date" in dvc(clone, "status")
    assert Pipeline(clone, stubbed.commands).repro() == []


def test_outputs_go_through_a_folder_remote(stubbed: Pipeline, tmp_path: Path) -> None:
    dvc(stubbed.root, "remote", "add", "-d", "store", str(tmp_path / "store"))
    dvc(stubbed.root, "push", "-q")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(stubbed.root), str(clone))
    shutil.copy(stubbed.root / ".dvc/config", clone / ".dvc/config")
    dvc(clone, "pull", "-q")
    assert (clone / "data/adapt/lora-s0/card.json").read_text() == (stubbed.root / "data/adapt/lora-s0/card.json").read_text()
    assert Pipeline(clone, stubbed.commands).repro() == []


def test_numbers_and_words_are_read_as_dvc_reads_them(stubbed: Pipeline) -> None:
    stubbed.edit("  tables: [1, 2]", "  tables: [0o1, 2]", sync=False)
    stubbed.edit("pretrain:\n  skills: 2", "pretrain:\n  lr: 1e-3\n  skills: 2")  # PyYAML reads the string '1e-3'
    settings = load_params(stubbed.root / "params.yaml")
    assert stubbed.repro() == []  # 1e-3 is the default
    read = load_yaml(str(stubbed.root / "params.yaml"))  # as DVC does
    assert read["pretrain"]["lr"] == settings.params.pretrain.lr == 0.001
    assert read["report"]["tables"] == settings.params.report.tables == [1, 2]
    project = Project(stubbed.root)
    stubbed.edit("source: jsonl", "source: jsonl\n  task_name: on", sync=False)  # a string in YAML 1.2, where PyYAML reads true
    assert mhrctl("check", "-C", stubbed.root) == 2
    stubbed.edit("task_name: on", "task_name: True")
    assert load_params(project.params).params.prepare.task_name is True


@pytest.mark.slow
def test_experiments_with_a_cell_and_with_the_grid(stubbed: Pipeline) -> None:
    for key, value in (("user.name", "a"), ("user.email", "a@b")):
        git(stubbed.root, "config", key, value)
    ran = stubbed.root / "ran.txt"
    ran.write_text("")
    dvc(stubbed.root, "exp", "run", "-S", "data/cells/lora-s0.json:+adapt.lr=0.5", commands=stubbed.commands)
    assert ran.read_text().splitlines() == ["adapt --cell lora-s0", "evaluate --cell lora-s0", "report"]
    git(stubbed.root, "checkout", "-q", ".")
    dvc(stubbed.root, "checkout", "-q")
    ran.write_text("")
    stopped = run_dvc(stubbed.root, "exp", "run", "-S", "grid.seeds=[0,1]", commands=stubbed.commands)
    assert stopped.returncode != 0
    assert "run `mhrctl grid sync`" in stopped.stderr
    assert mhrctl("grid", "sync", "-C", stubbed.root) == 0
    dvc(stubbed.root, "exp", "run", "--name", "two-seeds", commands=stubbed.commands)
    assert len(ran.read_text().splitlines()) == 3 + 1 + 5 + 5 + 1
    assert "two-seeds" in dvc(stubbed.root, "exp", "show", "--csv", "--only-changed")
