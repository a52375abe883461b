"""Options that commands share: which cell they name, and when a stage has nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.provenance import Provenance
from mhrctl.cli.options import CellChoice, chosen_cell, launched_processes, named_cell, nothing_to_do, open_project, output_of
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.config.resolve import Settings, load_params
from mhrctl.errors import ParamsError
from tests.cli.conftest import MADE, Capture, MadeAnew, rewrite
from tests.conftest import AVERAGED, CELLS, PRETRAINED, Run

ALONE = """\
import json, sys
from mhrctl.cli.app import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["mhrctl", *command]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, command
sys.exit(", ".join({"torch", "transformers", "datasets", "accelerate", "pyarrow", "numpy"} & set(sys.modules)) or 0)
"""
"""Runs commands in a process of their own, and names what they have imported that takes long."""
EVERY = [
    *(["prepare"], ["backbone"], ["index"], ["evaluate", "-m", "backbone"]),
    *(["pretrain", "-m", name] for name in (*CELLS[:3], *PRETRAINED)),
    *(["pretrain", "-m", name, "--extra-steps", "3"] for name in ("lora", "mhr_mu")),
    *(["average", "-m", name] for name in ("mhr", *AVERAGED)),
    *([stage, "-m", name] for name in METHODS for stage in ("adapt", "evaluate")),
    *(["evaluate", "-m", name, "--extra-steps", "3"] for name in ("lora", "mhr_mu")),
]
"""The commands that have made a walked project, but for a variant's."""


def states(project: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in project.rglob("*") if path.is_file()}


