"""`mhrctl report` on a project that has scores, and on one that has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.report.made import made_cell, write_cells

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scored(project: Path) -> Path:
    """A project with scores of two methods."""
    cells = {
        f"{name}-s{seed}": made_cell(method, heads, seed, {task: score + seed + place for place, task in enumerate("abcde")})
        for seed in (0, 1)
        for name, method, heads, score in (("lora", "lora", 1, 60.0), ("mhr-h4", "mhr", 4, 64.0))
    }
    write_cells(project / "data/metrics", cells)
    return project


def test_several_tables_are_printed_one_after_another(scored: Path, run: Run, capfd: Capture) -> None:
    assert run("report", "--table", 4, "--table", 3, "--format", "markdown", "-C", scored) == 0
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("**")] == [
        "**Table 4: adaptation of the average (mu)**",
        "**Table 3: few-shot adaptation at 11B**",
    ]
    assert "No scores yet: poly-s0" in out
    assert not (scored / "data/report").exists()


def test_without_options_the_report_is_written_and_our_results_are_printed(scored: Path, run: Run, capfd: Capture) -> None:
    assert run("report", "-C", scored) == 0
    out = capfd.readouterr().out
    assert "Results: compositional, 5 test tasks, ROUGE-L, on scratch-1.2M" in out
    assert "Too few to say which method is better: 2 seeds of at least 3 (`grid.seeds` in params.yaml)." in " ".join(
        out.split()
    )
    assert "+4.00 to +4.00" in out
    assert "paper" not in out.lower()
    assert {path.name for path in (scored / "data/report").iterdir()} > {"results.md", "table1.md", "table2.md", "summary.json"}
    assert run("report", "--format", "csv", "-C", scored) == 0
    columns = (
        "method,adapted ROUGE-L,adapted ROUGE-L deviation,vs. lora,95% interval low,95% interval high,verdict,"
        "zero-shot ROUGE-L,zero-shot ROUGE-L deviation,trained per task,seeds"
    )
    assert capfd.readouterr().out.splitlines() == [
        columns,
        "lora,62.5,,,,,,40,,3456,2",
        "mhr-h4,66.5,,4,4,4,too few,40,,3456,2",
    ]


@pytest.mark.parametrize("number", range(1, 7))
def test_every_table_works_without_scores(project: Path, run: Run, capfd: Capture, number: int) -> None:
    assert run("report", "--table", number, "-C", project) == 0
    out = capfd.readouterr().out
    assert f"Table {number}:" in out
    assert max(map(len, out.splitlines())) <= 80
    assert number == 1 or "No scores yet; run `dvc repro`" in out


def test_methods_are_compared(scored: Path, run: Run, capfd: Capture) -> None:
    assert run("report", "--compare", "mhr-h4", "--format", "csv", "-C", scored) == 0
    assert capfd.readouterr().out.splitlines()[1] == "mhr-h4,5,2,4,4,4,0,too few"
    assert run("report", "--compare", "all", "--to", "mhr-h4", "--format", "csv", "-C", scored) == 0
    assert capfd.readouterr().out.splitlines()[1] == "lora,5,2,-4,-4,-4,1,too few"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", 7], "unknown table '7' (known: 1, 2, 3, 4, 5, 6, pool)"),
        (["--figure", 1], "unknown figure '1' (known: 2, 3, 4, claims)"),
        (["--compare", "mrh-h4"], "unknown method 'mrh-h4'; did you mean 'mhr-h4'? (known: lora, mhr-h4)"),
        (["--to", "lora"], "--to lora: name what is compared to it with --compare"),
        (["--out", "x"], "--out x: it is for --figure and --html"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    scored: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    assert run("report", *options, "-C", scored) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (scored / "data/report").exists()


def test_figures_and_html_go_to_the_report_or_to_a_folder_of_ones_own(scored: Path, run: Run, capfd: Capture) -> None:
    assert run("report", "--figure", 4, "-C", scored) == 0
    said = capfd.readouterr().err
    assert "figure 4: No cells of more heads yet" in said
    assert f"wrote {scored / 'data/report/figure4'}.{{png,svg}}" in said
    assert sorted(path.name for path in (scored / "data/report").iterdir()) == ["figure4.png", "figure4.svg"]
    assert run("report", "--html", "--out", scored / "own", "-C", scored) == 0
    assert "Scores by task" in (scored / "own/report.html").read_text()


def test_the_claims_are_a_figure_too(scored: Path, run: Run, capfd: Capture) -> None:
    assert run("report", "--figure", "claims", "-C", scored) == 0
    assert f"wrote {scored / 'data/report/claims'}.{{png,svg}}" in capfd.readouterr().err
    assert sorted(path.name for path in (scored / "data/report").iterdir()) == ["claims.png", "claims.svg"]


def test_figures_work_without_scores_and_a_page_says_that_there_is_nothing(project: Path, run: Run, capfd: Capture) -> None:
    assert run("report", "--figure", 2, "--figure", 3, "-C", project) == 0
    said = capfd.readouterr().err
    assert "figure 2: No scores yet; run `dvc repro`" in said
    assert "figure 3: No gradient alignment of lora, poly, mhr yet" in said
    assert len(list((project / "data/report").iterdir())) == 4
    assert run("report", "--html", "-C", project) == 2
    assert capfd.readouterr().err.startswith("error: nothing to report yet: no scores and no training logs in ")
    assert not (project / "data/report/report.html").exists()


def test_claims_are_judged_by_the_margin_of_the_project(project: Path, run: Run, capfd: Capture) -> None:
    cells = {
        f"{name}-s{seed}": made_cell(method, heads, seed, {task: score + seed + place for place, task in enumerate("abcde")})
        for seed in (0, 1, 2)
        for name, method, heads, score in (
            ("lora", "lora", 1, 60.0),
            ("mhr-h4", "mhr", 4, 64.0),
            ("mhr_mu-h4", "mhr_mu", 4, 62.0),
        )
    }
    write_cells(project / "data/metrics", cells)
    verdicts = []
    for margin in ("1", "3"):
        assert run("report", "--claims", "--format", "csv", "--set", f"report.margin={margin}", "-C", project) == 0
        verdicts.append({line.split(",")[0]: line.split(",")[-1] for line in capfd.readouterr().out.splitlines()[1:]})
    assert verdicts[0] == {"1c mhr-h4 > lora": "holds", "4a mhr_mu-h4 = mhr-h4": "fails", "4b mhr_mu-h4 > lora": "holds"}
    assert verdicts[1]["4a mhr_mu-h4 = mhr-h4"] == "holds"
    assert not (project / "data/report/claims.md").exists()
    assert run("report", "--set", "report.claims=true", "-C", project) == 0
    assert "| 1c mhr-h4 \\> lora | 5x3 | +4.00 |" in (project / "data/report/claims.md").read_text()
    assert run("report", "--html", "-C", project) == 0
    assert "What holds" in (project / "data/report/report.html").read_text()
