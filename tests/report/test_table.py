"""A small table in every form."""

from __future__ import annotations

import csv
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from mhrctl.errors import printable
from mhrctl.report.table import RENDERERS, Table, Value, rich_table

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
    assert text == 'method,adapted ROUGE-L,50 %\npoly_z,81.5 ± 2.1,1|2\n"mhr, h8",,3\n'
    assert list(csv.reader(io.StringIO(text)))[2] == ["mhr, h8", "", "3"]


def test_numbers_behind_a_text_have_columns_of_their_own_in_csv() -> None:
    score, bare = Value("81.5±2.1", {"": 81.51239, "deviation": 2.1}), Value("7.0", {"": 7.0, "deviation": None})
    table = Table("", ("m", "in-\nference"), [["a", score], ["b", bare], ["c", "not run"], ["d", "-"]])
    assert RENDERERS["csv"](table) == "m,inference,inference deviation\na,81.5124,2.1\nb,7,\nc,,\nd,,\n"
    assert "| a | 81.5±2.1 |" in RENDERERS["markdown"](table)
    count = Value("17M", {"": 17_000_000})
    assert RENDERERS["csv"](Table("", ("m", "n"), [["a", count]])) == "m,n\na,17000000\n"


def test_latex() -> None:
    assert RENDERERS["latex"](SMALL) == (
        "\\begin{table}\n"
        "\\caption{Table 9: a\\_b}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "method & adapted ROUGE-L & 50 \\% \\\\\n"
        "\\midrule\n"
        "poly\\_z & 81.5 $\\pm$ 2.1 & 1\\textbar{}2 \\\\\n"
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


EVIL = [
    "a|b\\",
    "<script>alert('x')</script>",
    "[red]x[/] :smile:",
    "`*_x_*`",
    "&copy;$\\input{x}%",
    "\x1b[31mred\x07",
    "one\ntwo\u2028three",
]
FORMULAS = ["=cmd()", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", " =1", "\t=1", "\uff1d1"]


def evil(column: str = "x") -> Table:
    return Table(EVIL[1], ("method", column), [[text, "1"] for text in EVIL], tuple(EVIL))


@pytest.mark.parametrize("form", RENDERERS)
def test_no_name_is_a_code_of_the_terminal_or_a_line_of_its_own(form: str) -> None:
    text = RENDERERS[form](evil())
    assert not set(text) & {"\x1b", "\x07", "\u2028", "\u202e"}
    assert "x1b" in text
    assert "one two three" in text
    plain = RENDERERS[form](Table("t", ("method", "x"), [["a", "1"]] * len(EVIL), ("n",) * len(EVIL)))
    assert text.count("\n") == plain.count("\n")


def test_no_name_is_markdown() -> None:
    lines = RENDERERS["markdown"](evil("a|b")).splitlines()
    cells = [line for line in lines if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in cells} == {3}
    for line in lines:
        bare = re.sub(r"\\[^\w\s]", "", line)  # what a backslash has not made a mere sign
        assert not set(bare) & set("<>&[]$~"), line
        assert "_x_" not in bare.replace("`", "")
    assert "| mhr_mu-h8 | 1 |" in RENDERERS["markdown"](
        Table("", ("m", "n"), [["mhr_mu-h8", "1"]])
    )  # within a word it is a sign


def test_no_name_is_latex() -> None:
    body = RENDERERS["latex"](evil())
    rows = body.split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert not re.search(r"(?<!\\)[%$&#_^~](?! 1 )", rows.replace(" & 1 ", ""))
    assert "\\input" not in rows
    assert "\\textbackslash{}input\\{x\\}\\%" in rows
    assert not re.search(r"^[\[*]", rows, re.MULTILINE)  # an argument of the row's end before it
    assert all(line.startswith("% ") for line in body.split("\\end{tabular}\n")[1].split("\\end{table}")[0].splitlines())


@pytest.mark.parametrize("text", FORMULAS)
def test_no_name_is_a_formula_of_a_spreadsheet(text: str) -> None:
    head, row = csv.reader(io.StringIO(RENDERERS["csv"](Table("", ("m", text), [[text, "1"]]))))
    assert row[0] == head[1] == f"'{printable(text)}"


@pytest.mark.parametrize("text", ["+4.00", "-4.6", "+20.00 to +20.99", "81.5±2.1", "17,694,720", "50.0%", "a=b"])
def test_numbers_are_numbers_in_a_spreadsheet(text: str) -> None:
    assert list(csv.reader(io.StringIO(RENDERERS["csv"](Table("", ("m", "x"), [["a", text]])))))[1] == ["a", text]


def test_no_name_is_markup_in_a_terminal() -> None:
    text = "\n".join(shown(evil()))
    for part in ("a|b\\", "[red]x[/] :smile:", "\\x1b[31mred\\x07", "one two three"):
        assert text.count(part) == 2  # in its row and its note


def test_wide_characters_take_two_columns_of_a_terminal() -> None:
    lines = shown(Table("", ("m", "n"), [["你" * 35, "1234567"]]))
    assert any("1234567" in line for line in lines)
    assert max(map(cell_len, lines)) <= 80


def test_a_wide_table_is_set_closer_and_loses_no_digit() -> None:
    def row(columns: int) -> str:
        lines = shown(Table("", ("a",) * columns, [["81.5±21"] * columns]))
        assert not any("…" in line for line in lines)
        return next(line for line in lines if "81" in line)

    assert row(8) == " " + "  ".join(["81.5±21"] * 8)
    assert row(9) == " " + " ".join(["81.5±21"] * 9)
    assert len(row(14)) <= 80