def test_a_stage_with_nothing_to_do_says_so_touches_nothing_and_imports_nothing_heavy(walked_all: Path) -> None:
    before = states(walked_all)
    commands = [[*command, "-C", str(walked_all)] for command in EVERY]
    arguments = [sys.executable, "-c", ALONE, json.dumps(commands)]
    done = subprocess.run(arguments, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(EVERY)
    assert all(line.startswith(f"{walked_all / 'data' / command[0]}") for line, command in zip(said, EVERY, strict=True))
    assert all(line.endswith(MADE) for line in said)
    assert states(walked_all) == before


def test_changed_inputs_make_it_anew(copy: Path, is_made_anew: MadeAnew) -> None:
    assert is_made_anew("pretrain", "-m", "mhr", "--set", "pretrain.lr=0.5")
    for command in (["average", "-m", "mhr"], ["adapt", "-m", "mhr_mu"], ["evaluate", "-m", "mhr_mu"]):
        assert is_made_anew(*command)
    rewrite(copy / "tasks/test/swap.jsonl", "ant", "eel")()
    assert is_made_anew("prepare")
    assert not is_made_anew("pretrain", "-m", "lora")
    for stage in ("adapt", "evaluate"):
        assert is_made_anew(stage, "-m", "lora")


def test_processes_of_one_machine_decide_alike_and_one_of_them_says_it(
    walked: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = walked / "data/prepare"
    card = read_card(out, stage="prepare", command="")
    made = Provenance("prepare", card.params, {"tasks": walked / "tasks"})
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert nothing_to_do(made, out, force=False)
    assert capfd.readouterr().err.count(MADE) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines, of which one may not see the other's files
    assert not nothing_to_do(made, out, force=False)


@pytest.fixture
def settings(project: Path) -> Settings:
    return open_project(project, ["grid.seeds=[5, 6]"], reads=["grid"])[1]


def test_a_cell_is_named_by_its_method_and_the_grids_first(settings: Settings) -> None:
    assert named_cell(settings, CellChoice("mhr")) == Cell(method="mhr", heads=4, seed=5)
    assert named_cell(settings, CellChoice("mhr", 8, seed=0)) == Cell(method="mhr", heads=8, seed=0)
    assert named_cell(settings, CellChoice("lora", extra_steps=3)) == Cell(method="lora", seed=5, extra_steps=3)


def test_a_cell_that_is_not_named_whole_is_refused(project: Path, settings: Settings) -> None:
    with pytest.raises(ParamsError, match=r"name the cell, such as mhr-h8-s0"):
        named_cell(settings, CellChoice())
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("    mhr: {heads: [4]}\n", ""))
    without = open_project(project, [])[1]
    with pytest.raises(ParamsError, match=r"--method mhr needs --heads"):
        named_cell(without, CellChoice("mhr"))


def test_outputs_stand_below_data_by_stage_and_cell(project: Path) -> None:
    where = Project(project)
    assert output_of(where, ("average", Cell(method="mhr", heads=4))) == project / "data/average/mhr-h4-s0"


def test_processes_are_those_that_were_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched_processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched_processes() == 4


def test_the_project_is_a_folder_or_that_of_the_environment(
    walked: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHRCTL_PROJECT", str(walked))
    assert run("prepare") == 0
    assert capfd.readouterr().err == f"{walked / 'data/prepare'}{MADE}\n"
    monkeypatch.delenv("MHRCTL_PROJECT")
    monkeypatch.chdir(walked)
    assert run("prepare") == 0
    assert capfd.readouterr().err == f"data/prepare{MADE}\n"


def test_a_device_of_the_environment_is_checked_too(
    walked: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHRCTL_DEVICE", "cuda:1")
    assert run("adapt", "-m", "lora", "-C", walked) == 2
    assert "--device cuda:1: choose `auto` or `cpu`" in capfd.readouterr().err


def test_what_options_leave_open_is_the_grids_first(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", "seeds: [5, 0]\n  pretrain_seed: 7"))
    settings = load_params(params)
    cell = named_cell(settings, CellChoice("mhr"))
    assert (cell.name, cell.pretrain_cell.name) == ("mhr-h4-s5", "mhr-h4-s7")
    assert named_cell(settings, CellChoice("mhr", 2, "light", 0)).name == "mhr-h2-light-s0"
    assert named_cell(settings, CellChoice("lora", extra_steps=3)).name == "lora-x3-s5"
    by_variant = "variants: [plain, light], heads: {plain: [8, 4], light: [2]}"
    text = params.read_text().replace("mhr_z: {heads: [4]}", f"mhr_z: {{{by_variant}}}")
    params.write_text(text.replace("  seeds:", "  variants: {light: {pretrain: {targets: light}}}\n  seeds:"))
    other = load_params(params)
    assert [named_cell(other, CellChoice("mhr_z", variant=name)).heads for name in (None, "plain", "light")] == [8, 8, 2]
    with pytest.raises(ParamsError, match="--method mhr_z needs --heads"):
        named_cell(other, CellChoice("mhr_z", variant="block"))
    with pytest.raises(ParamsError, match="name the cell, such as mhr-h8-s0, or its --method"):
        named_cell(settings, CellChoice())


def test_heads_of_a_variant_are_those_of_its_pretraining(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("    mhr_z: {heads: [4]}\n", ""))
    assert named_cell(load_params(params), CellChoice("mhr_z")).heads == 4
    params.write_text(params.read_text().replace("    mhr: {heads: [4]}\n    mhr_mu: {heads: [4]}\n", ""))
    with pytest.raises(ParamsError, match="--method mhr_z needs --heads"):
        named_cell(load_params(params), CellChoice("mhr_z"))


@pytest.mark.parametrize(
    "choice",
    [
        CellChoice("lora", cell="lora-s0"),
        CellChoice(heads=4, cell="lora-s0"),
        CellChoice(variant="plain", cell="lora-s0"),
        CellChoice(seed=0, cell="lora-s0"),
        CellChoice(extra_steps=3, cell="lora-s0"),
    ],
)
def test_a_cell_by_name_goes_with_no_other_option(walked: Path, choice: CellChoice) -> None:
    with pytest.raises(ParamsError, match="--cell takes all settings from the cell's file"):
        chosen_cell(walked, choice, reads="adapt")


def test_a_cell_by_name_is_read_from_its_synced_file(walked: Path) -> None:
    where, params = chosen_cell(walked, CellChoice(cell="mhr_mu-h4-s0"), reads="adapt")
    assert (where, params.cell.name) == (Project(walked), "mhr_mu-h4-s0")
    assert output_of(where, params.cell.start) == walked / "data/average/mhr-h4-s0"
    for sets, recipe in ((["adapt.lr=1.0"], None), ([], "t0")):
        with pytest.raises(ParamsError, match=r"leave out .* --recipe and --set"):
            chosen_cell(walked, CellChoice(cell="lora-s0"), sets, recipe, reads="adapt")


def test_nothing_is_set_in_vain(project: Path) -> None:
    assert chosen_cell(project, CellChoice("lora"), ["adapt.lr=0.5"], reads="adapt")[1].adapt.lr == 0.5
    with pytest.raises(ParamsError, match=r"--set adapt.lr=0.5: this command reads the section `pretrain` only"):
        chosen_cell(project, CellChoice("lora"), ["adapt.lr=0.5"], reads="pretrain")
    with pytest.raises(ParamsError, match=r"--set adapt.routing_lr: lora does not read it; leave it out"):
        chosen_cell(project, CellChoice("lora"), ["adapt.routing_lr=0.5"], reads="adapt")
    of_poly = ["grid.methods.poly.adapt.lr=0.5"]
    assert chosen_cell(project, CellChoice("poly"), of_poly, reads="adapt")[1].adapt.lr == 0.5
    with pytest.raises(ParamsError, match=r"--set grid.methods.poly.adapt.lr=0.5: it has no effect on cell lora-s0"):
        chosen_cell(project, CellChoice("lora"), of_poly, reads="adapt")
    with pytest.raises(ParamsError, match=r"--set grid.seeds=\[3\]: it has no effect on cell lora-s1"):
        chosen_cell(project, CellChoice("lora", seed=1), ["grid.seeds=[3]"], reads="adapt")
    assert chosen_cell(project, CellChoice("lora"), ["grid.seeds=[3]"], reads="adapt")[1].cell.seed == 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["backbone", "--set", "pretrain.lr=1"], "--set pretrain.lr=1: this command reads the section `backbone` only"),
        (["prepare", "--set", "index.examples=1"], "this command reads the section `prepare` only"),
        (["index", "--set", "prepare.seed=1"], "this command reads the section `index` only"),
        (["index", "--recipe", "t0"], "--recipe t0: it sets nothing in index, which is what this command reads; leave it out"),
        (["index", "query", "--task", "a", "--set", "index.examples=1"], "this command reads the section `adapt` only"),
        (["average", "-m", "mhr", "--set", "pretrain.lr=1"], "this command reads the section `grid` only"),
        (["report", "--set", "evaluate.beams=2"], "this command reads the section `report` only"),
        (["report", "--table", "2", "--set", "report.tables=[1]"], "this command reads the setting `report.trials` only"),
        (["evaluate", "-m", "backbone", "--set", "adapt.lr=1"], "this command reads the section `evaluate` only"),
        (["evaluate", "-m", "backbone", "--seed", "1"], "--method backbone has no --heads, --variant, --extra-steps, --seed"),
        (["evaluate", "--cell", "backbone", "--set", "evaluate.beams=2"], "--cell takes all settings from the cell's file"),
        (["adapt", "--cell", "../../x"], "--cell '../../x': no name of a cell"),
        (["adapt", "-m", "lora", "--variant", "../x"], "--variant '../x': no name of a variant"),
        (["export", "-m", "lora", "--variant", "/etc"], "--variant '/etc': no name of a variant"),
        (["pretrain", "-m", "lora", "--extra-steps", "3", "--set", "pretrain.steps=1"], "--extra-steps says how many steps"),
        (["pretrain", "-m", "lora", "--set", "pretrain.lr=\udcff"], "is not valid YAML"),
    ],
)
def test_options_that_do_nothing_or_lead_elsewhere_are_one_line(
    project: Path, run: Run, capfd: Capture, command: list[str], said: str
) -> None:
    assert run(*command, "-C", project) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (project / "data").exists()
