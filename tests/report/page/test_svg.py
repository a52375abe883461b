"""Figures as parts of a page."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from mhrctl.report.figures.style import Drawing, styled
from mhrctl.report.page.svg import inlined


def drawn() -> bytes:
    """A figure on white with ink of several greys, a filled and a hollow marker of a colour, and an image."""
    with styled():
        figure = Figure(figsize=(3, 2), facecolor="white")
        axes = figure.add_subplot()
        axes.plot([1], [2], "o", color="#0072B2")
        axes.plot([2], [2], "o", color="#0072B2", markerfacecolor="white")
        axes.plot([0, 1], [0, 1], color="#e4e4e4")
        axes.imshow([[0.0, 1.0]])
        axes.text(1, 1, "grey", color="#b0b0b0")
    return Drawing("a title", figure, ()).rendered("svg")


def test_greys_become_the_pages_colours_and_colours_stay() -> None:
    text = inlined(drawn(), "x")
    assert set(re.findall("#[0-9a-f]{6}", re.sub('href="[^"]*"', "", text))) == {"#0072b2"}
    assert {"var(--page)", "var(--line)", "var(--soft)", "currentColor"} <= set(re.findall(r"var\(--\w+\)|currentColor", text))
    assert "fill: none" in text
    assert 'style="fill: var(--page)"' not in text  # no background would hide what is behind the figure


def test_it_is_one_element_that_says_its_width_and_nothing_of_the_page() -> None:
    text = inlined(drawn(), "x")
    assert text.startswith('<svg style="--natural: 288px"')
    assert text.endswith("</svg>")
    assert "<style" not in text
    assert "<metadata" not in text
    assert "font-family" not in text
    head = text[: text.index(">")]
    assert "width=" not in head
    assert "height=" not in head


def test_names_are_of_this_figure_alone_and_what_they_refer_to_is_there() -> None:
    one, other = inlined(drawn(), "x"), inlined(drawn(), "y")
    ids = set(re.findall(r'\bid="([^"]+)"', one))
    assert ids
    assert not ids & set(re.findall(r'\bid="([^"]+)"', other))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', one))
    assert {"".join(each) for each in used} <= ids


def test_a_text_is_no_colour_and_no_markup() -> None:
    text = inlined(b'<?xml?><svg viewBox="0 0 9 9"><text>#e4e4e4 &lt;b&gt; id="x" \x1b</text></svg>', "x")
    assert text == '<svg style="--natural: 12px" viewBox="0 0 9 9"><text>#e4e4e4 &lt;b&gt; id="x" \\x1b</text></svg>'
