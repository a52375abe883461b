"""Every study of `pipelines/`, made tiny, fills the tables and figures of the paper that it is for.

`MHRCTL_PICTURES=folder pytest --slow tests/pipelines` leaves the figures and reports there, to be looked at.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import grid_cells, method_of
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params
from mhrctl.report import printed
from mhrctl.report.figures import FIGURES, draw_figure
from mhrctl.report.printed import Setting, can_have_heads
from mhrctl.report.results import MISSING, read_results
from mhrctl.report.table import Table
from mhrctl.report.tables import build_table
from mhrctl.report.tables.beside import NOT_RUN
from tests.conftest import mhrctl
from tests.pipelines.tiny import DATA, ROOT, walk
from tests.robustness.workshop import Runner

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")]

RANDOM_MU = {"method": "random_mu"}
"""Of section 5.2, which Table 4 has with the paper's."""
SCORES = re.compile(r"adapted|zero-shot|median|[\d,]+\nsteps")
"""Heads of columns of our scores."""


@dataclass(frozen=True)
class Study:
    """A study is what the paper reports of a backbone on a suite.

    Attributes:
        name: folder of `pipelines/`.
        suite: in the paper's words.
        backbone: in the paper's words.
        figures: {figure of the paper that it is for: what of the figure is of other studies, as the figure says}.
    """

    name: str
    suite: str
    backbone: str
    figures: Mapping[int, set[str]]


NO_SKILLS = "No cells of more skills yet: add a variant with pretrain.skills to poly."
NO_XL, NO_3B = "No cells of T0 on T5-XL-LM yet.", "No cells of T0 on T0-3B yet."
STUDIES = [
    Study("t0", "T0", "T5-XL-LM", {2: {NO_3B}, 3: set(), 4: set()}),
    Study("t0-3b", "T0", "T0-3B", {2: {NO_XL}}),
    Study("t0-11b", "T0", "T0-11B", {2: {NO_XL, NO_3B}}),
    Study("superni", "SuperNI", "T5-XL-LM", {2: {NO_XL, NO_3B}, 3: {NO_SKILLS}}),
]
STUDIED = [study for study in STUDIES if (ROOT / "pipelines" / study.name).is_dir()]


@dataclass(frozen=True)
class Walked:
    """A study of which every stage of every cell has run."""

    study: Study
    root: Path

    @property
    def metrics(self) -> Path:
        return Project(self.root).metrics

    @property
    def params(self) -> Params:
        return load_params(self.root / "params.yaml").params

    def table(self, number: int) -> Table:
        results = read_results(self.metrics, self.params.report.trials)
        return build_table(number, results, [cell.name for cell in grid_cells(self.params)])


