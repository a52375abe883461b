"""Pre-training logs and measured alignments, as they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mhrctl.errors import ArtifactError
from mhrctl.report.logs import Alignment, label_of, read_logs, read_measured, read_validation

LOG = "step,loss,lr,routing_lr,tokens,shared,composed\n10,2.5,0.01,0.1,640,,\n20,1.25,0.01,0.1,1280,0.3,0.4\n"


def measured(folder: Path, name: str, step: int, **changes: object) -> None:
    folder.mkdir(exist_ok=True)
    content = {"method": "mhr", "heads": 8, "variant": "plain", "seed": 0, "at": "end", "step": step}
    content |= {"shared": {"overall": 0.1, "layers": {}}, "composed": {"overall": 0.2, "layers": {}}}
    (folder / f"{name}.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("cell", "label"),
    [("lora-s0", "lora"), ("mhr-h8-s12", "mhr-h8"), ("mhr_mu-h8-light-x150-s0", "mhr_mu-h8-light-x150")],
)
def test_a_label_is_a_name_without_its_seed(cell: str, label: str) -> None:
    assert label_of(cell) == label


def test_a_log_has_losses_and_alignment_where_it_was_measured(tmp_path: Path) -> None:
    (tmp_path / "mhr-h8-s0.csv").write_text(LOG)
    (tmp_path / "lora-s0.csv").write_text("step,loss,lr\n10,3.5,0.01\n")
    lora, mhr = read_logs(tmp_path)
    assert (lora.cell, lora.steps, lora.losses, lora.alignments) == ("lora-s0", (10,), (3.5,), ())
    assert (mhr.steps, mhr.losses, mhr.alignments) == ((10, 20), (2.5, 1.25), (Alignment(20, 0.3, 0.4),))


@pytest.mark.parametrize(
    "text",
    ["step,lr\n10,0.1\n", "step,loss\n10\n", "step,loss\nten,1.0\n", "step,loss,shared\n10,1.0,0.5\n"],
    ids=["no loss", "short row", "no number", "half an alignment"],
)
def test_a_broken_log_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "lora-s0.csv").write_text(text)
    with pytest.raises(ArtifactError, match=r"lora-s0\.csv: .*mhrctl pretrain") as error:
        read_logs(tmp_path)
    assert "\n" not in str(error.value)


def test_measurements_of_a_label_are_together(tmp_path: Path) -> None:
    measured(tmp_path, "mhr-h8-s0-start", 0)
    measured(tmp_path, "mhr-h8-s0-checkpoint", 10)
    measured(tmp_path, "mhr-h8-s0", 20, shared={"overall": -0.5})
    measured(tmp_path, "lora-s3", 20)
    alignments_of = read_measured(tmp_path)
    assert {label: {at.step: at.shared for at in alignments} for label, alignments in alignments_of.items()} == {
        "mhr-h8": {0: 0.1, 10: 0.1, 20: -0.5},
        "lora": {20: 0.1},
    }
    assert alignments_of["lora"] == [Alignment(20, 0.1, 0.2)]


def test_nothing_measured_is_no_error(tmp_path: Path) -> None:
    assert (read_logs(tmp_path / "missing"), read_measured(tmp_path / "missing")) == ([], {})


@pytest.mark.parametrize("shared", [{"overall": 2.0}, {}, None])
def test_a_broken_measurement_is_named(tmp_path: Path, shared: object) -> None:
    measured(tmp_path / "align", "mhr-h8-s0", 20, shared=shared)
    with pytest.raises(ArtifactError, match=r"mhr-h8-s0\.json: shared.*mhrctl align") as error:
        read_measured(tmp_path / "align")
    assert "\n" not in str(error.value)


def test_the_validation_loss_is_a_mean_over_tasks_where_there_is_one(tmp_path: Path) -> None:
    for cell, rows in {"lora-s0": "a,0.25\nb,0.75\n", "poly-s0": ""}.items():
        (tmp_path / cell).mkdir()
        (tmp_path / cell / "validation.csv").write_text(f"task,loss\n{rows}")
    assert read_validation(tmp_path, ["lora-s0", "poly-s0", "mhr-h8-s0"]) == {"lora-s0": 0.5}


@pytest.mark.parametrize("text", ["task\na\n", "task,loss\na\n", "task,loss\na,b\n"])
def test_a_broken_validation_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "lora-s0").mkdir()
    (tmp_path / "lora-s0/validation.csv").write_text(text)
    with pytest.raises(ArtifactError, match=r"validation\.csv: no loss in each row; run `mhrctl pretrain`"):
        read_validation(tmp_path, ["lora-s0"])
