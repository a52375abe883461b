"""A small table in every form."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from mhrctl.report.table import RENDERERS, Table, rich_table

SMALL = Table(
    "Table 9: a_b",
    ("method", "adapted\nROUGE-L", "50 %"),
    [["poly_z", "81.5 ± 2.1", "1|2"], ["mhr, h8", "-", "3"]],
    ("A note.", "Another."),
)


def test_markdown() -> None:
    assert RENDERERS["markdown"](SMALL) == (
        "**Table 9: a_b**\n"
        "\n"
        "| method | adapted ROUGE-L | 50 % |\n"
        "| --- | ---: | ---: |\n"
        "| poly_z | 81.5 ± 2.1 | 1\\|2 |\n"
        "| mhr, h8 | - | 3 |\n"
        "\n"
        "A note.\n"
        "\n"
        "Another.\n"
    )


def test_csv() -> None:
    text = RENDERERS["csv"](SMALL)
    assert text == 'method,adapted ROUGE-L,50 %\npoly_z,81.5 ± 2.1,1|2\n"mhr, h8",-,3\n'
    assert list(csv.reader(io.StringIO(text)))[2] == ["mhr, h8", "-", "3"]


def test_latex() -> None:
    assert RENDERERS["latex"](SMALL) == (
        "\\begin{table}\n"
        "\\caption{Table 9: a\\_b}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "method & adapted ROUGE-L & 50 \\% \\\\\n"
        "\\midrule\n"
        "poly\\_z & 81.5 $\\pm$ 2.1 & 1|2 \\\\\n"
        "mhr, h8 & - & 3 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "% A note.\n"
        "% Another.\n"
        "\\end{table}\n"
    )


@pytest.mark.parametrize(
    ("cell", "escaped"),
    [
        ("a & b", r"a \& b"),
        ("$5 #1 {x}", r"\$5 \#1 \{x\}"),
        ("a\\b", r"a\textbackslash{}b"),
        ("~x^2", r"\textasciitilde{}x\textasciicircum{}2"),
        ("-3.2", "$-$3.2"),
        ("-1.6 to -0.4", "$-$1.6 to $-$0.4"),
        ("+0.1 t5-xl - mhr-8", "+0.1 t5-xl - mhr-8"),
    ],
)
def test_latex_escapes(cell: str, escaped: str) -> None:
    text = RENDERERS["latex"](Table("t", ("c",), [[cell]]))
    assert f"\n{escaped} \\\\\n" in text


def shown(table: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as capture:
        console.print(rich_table(table))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_terminal_shows_text_left_and_numbers_right() -> None:
    table = Table("", ("method", "score"), [["lora", "7"], ["poly_z", "123.4"]], ("A note.",))
    lines = [line for line in shown(table) if line]
    assert lines[0] == " method  score"
    assert lines[-3:] == [" lora        7", " poly_z  123.4", "A note."]


def test_brackets_are_no_markup_on_a_terminal() -> None:
    text = "\n".join(shown(Table("T [bold]", ("m [red]", "[blue] n"), [["[green]", "[i]"]], ("[b] note",))))
    for part in ("T [bold]", "m [red]", "[blue] n", "[green]", "[i]", "[b] note"):
        assert part in text


def test_a_wide_table_is_set_closer_and_loses_no_digit() -> None:
    def row(columns: int) -> str:
        lines = shown(Table("", ("a",) * columns, [["81.5±21"] * columns]))
        assert not any("…" in line for line in lines)
        return next(line for line in lines if "81" in line)

    assert row(8) == " " + "  ".join(["81.5±21"] * 8)
    assert row(9) == " " + " ".join(["81.5±21"] * 9)
    assert len(row(14)) <= 80
