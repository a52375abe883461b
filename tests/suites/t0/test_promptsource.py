"""Promptsource's templates: its rules on templates made here, and every row that promptsource itself rendered."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mhrctl.errors import DataError
from mhrctl.suites.t0.held_out import T0_TEST_TASKS
from mhrctl.suites.t0.promptsource import PromptTemplate, Rendering, read_templates

DATA = Path(__file__).parents[4] / "shared/data"

YAML = """\
dataset: super_glue
subset: rte
templates:
  1: !Template
    answer_choices: 'Yes ||| No'
    id: 1
    jinja: "{{premise}} So {{hypothesis}}?\\n ||| {{ answer_choices[label] }}"
    metadata: &shared !TemplateMetadata
      languages: [en]
      original_task: true
    name: so
    reference: ''
  2: !Template
    answer_choices: null
    jinja: '{{hypothesis}} ||| {{premise}}'
    metadata: !TemplateMetadata
      original_task: null
    name: backwards
"""


def checkout(folder: Path, text: str = YAML) -> Path:
    path = folder / "promptsource/templates/super_glue/rte/templates.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder


def render(jinja: str, choices: str | None = None, seed: int = 0, /, **record: Any) -> Rendering:
    return PromptTemplate("t", jinja, choices, True, Path("templates.yaml")).render(record, random.Random(seed))


def test_templates_are_read_from_a_checkout_or_its_templates_alone(tmp_path: Path) -> None:
    for home in (checkout(tmp_path), tmp_path / "promptsource"):
        backwards, so = read_templates(home, "super_glue/rte")
        assert (so.name, so.original_task, so.answer_choices) == ("so", True, "Yes ||| No")
        assert (backwards.name, backwards.original_task, backwards.answer_choices) == ("backwards", False, None)
        record = {"premise": "It rains.", "hypothesis": "it is wet", "label": 1}
        assert so.render(record, random.Random()) == Rendering("so", "It rains. So it is wet?", "No", ("Yes", "No"))


def test_values_are_cut_at_a_word_within_2048_characters() -> None:
    text = "word " * 1000
    assert render("{{ text }} ||| x", text=text).input == text[:2045].rsplit(" ", 1)[0] + "..."
    assert render("{{ text }} ||| x", text="a" * 2050).input == "a" * 2050
    assert render("{% if text %}{{ text | length }}{% endif %} ||| x", text=text).input == "5000"


def test_a_separator_within_values_separates_nothing() -> None:
    said = render("{{ text }} ||| {{ answer_choices[1] }}", "{{ one }} ||| {{ text }}", text="a ||| b", one="c")
    assert (said.input, said.target, said.choices) == ("a ||| b", "a ||| b", ("c", "a ||| b"))


def test_a_template_may_lack_a_target_or_not_apply() -> None:
    assert (render("{{ text }}", text="a").input, render("{{ text }}", text="a").target) == ("a", "")
    assert render("{% if text == 'b' %}{{ text }} ||| c{% endif %}", text="a").input == ""


def test_choice_is_drawn_by_the_generator_given() -> None:
    jinja = "{{ ['a', 'b', 'c', 'd'] | choice }} ||| x"
    drawn = [render(jinja, None, seed).input for seed in range(30)]
    assert set(drawn) == {"a", "b", "c", "d"}
    assert drawn == [random.Random(seed).choice("abcd") for seed in range(30)]


def test_zip_and_the_other_filters() -> None:
    assert render("{% for a, b in zip(x, y) %}{{ a }}{{ b }} {% endfor %}", x="ab", y=[1, 2]).input == "a1 b2"
    assert render("{{ (x | most_frequent) | join(' ') }}{{ [] | most_frequent }}", x=["b", "a", "b", "c", "a"]).input == "b a[]"
    assert render("{{ x | highlight }}", x="a").input == "a"


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        ("{{ other }} ||| x", "'other' is undefined"),
        ("{% if x %}", "Unexpected end of template"),
        ("{{ 1 / x }}", "unsupported operand"),
        ("{{ x.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_what_a_template_cannot_render_is_said(jinja: str, message: str) -> None:
    with pytest.raises(DataError, match=f"templates.yaml: template 't' does not fit the record: .*{message}"):
        render(jinja, x="a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (YAML.replace("!TemplateMetadata", "!Other"), r"templates.yaml:8: .*'!Other'"),
        ("templates: !!python/object/apply:os.getcwd []", r"templates.yaml:1: .*python/object/apply:os.getcwd"),
        ("templates: [", r"templates.yaml:1: not promptsource's YAML"),
        (YAML.replace("name: so", "nam: so"), r"templates.yaml: templates.1.name is missing"),
        ("templates: \0", r"templates.yaml: not promptsource's YAML: "),
        ("[" * 5000, r"templates.yaml: not promptsource's YAML: "),
        ("templates: 2020-99-99", r"templates.yaml: not promptsource's YAML: month must be in"),
        ("? {a: b}\n: c", r"templates.yaml:1: not promptsource's YAML: "),
    ],
)
def test_anything_but_templates_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_templates(checkout(tmp_path, text), "super_glue/rte")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"copa/templates.yaml: no such file or folder; give a checkout of bigscience"):
        read_templates(checkout(tmp_path), "super_glue/copa")
    with pytest.raises(DataError, match=r"nowhere/templates: no such file or folder; give a checkout"):
        read_templates(tmp_path / "nowhere", "super_glue/copa")


class Fixed(random.Random):
    """Chooses the item at one place, and remembers how many there were."""

    def __init__(self, place: int) -> None:
        super().__init__(0)
        self.place, self.items = place, 1

    def choice(self, items: Any) -> Any:
        self.items = len(items)
        return items[self.place]


@pytest.mark.parametrize("task", sorted(T0_TEST_TASKS))
def test_every_row_that_promptsource_rendered_is_rendered_alike(task: str) -> None:
    if not (DATA / "t0-few-shot").is_dir():
        pytest.skip("../shared/data is not there")
    templates = {template.name: template for template in read_templates(DATA / "promptsource", T0_TEST_TASKS[task].folder)}
    compared = 0
    for path in sorted((DATA / "t0-few-shot" / task).glob("seed*.jsonl")):
        raw = next((DATA / "t-few/few_shot" / task).glob(f"*_shot/{path.stem.removeprefix('seed')}_seed.jsonl"))
        records = {record["idx"]: record for record in map(json.loads, raw.read_text().splitlines())}
        for row in map(json.loads, path.read_text().splitlines()):
            template, record = templates[row["template"]], records[row["idx"]]
            first = Fixed(0)
            said = [template.render(record, first)]
            said += [template.render(record, Fixed(place)) for place in range(1, first.items)]
            theirs = (row["inputs_pretokenized"], row["targets_pretokenized"], tuple(row["answer_choices"]))
            assert theirs in [(ours.input, ours.target, ours.choices) for ours in said], (
                path.name,
                row["idx"],
                row["template"],
            )
            assert (len(said) > 1) == (row["template"] == "Randomized prompts template")
            compared += 1
    assert compared == ROWS[task]


ROWS = {
    "rte": 6 * 32 * 10,
    "cb": 5 * 32 * 15,
    "copa": 6 * 32 * 8,
    "wic": 6 * 32 * 10,
    "wsc": 5 * 32 * 10,
    "winogrande": 5 * 50 * 5,
    "h-swag": 5 * 20 * 4,
    "storycloze": 5 * 70 * 5,
    "anli-r1": 5 * 50 * 15,
    "anli-r2": 5 * 50 * 15,
    "anli-r3": 5 * 50 * 15,
}
