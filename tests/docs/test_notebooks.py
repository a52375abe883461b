"""The notebooks of docs/ run from the top, and are kept with what they show."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import mhrctl
from tests.docs.studies import small_study
from tests.docs.test_glossary import BANNED_WORDS

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SECONDS = 1800


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    tree = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in tree["cells"] if cell["cell_type"] == kind]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_code_runs_from_an_empty_folder(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, and with a study that trains for a few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(mhrctl, "init", small_study, raising=False)
    names: dict[str, Any] = {"__name__": "notebook"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")  # nobody sees it here
        for cell in cells(notebook, "code"):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102 - of our own notebook
    shown = capsys.readouterr().out
    assert "mhr-h8-s0   adapted" in shown
    assert names["weights"].shape == (2, 8, 8)
    assert set(names["scores"].answers) <= {"food", "sport"}


@pytest.mark.slow
def test_it_shows_what_it_is_kept_with(notebook: Path, tmp_path: Path) -> None:
    """By Jupyter, from an empty folder: the numbers of a CPU may differ between machines in their last digits alone."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own
        again = nbformat.read(notebook, as_version=4)
        client = nbclient.NotebookClient(
            again, timeout=SECONDS, record_timing=False, resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
    ran = [cell for cell in again.cells if cell["cell_type"] == "code"]
    for kept, cell in zip(cells(notebook, "code"), ran, strict=True):
        kinds = [
            [output["output_type"] for output in each["outputs"] if output["output_type"] != "display_data"]
            for each in (kept, cell)
        ]
        assert kinds[0] == kinds[1], cell["source"]
    shown = "".join(output.get("text", "") for cell in ran for output in cell["outputs"])
    assert "mhr-h8-s0   adapted" in shown


def test_it_is_kept_as_it_ran_from_the_top(notebook: Path) -> None:
    code = cells(notebook, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = json.dumps(
        [
            {key: value for key, value in output.get("data", {}).items() if key != "image/png"} | output.get("metadata", {})
            for output in outputs
        ]
    )
    text += json.dumps([output.get("text", "") for output in outputs])
    assert "site-packages" not in text
    assert str(Path.home()) not in text
    assert "/tmp/" not in text  # noqa: S108
    assert {cell["metadata"].get("execution") for cell in code} == {None}


def test_it_says_no_banned_word(notebook: Path) -> None:
    for cell in cells(notebook, "markdown"):
        assert not BANNED_WORDS.search("".join(cell["source"]))
