"""`mhrctl inspect` on a project in which every stage has run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mhrctl.data.index import Index, load_index
from mhrctl.data.shots import draw_shots
from mhrctl.data.similarity import cosines
from tests.conftest import Run, reseal

Capture = pytest.CaptureFixture[str]


def test_a_routing_is_shown_and_drawn(copy: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("inspect", "-m", "mhr", "-C", copy) == 0
    shown = capfd.readouterr()
    assert "routing of mhr-h4-s0" in shown.out
    for part in ("encoder", "decoder", "all"):
        assert f"\n {part} " in shown.out
    assert "note: no index to compare the routing with; `mhrctl index` makes one\n" in shown.err
    folder = copy / "data/inspect/mhr-h4-s0"
    assert f"wrote {folder}" in shown.err
    written = json.loads((folder / "routing.json").read_text())
    assert written["tasks"] == ["copy", "first", "last"]
    assert f"{written['overall']['effective_skills']:.3f}" in shown.out


def drawn_index(project: Path, run: Run) -> Index:
    """An index with drawn vectors; by its numbers the inputs of all these tasks are equally alike."""
    assert run("index", "-C", project) == 0
    file = project / "data/index/index.safetensors"
    known = load_index(project / "data/index", root=project)
    vectors = np.asarray(np.random.default_rng(0).uniform(size=known.vectors.shape), np.float32)
    save_file({**load_file(file), "vectors": vectors}, file, {"tasks": json.dumps(known.tasks)})
    reseal(file.parent)
    return load_index(project / "data/index", root=project)


def test_with_an_index_the_inputs_stand_beside_the_routing(copy: Path, run: Run, capfd: Capture) -> None:
    known = drawn_index(copy, run)
    capfd.readouterr()
    assert run("inspect", "-m", "poly", "--top", 1, "-C", copy) == 0
    shown = capfd.readouterr()
    assert "Routing and inputs, 3 pairs: Spearman" in shown.out
    assert "no index" not in shown.err
    pairs = json.loads((copy / "data/inspect/poly-s0/routing.json").read_text())["most_alike"]
    assert len(pairs) == 3
    assert f"{pairs[0]['inputs']:.3f}" in shown.out
    assert pairs[0]["inputs"] == pytest.approx(dict(known.nearest_to(pairs[0]["tasks"][0]))[pairs[0]["tasks"][1]], abs=1e-5)


def test_inputs_that_are_all_alike_are_said_to_be(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("index", "-C", copy) == 0
    capfd.readouterr()
    assert run("inspect", "-m", "poly", "-C", copy) == 0
    assert "Routing and inputs, the same for all pairs." in capfd.readouterr().out


@pytest.mark.parametrize("method", ["poly", "mhr", "mhr_z"])
def test_adapted_tasks_are_shown_beside_training_tasks(copy: Path, run: Run, capfd: Capture, method: str) -> None:
    known = drawn_index(copy, run)
    capfd.readouterr()
    assert run("inspect", "-m", method, "--stage", "adapt", "-C", copy) == 0
    shown = capfd.readouterr().out
    for row in ("test, all", "training, all", "swap", "twice"):
        assert row in shown
    (folder,) = (copy / "data/inspect").iterdir()
    assert folder.name.endswith("-s0-adapt")
    written: dict[str, Any] = json.loads((folder / "routing.json").read_text())
    assert [written["tasks"], written["training"]["tasks"]] == [["swap", "twice"], ["copy", "first", "last"]]
    assert written["inputs"]["correlation"]["pairs"] == 6
    prompts = {task.name: task.prompts for task in draw_shots(copy / "data/prepare", shots=3, validation=3, seed=0)}
    for pair in written["most_alike"]:
        test, training = pair["tasks"]
        similar = cosines(known.encoder.encode(prompts[test]).mean(0), known.vectors)
        assert pair["inputs"] == pytest.approx(similar[known.tasks.index(training)], abs=1e-5)


def test_layers_heads_and_folder_are_the_users(copy: Path, run: Run, tmp_path: Path) -> None:
    layer = "decoder.block.0.layer.1.EncDecAttention.k"
    options = ("--layer", layer, "--head", 3, "--out", tmp_path / "seen")
    assert run("inspect", "-m", "mhr_z", *options, "-C", copy) == 0
    assert {path.suffix for path in (tmp_path / "seen").iterdir()} == {".json", ".png", ".svg"}
    assert "head 3" in (tmp_path / "seen/heatmaps.svg").read_text()
    assert json.loads((tmp_path / "seen/card.json").read_text())["params"]["layers"] == [layer]
    assert not (copy / "data/inspect").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "lora"], "--method lora: has no routing; inspect --stage pretrain is of poly,"),
        (["-m", "mhr_mu", "--stage", "adapt"], "--method mhr_mu: adapts the average of the skills"),
        (["-m", "mhr", "--layer", "encoder"], "--layer: unknown layer 'encoder'"),
        (["-m", "mhr", "--head", 9], "--head 9: there are the heads 1 to 4"),
        (["-m", "mhr", "--seed", 7], "mhr-h4-s7: no finished pretrain output; run `mhrctl pretrain mhr-h4-s7`"),
        (["-m", "poly_z", "--stage", "adapt"], "poly_z-s0: no finished adapt output; run `mhrctl adapt poly_z-s0`"),
        (["-m", "mhr", "--variant", "light"], "--variant: unknown variant 'light'"),
        ([], "name the cell, such as mhr-h8-s0, or its --method"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    walked: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    capfd.readouterr()
    assert run("inspect", *options, "-C", walked) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (walked / "data/inspect").exists()


@pytest.mark.parametrize("options", [["--stage", "average"], ["--head", 0], ["--top", 0]])
def test_options_out_of_range_are_exit_code_2(walked: Path, run: Run, options: list[object]) -> None:
    assert run("inspect", "-m", "mhr", *options, "-C", walked) == 2
