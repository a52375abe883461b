"""The table of claims, as it is printed."""

from __future__ import annotations

from rich.console import Console

from mhrctl.report.bootstrap import Interval
from mhrctl.report.claims import CLAIMS, Judged, Judgement
from mhrctl.report.results import NO_SCORES
from mhrctl.report.table import TERMINAL, comma_separated, rich_table
from mhrctl.report.tables.claims import claims_table, title_of

BY_NUMBER = {claim.number: claim for claim in CLAIMS}
GAIN = Judged(BY_NUMBER["1a"], ("mhr-h8", "poly"), 12, 8, Interval(1.234, 0.5, 2.0, 0.004), 0.0321, 1.5, "holds")
ALIGNED = Judged(BY_NUMBER["5a"], ("mhr-h8", "lora"), 0, 8, Interval(-0.0123, -0.02, -0.01, 1.0), 0.0002, 0.02, "fails")
EQUAL = Judged(BY_NUMBER["4a"], ("mhr_mu-h8", "mhr-h8"), 12, 8, Interval(0.1, -0.9, 1.2, 0.4), 0.3, 1.4, "not shown")


def test_a_row_says_what_was_compared_how_surely_and_what_could_have_been_shown() -> None:
    table = claims_table(Judgement([GAIN, ALIGNED, EQUAL], {BY_NUMBER["0"]: "no cells of lora"}), margin=2, metric="ROUGE-L")
    assert [list(row) for row in table.rows] == [
        ["1a mhr-h8 > poly", "12x8", "+1.23", "+0.50 to +2.00", "100%", "0.032", "1.50", "holds"],
        ["5a mhr-h8 > lora, shared", "8", "-0.012", "-0.020 to -0.010", "0%", "<.001", "0.020", "fails"],
        ["4a mhr_mu-h8 = mhr-h8", "12x8", "+0.10", "-0.90 to +1.20", "60%", "0.300", "1.40", "not shown"],
    ]
    text = "\n".join(table.notes)
    assert f"1a: {BY_NUMBER['1a'].text}" in text
    assert BY_NUMBER["0"].text not in text
    assert "Holm's correction for 3 claims" in text
    assert "a difference of up to 2 is none" in text
    assert table.notes[-1] == "Not judged: 0, no cells of lora."


def test_it_fits_a_terminal_and_spreadsheets_get_numbers() -> None:
    longest = Judged(
        BY_NUMBER["4c"], ("mhr_mu-h8", "random_mu"), 12, 8, Interval(-1.2, -3.0, -0.1, 0.9), 1.0, 12.34, "not shown"
    )
    table = claims_table(Judgement([longest], {}), margin=1, metric="ROUGE-L")
    console = Console(width=TERMINAL, record=True)
    with console.capture() as shown:
        console.print(rich_table(table))
    assert any("4c mhr_mu-h8 > random_mu" in line and line.rstrip().endswith("not shown") for line in shown.get().splitlines())
    assert "-1.2,-3,-0.1," in comma_separated(table)


def test_signs_say_what_is_claimed() -> None:
    assert title_of(EQUAL) == "4a mhr_mu-h8 = mhr-h8"
    assert title_of(Judged(BY_NUMBER["2a"], ("mhr_z-h8", "lora"), 5, 3, EQUAL.interval, 1, 1, "holds")) == "2a mhr_z-h8 ≥ lora"


def test_without_scores_it_says_so() -> None:
    table = claims_table(Judgement([], {BY_NUMBER["0"]: "no cells of lora"}), margin=1, metric="score")
    assert (table.rows, list(table.notes)) == ([], [NO_SCORES, "Not judged: 0, no cells of lora."])
