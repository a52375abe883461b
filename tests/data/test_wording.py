"""Templates of prompts, with what a task says and without."""

from __future__ import annotations

import pytest

from mhrctl.data.wording import filled


@pytest.mark.parametrize(
    ("template", "says", "prompt"),
    [
        ("{definition}\n\n{input}", "Translate.", "Translate.\n\ncat"),
        ("{definition}\n\n{input}", "", "cat"),
        ("{definition}: {input}", "Translate.", "Translate.: cat"),
        ("{definition}: {input}", "", "cat"),
        ("Q: {input} ({definition})\nA:", "Translate.", "Q: cat (Translate.)\nA:"),
        ("Task: {definition}\nInput: {input}\nAnswer:", "Translate.", "Task: Translate.\nInput: cat\nAnswer:"),
        ("Task: {definition}\nInput: {input}\nAnswer:", "", "Input: cat\nAnswer:"),
        ("{input}\n\n{definition}", "", "cat"),
        ("{input} {definition}", "", "cat"),
        ("{input}", "Translate.", "cat"),
        ('{"q": "{input}", "a": {0}}', "", '{"q": "cat", "a": {0}}'),
    ],
)
def test_a_template_is_filled(template: str, says: str, prompt: str) -> None:
    assert filled(template, says)("cat") == prompt


def test_braces_of_tasks_and_inputs_stay() -> None:
    assert filled("{definition}\n\n{input}", "Say {input}.")("{definition} {x}") == "Say {input}.\n\n{definition} {x}"
