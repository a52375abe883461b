"""The table of sources: every row is whole, and params.yaml is held to it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from mhrctl.config.fields import added
from mhrctl.config.sources import SOURCES, TOKENIZERS
from mhrctl.config.tasks import PrepareParams
from mhrctl.projects.templates import template_files

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, dict[str, Any]] = {
    "compositional": {},
    "superni": {"path": "clone"},
    "t0": {"hub": "bigscience/P3"},
    "jsonl": {"path": "tasks"},
    "hub": {"path": "data.csv"},
}
LATER = {"config", "columns", "splits", "test", "metric", "max_rows"}


def params(source: str, **options: Any) -> PrepareParams:
    return PrepareParams.model_validate({"source": source, "tokenizer": "word", **options})


@pytest.mark.parametrize("name", SOURCES)
def test_every_row_is_whole(name: str) -> None:
    source = SOURCES[name]
    assert source.summary
    assert (ROOT / f"{source.module.replace('.', '/')}.py").is_file()
    assert all((template_files() / f"{study.template}.yaml.jinja").is_file() for study in source.studies)
    example = template_files() / source.example
    assert example.is_file() or example.is_dir()
    assert set(source.settings) <= set(PrepareParams.model_fields)
    assert params(name, **MINIMAL[name]).source == name


def test_a_backbone_without_a_study_has_the_first() -> None:
    t0 = SOURCES["t0"]
    assert [t0.study(name).template for name in ("bigscience/T0_3B", "bigscience/T0")] == ["t0-3b", "t0-11b"]
    assert {t0.study(name).template for name in ("google/t5-xl-lm-adapt", "google/t5-large-lm-adapt", None)} == {"t0"}
    assert set(TOKENIZERS) == {"bigscience/T0_3B", "bigscience/T0"}
    assert set(TOKENIZERS.values()) == {"google/t5-xl-lm-adapt"}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("jsonl", {}, "source jsonl needs `path`, the folder of its tasks"),
        ("superni", {}, "source superni needs `path`, a clone of upstream, or `hub`, a mirror"),
        ("t0", {}, "source t0 needs `hub` (bigscience/P3), `path`, a folder of its form, or t0.training_few_shot"),
        ("t0", {"t0": {"training_few_shot": ["rte"]}}, "t0.training_few_shot needs t0.few_shot"),
        ("hub", {}, "source hub needs `hub`, a data set's id, or `path`, a file or folder that `datasets` reads"),
        ("jsonl", {"hub": "a/b"}, "source jsonl has no `hub`; name a folder as `path`"),
        ("compositional", {"path": "x"}, "source compositional has no `path`; it makes its tasks itself"),
        ("superni", {"path": "x", "hub": "a/b"}, "`path` and `hub` both say where the tasks are; leave one out"),
        ("jsonl", {"path": "x", "metric": "accuracy"}, "source jsonl has no `metric`, which is of source hub; leave it out"),
        ("superni", {"path": "x", "columns": {"task": "t"}}, "source superni has no `columns`"),
        ("hub", {"path": "x", "columns": {"input": "q"}}, "`input` goes with `target` or `targets`"),
        ("hub", {"path": "x", "columns": {"input": "q", "target": "a", "targets": "b"}}, "leave one out"),
        ("hub", {"path": "x", "columns": {"inputs": "q"}}, "Extra inputs are not permitted"),
        ("hub", {"path": "x", "test": {}}, "give one of `path` and `hub`, the data set of the test tasks"),
        ("hub", {"path": "x", "trust_remote_code": True}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_do_not_fit_a_source(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        params(source, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("source", "options", "files"),
    [
        ("compositional", {}, {}),
        ("jsonl", {"path": "tasks"}, {"tasks": "tasks"}),
        ("superni", {"path": "ni"}, {"tasks": "ni/tasks", "splits": "ni/splits"}),
        ("superni", {"hub": "jayelm/natural-instructions"}, {}),
        (
            "t0",
            {"path": "p3", "t0": {"few_shot": "sets", "promptsource": "ps", "evaluation": "ev"}},
            {"tasks": "p3", "few_shot": "sets", "templates": "ps/promptsource/templates", "evaluation": "ev"},
        ),
        ("t0", {"hub": "bigscience/P3"}, {}),
        ("hub", {"path": "a.csv", "test": {"path": "b.csv"}}, {"tasks": "a.csv", "test_tasks": "b.csv"}),
        ("hub", {"hub": "a/b", "test": {"hub": "a/c"}}, {}),
    ],
)
def test_what_a_source_reads(source: str, options: dict[str, Any], files: dict[str, str]) -> None:
    made = params(source, **options)
    assert SOURCES[source].files(made) == files


def test_what_is_read_from_the_hub() -> None:
    both = params("hub", hub="a/b", revision="x", test={"hub": "a/c"})
    assert SOURCES["hub"].pins(both) == [("a/b", "x"), ("a/c", "main")]
    assert SOURCES["superni"].pins(params("superni", path="clone")) == []


@pytest.mark.parametrize("name", SOURCES)
def test_settings_that_came_later_leave_cards_as_they_were(name: str) -> None:
    assert not LATER & params(name, **MINIMAL[name]).model_dump().keys()
    dumped = params("hub", path="x", metric="accuracy").model_dump()
    assert LATER & dumped.keys() == {"metric"}


def test_an_added_setting_is_in_cards_once_it_is_set() -> None:
    field = added(3, "of a test")
    assert (field.default, field.description) == (3, "of a test")
    assert field.exclude_if(3)
    assert not field.exclude_if(4)


def test_the_table_is_read_without_what_reads_the_tasks() -> None:
    code = (
        "import sys, mhrctl.config.sources; sys.exit(bool({'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)"
        " or any(name.startswith('mhrctl.suites') for name in sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/sources.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", examples())
def test_the_examples_of_the_docs_are_accepted(text: str) -> None:
    PrepareParams.model_validate(YAML(typ="safe", pure=True).load(text)["prepare"])


def test_the_docs_have_an_example_of_every_source() -> None:
    assert {YAML(typ="safe", pure=True).load(text)["prepare"]["source"] for text in examples()} == set(SOURCES)