@pytest.fixture(scope="module", params=STUDIED, ids=lambda study: study.name)
def walked(request: pytest.FixtureRequest, runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Walked:
    study: Study = request.param
    root = tmp_path_factory.mktemp("studies") / study.name
    walk(study.name, root, runner)
    return Walked(study, root)


@pytest.fixture
def as_the_papers(walked: Walked, monkeypatch: pytest.MonkeyPatch) -> Walked:
    """The study, whose backbone and test tasks are taken for the paper's, so that differences to it are taken."""
    results = read_results(walked.metrics)
    assert results.backbone
    monkeypatch.setitem(printed.BACKBONES, walked.study.backbone, results.backbone)
    monkeypatch.setattr(Setting, "has_weights", lambda *_: True)
    if walked.study.suite == "SuperNI":
        monkeypatch.setattr(Setting, "test_tasks", lambda _: [results.tasks])
    return walked


def test_every_study_is_walked() -> None:
    yaml = YAML(typ="safe", pure=True)
    params = {folder.name: yaml.load(folder / "params.yaml") for folder in (ROOT / "pipelines").iterdir()}
    of_the_paper = {name for name, each in params.items() if each["backbone"]["source"] == "hub"}
    assert of_the_paper == {study.name for study in STUDIED}


def test_every_table_is_full(as_the_papers: Walked) -> None:
    """No row of the paper is without ours, and to each of the study's a difference is taken."""
    for number in as_the_papers.params.report.tables:
        if number != "pool" and number > 1:  # the first has formulas alone
            table = as_the_papers.table(number)
            assert [row for row in table.rows if NOT_RUN in row and is_of(as_the_papers.study, row, table)] == [], table.title
            assert [note for note in table.notes if "No scores yet" in note or "No difference" in note] == []
            known = [row["method"] for row in rows_of_the_paper(as_the_papers.study, number) if has_heads(row)]
            assert sorted(with_difference(table)) == sorted(known), table.title
            assert not any(MISSING in row for row in scores(table)), table.title


def test_every_table_of_the_study_is_written(walked: Walked) -> None:
    """What the paper has of the suite on the backbone."""
    with_rows = [number for number in range(2, 7) if rows_of_the_paper(walked.study, number)]
    assert walked.params.report.tables == [1, *with_rows]
    assert all((walked.root / f"data/report/table{number}.md").is_file() for number in with_rows)


def is_of(study: Study, row: Sequence[str], table: Table) -> bool:
    """Whether a row of the paper is of the study; Table 4 has a column for each suite, and rows that one of them has."""
    column = f"paper\n{study.suite}"
    return column not in table.columns or row[table.columns.index(column)] != MISSING


def has_heads(row: Mapping[str, Any]) -> bool:
    """Whether a row of the paper has its heads said, if it can have several: without, no difference to it is taken."""
    return row.get("heads") is not None or not can_have_heads(row["method"])


def with_difference(table: Table) -> list[str]:
    """The methods of the rows in whose last column there is a difference to the paper."""
    return [method_of(row[0]) for row in table.rows if row[-1] != MISSING]


def scores(table: Table) -> list[list[str]]:
    """Our scores of each adapted method that the paper has too."""
    columns = [place for place, name in enumerate(table.columns) if SCORES.match(name)]
    return [[row[place] for place in columns] for row in table.rows if row[-1] != MISSING and row[0] != BACKBONE]


def rows_of_the_paper(study: Study, number: int) -> list[Mapping[str, Any]]:
    """The rows that a table of the paper has of a study, as `tables.json` has them."""
    content = printed.printed()
    blocks = {
        2: [content["table2"]],
        3: [content["table3"]],
        4: [content["table4_t0"] | {"rows": [*content["table4_t0"]["rows"], RANDOM_MU]}, content["table4_superni"]],
        5: [{"suite": "T0", "backbone": row["backbone"], "rows": [row]} for row in content["table5"]["rows"]],
        6: content["table6"]["blocks"],
    }
    of_study = [block for block in blocks[number] if (block["suite"], block["backbone"]) == (study.suite, study.backbone)]
    return [row for block in of_study for row in block["rows"]]


def test_every_panel_is_full(as_the_papers: Walked) -> None:
    for number, of_others in as_the_papers.study.figures.items():
        drawing = draw_figure(number, read_results(as_the_papers.metrics), as_the_papers.metrics)
        assert set(drawing.missing) == of_others, drawing.title
        assert [axes.get_title(loc="left") for axes in drawing.figure.axes if not (axes.axison and axes.has_data())] == []


def test_the_html_has_all_of_it(as_the_papers: Walked, tmp_path: Path) -> None:
    figures = [word for number in FIGURES for word in ("--figure", str(number))]
    assert mhrctl("report", *figures, "--html", "--out", tmp_path, "-C", as_the_papers.root) == 0
    assert "No scores yet" not in (tmp_path / "report.html").read_text()
    if folder := os.environ.get("MHRCTL_PICTURES"):
        shutil.copytree(tmp_path, Path(folder) / as_the_papers.study.name, dirs_exist_ok=True)


@pytest.mark.parametrize("study", STUDIED, ids=lambda study: study.name)
def test_check_misses_the_data_alone(study: Study, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As the study is shipped, before its data is fetched."""
    root = tmp_path / study.name
    shutil.copytree(ROOT / "pipelines" / study.name, root)
    assert mhrctl("check", "-C", root) == 2
    complaints = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error", "warning"))]
    assert len(complaints) == 1
    said = {"T0": "t-few/data: no such folder; it must be a clone of", "SuperNI": "prepare.path must be a clone"}
    assert said[study.suite] in complaints[0]
