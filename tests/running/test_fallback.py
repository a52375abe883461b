"""The way around DVC's internals: DVC's command line, with the same stages and the same results."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.errors import ArtifactError
from mhrctl.running import internals
from mhrctl.running.engine import open_pipeline
from mhrctl.running.fallback import open_public_pipeline, run_dvc
from tests.conftest import Run
from tests.running.toy import Toy

Capture = pytest.CaptureFixture[str]


def test_other_internals_go_by_the_command_line(
    toy: Toy, made_done: Toy, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(internals, "version", lambda name: "4.0.1" if name == "dvc" else "0")
    (toy.root / "fail-train-b").touch()
    assert run("run", "evaluate@b", "-j", 2, "-C", toy.root) == 1
    reported = capfd.readouterr().err
    assert "dvc 4.0.1 is not among the tested versions" in reported
    assert "going by `dvc repro --single-item`" in reported
    assert "blocked   evaluate@b" in reported
    (toy.root / "fail-train-b").unlink()
    assert run("run", "evaluate@b", "-j", 2, "-C", toy.root) == 0
    assert "done: 2 stages in " in capfd.readouterr().err
    assert toy.began() == {"data": 1, "train-b": 2, "evaluate-b": 1}
    assert toy.repro("evaluate@b") == []
    assert toy.lock().items() <= made_done.lock().items()
    assert run("run", "--dry", "-C", toy.root) == 2


@pytest.mark.parametrize("targets", [[], ["train", "source.txt.dvc", "dvc.yaml:data", "evaluate@a"]])
def test_both_ways_see_the_same_stages(toy: Toy, targets: list[str]) -> None:
    (toy.root / "source.txt.dvc").write_text("outs:\n- {path: source.txt, md5: d41d8cd98f00b204e9800998ecf8427e, hash: md5}\n")
    with open_pipeline(toy.root, targets) as inner, open_public_pipeline(toy.root, targets) as public:
        assert set(public.names) == set(inner.names)
        assert public.needs == inner.needs
        assert public.folder == inner.folder
        assert [public.job(name) for name in inner.names] == [inner.job(name) for name in inner.names]


@pytest.mark.parametrize(
    ("targets", "reason"), [(["trian"], "Stage 'trian' not found inside 'dvc.yaml' file"), ([], "dvc.yaml")]
)
def test_what_dvc_cannot_read_is_one_line(toy: Toy, targets: list[str], reason: str) -> None:
    if not targets:
        (toy.root / "dvc.yaml").write_text("stages: [\n")
    with (
        pytest.raises(ArtifactError, match=f"^`dvc dag` failed in {toy.root}: .*{reason}") as error,
        open_public_pipeline(toy.root, targets),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_folder_outside_of_dvc_projects_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=f"^{tmp_path}: not a DVC project; run `mhrctl init`"),
        open_public_pipeline(tmp_path, []),
    ):
        pass


def test_what_dvc_prints_is_returned(toy: Toy) -> None:
    run_dvc(toy.root, "config", "core.analytics", "false")
    assert "core.analytics=false" in run_dvc(toy.root, "config", "--list").splitlines()
