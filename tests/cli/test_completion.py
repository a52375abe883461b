"""The shell completes commands, cells and methods, without loading what takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command

from mhrctl.artifacts.names import Project
from mhrctl.cli.app import app
from mhrctl.cli.completion import complete_cell, complete_method, complete_recipe, synced_name
from mhrctl.errors import ParamsError
from tests.cli.conftest import Capture
from tests.conftest import Run

ROOT = Path(__file__).parents[2]
ALONE = """\
import sys
from mhrctl.cli.app import main
sys.argv = ["mhrctl"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
sys.exit(", ".join({"torch", "transformers", "datasets", "accelerate", "pyarrow", "numpy"} & set(sys.modules)) or 0)
"""


SHELLS = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}
"""{shell: how it asks}."""


def asked(words: str, project: Path, shell: str = "bash", code: str = ALONE, **env: str) -> str:
    """What a shell is told of the last word."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            **SHELLS[shell](words),
            "_MHRCTL_COMPLETE": f"complete_{shell}",
            "PYTHONPATH": str(ROOT),
            "MHRCTL_PROJECT": str(project),
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def completed(words: str, project: Path) -> list[str]:
    """What bash is offered for the last word."""
    return asked(words, project).split()


Offered = Callable[[str, Path], list[str]]


@pytest.fixture
def offered(run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> Offered:
    """Asks this process what bash is offered for the last word."""

    def offers(words: str, project: Path) -> list[str]:
        asked = {"_MHRCTL_COMPLETE": "complete_bash", **SHELLS["bash"](f"mhrctl {words}"), "MHRCTL_PROJECT": str(project)}
        for name, value in asked.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        assert run() == 0
        shown = capfd.readouterr()
        assert shown.err == ""
        return shown.out.split()

    return offers


def test_a_shell_is_offered_commands_cells_and_methods(project: Path, run: Run) -> None:
    assert run("grid", "sync", "-C", project) == 0
    assert completed("mhrctl pr", project) == ["prepare", "pretrain", "predict"]
    assert completed("mhrctl adapt mhr-", project) == ["mhr-h4-s0"]
    assert completed("mhrctl adapt --method poly_", project) == ["poly_z", "poly_mu"]


def test_cells_are_those_of_the_project_that_is_named(
    project: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert run("grid", "sync", "-C", project) == 0
    context = Context(get_command(app))
    context.params = {"project": project}
    assert complete_cell(context, "l") == ["lora-s0"]
    assert "backbone" not in complete_cell(context, "")
    context.params = {"project": tmp_path_factory.mktemp("empty")}
    assert complete_cell(context, "") == []


def test_methods_and_recipes() -> None:
    assert complete_method("mhr_") == ["mhr_z", "mhr_mu"]
    assert complete_recipe("t") == ["t0"]


def test_a_synced_cell_goes_by_a_part_of_its_name(project: Path, run: Run) -> None:
    params = project / "params.yaml"
    params.write_text(
        params.read_text().replace("seeds: [0]", "seeds: [10, 2]").replace("mhr_z: {heads: [4]}", "mhr_z: {heads: [4, 2]}")
    )
    assert run("grid", "sync", "-C", project) == 0
    where = Project(project)
    assert synced_name(where, "mhr-h4") == "mhr-h4-s2"
    assert synced_name(where, "mhr h4") == "mhr-h4-s2"
    assert synced_name(where, "MHR_MU") == "mhr_mu-h4-s2"
    assert synced_name(where, "lora-s9") == "lora-s9"
    with pytest.raises(ParamsError, match="mhr_z can be mhr_z-h2, mhr_z-h4; name one of them"):
        synced_name(where, "mhr_z")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_offered_cells(project: Path, run: Run, shell: str) -> None:
    assert run("grid", "sync", "-C", project) == 0
    told = asked("mhrctl adapt mhr-", project, shell)
    assert "mhr-h4-s0" in told
    assert "lora" not in told


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("show --task ", ["copy", "first", "last", "swap", "twice"]),
        ("predict --task sw", ["swap"]),
        ("index query --task t", ["twice"]),
        ("show --cell po", ["poly-s0"]),
        ("show --cell lora-s0 --against m", ["mhr-h4-s0", "mhr_mu-h4-s0", "mhr_z-h4-s0"]),
        ("report --compare ", ["all", "lora", "mhr-h4", "mhr_mu-h4", "mhr_z-h4", "poly"]),
        ("report --to ", ["lora", "mhr-h4", "mhr_mu-h4", "mhr_z-h4", "poly"]),
        ("pretrain --track tens", ["tensorboard"]),
        ("pretrain --off f", ["forward", "fused", "folding"]),
        ("adapt --set adapt.sh", ["adapt.shots="]),
        ("init --suite j", ["jsonl"]),
        ("init --backbone google/flan-t5-s", ["google/flan-t5-small"]),
        ("count --backbone t5-s", ["t5-small"]),
        ("inspect --stage ", ["pretrain", "adapt"]),
        ("report --json --format la", ["latex"]),
        ("grid ", ["sync", "prune"]),
        ("doc", ["doctor"]),
    ],
)
def test_values_of_options(walked: Path, offered: Offered, words: str, offers: list[str]) -> None:
    assert offered(words, walked) == offers


STAGES = """\
stages:
  prepare: {cmd: x}
  adapt: {foreach: y, do: {cmd: x}}
  adapt-soup: {foreach: y, do: {cmd: x}}
"""


def test_stages_of_a_run(walked: Path, offered: Offered, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/cells").symlink_to(walked / "data/cells")
    assert offered("run prep", tmp_path) == ["prepare"]
    assert offered("run prepare adapt@m", tmp_path) == ["adapt@mhr-h4-s0", "adapt@mhr_z-h4-s0", "adapt@mhr_mu-h4-s0"]
    assert "adapt-soup" in offered("run ", tmp_path)
    assert offered("run adapt @ prep", tmp_path) == []  # as bash has `adapt@prep`, which `prepare` would be put in


@pytest.mark.parametrize("content", ["", "{", "[1]", "tasks: [1]", '{"tasks": 3}', "\xff", "cells: 3", "stages: [a]"])
def test_files_that_cannot_be_read_offer_nothing(tmp_path: Path, offered: Offered, content: str) -> None:
    for path in (tmp_path / "dvc.yaml", tmp_path / "data/prepare/tasks.json", tmp_path / "data/cells/index.yaml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
    for words in ("show --task ", "run ", "run adapt @ ", "adapt ", "report --compare x"):
        assert offered(words, tmp_path) == []


@pytest.mark.parametrize(
    "words", ["mhrctl nonsense --x ", "mhrctl run --jobs many ", "mhrctl check --set ", "mhrctl index quer --x "]
)
def test_nothing_is_complained_of_while_a_line_is_typed(tmp_path: Path, words: str) -> None:
    asked(words, tmp_path, MHRCTL_DEVICE="tpu", MHRCTL_TRACK="nothing", MHRCTL_THREADS="many")


BROKEN = "import mhrctl.cli.app as a\ndef fail(*args, **rest): raise RuntimeError('a bug')\na.app = fail\na.main()"


def test_a_bug_shows_nothing_in_a_prompt(tmp_path: Path) -> None:
    assert asked("mhrctl check ", tmp_path, code=BROKEN) == ""


def test_ctrl_c_shows_nothing_in_a_prompt(tmp_path: Path) -> None:
    code = "import mhrctl.__main__ as m, signal\ntry: m.end_at_once(signal.SIGINT, None)\nfinally: print('never')"
    env = {**os.environ, "_MHRCTL_COMPLETE": "complete_bash", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish/completions/mhrctl.fish")]
)
def test_completion_is_installed_for_a_shell(tmp_path: Path, shell: str, file: str) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for option in ("--show-completion", "--install-completion"):
        done = subprocess.run(
            [sys.executable, "-m", "mhrctl", option, shell], env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "mhrctl" in done.stdout or shell in done.stdout
    assert (tmp_path / file).stat().st_size > 0
