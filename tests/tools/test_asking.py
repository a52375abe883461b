"""New inputs become the tokens that the prepare stage makes of the same inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import DataError
from mhrctl.stages.prepare import prepare
from mhrctl.tools.asking import Asker, Question
from tests.data.kinds import CHATS, KINDS

FILE = Path("in.jsonl")


def asked(asker: Asker, **line: Any) -> Question:
    return asker.question(json.dumps(line), FILE, 3)


def prepared(project: Path, **options: Any) -> Project:
    settings: dict[str, Any] = {"source": "jsonl", "path": "tasks", "tokenizer": "word", "examples": 4}
    where = Project(project)
    prepare(PrepareParams(**settings | options), root=project, out=where.output("prepare"), scratch=where.scratch)
    return where


def inputs_of(project: Path, task: str) -> dict[str, str]:
    """{id: input} of a test task's lines."""
    lines = (project / f"tasks/test/{task}.jsonl").read_text().splitlines()
    return {f"{task}-{number}": json.loads(line)["input"] for number, line in enumerate(lines)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_input_tokens": 3},
        {"task_name": True, "definition": False},
        {"tokenizer": "llama_3", "framing": "causal"},
        {"tokenizer": "llama_3", "framing": "causal", "answer_cue": " =>"},
        {"tokenizer": "marked", "framing": "causal", "chat": True, "max_input_tokens": 20},
    ],
    ids=["word", "cut", "name", "causal", "cue", "chat"],
)
def test_tokens_are_those_of_the_prepared_examples(project: Path, options: dict[str, Any]) -> None:
    if name := options.get("tokenizer"):
        {**KINDS, **CHATS}[name]().save_pretrained(str(project / "theirs"))
        options = {**options, "tokenizer": "theirs"}
    where = prepared(project, **options)
    asker = Asker(where)
    rows = pq.read_table(where.output("prepare") / "test_tasks.parquet").to_pylist()
    inputs = {task: inputs_of(project, task) for task in ("swap", "twice")}
    questions = [asked(asker, task=row["task"], input=inputs[row["task"]][row["id"]]) for row in rows]
    samples = asker.samples(questions)
    assert [sample.input_ids.tolist() for sample in samples] == [row["input_ids"] for row in rows]


def test_a_line_s_own_definition_takes_the_place_of_the_task_s(project: Path) -> None:
    asker = Asker(prepared(project))
    says: list[dict[str, Any]] = [{}, {"definition": "first"}, {"definition": ""}, {"task": "fresh", "definition": "last"}]
    questions = [asked(asker, **{"task": "copy", "input": "ant", **line}) for line in says]
    assert [each.definition for each in questions] == ["copy", "first", "", "last"]
    texts = [asker.tokenizer.decode(sample.input_ids, skip_special_tokens=True) for sample in asker.samples(questions)]
    assert texts == ["copy ant", "first ant", "ant", "last ant"]


def test_tasks_are_named_by_the_line_by_the_option_or_by_the_adapter(project: Path) -> None:
    where = prepared(project)
    assert asked(Asker(where, task="twice"), task="swap", input="a").task == "twice"
    assert asked(Asker(where, default="twice"), task="swap", input="a").task == "swap"
    assert asked(Asker(where, default="twice"), input="a").task == "twice"


def test_what_a_line_holds_besides_is_kept(project: Path) -> None:
    line = {"id": 7, "task": "swap", "input": "a", "target": None, "more": {"deep": [1.5]}}
    assert asked(Asker(prepared(project)), **line).line == line


def chosen(project: Path, choices: Any) -> Asker:
    lines = [{"input": f"{n} a", "target": "ant", "choices": choices(n)} for n in range(12)]
    (project / "tasks/test/swap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return Asker(prepared(project))


def test_choices_are_the_line_s_or_the_task_s(project: Path) -> None:
    asker = chosen(project, lambda _: ["ant", "bee"])
    theirs, lines, generated = (
        asked(asker, task="swap", input="a"),
        asked(asker, task="swap", input="a", choices=["cat", "dog", "elk"]),
        asked(asker, task="twice", input="a"),
    )
    assert [each.choices for each in (theirs, lines, generated)] == [("ant", "bee"), ("cat", "dog", "elk"), ()]
    assert [len(sample.choices) for sample in asker.samples([theirs, lines, generated])] == [2, 3, 0]


def test_choices_that_differ_from_example_to_example_must_be_given(project: Path) -> None:
    asker = chosen(project, lambda n: ["ant", f"bee {n}"])
    with pytest.raises(
        DataError, match=r"^in.jsonl:3: the choices of task swap differ from example to example; give `choices`"
    ):
        asked(asker, task="swap", input="a")
    assert asked(asker, task="swap", input="a", choices=["ant", "bee"]).choices == ("ant", "bee")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"not valid JSON: .* \(column 2\)"),
        ("[]", r"should be a JSON object, not \[\]"),
        ('{"task": "swap"}', r"input is missing"),
        ('{"task": "swap", "input": 3}', r"input: .*, not 3"),
        ('{"input": "a"}', r"task is missing; name it in the line, or that of all lines with --task"),
        (
            '{"task": "swop", "input": "a"}',
            r"unknown task 'swop'; did you mean 'swap'\?.*; of a task that is new here, give the",
        ),
        ('{"task": "swap", "input": "a", "choices": []}', r"choices: one is empty, or there are none"),
        ('{"task": "swap", "input": "a", "choices": ["a", " "]}', r"choices: one is empty, or there are none"),
        ('{"task": "swap", "input": "\\ud800"}', r"text '\\ud800' holds half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named(project: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^in.jsonl:3: {message}"):
        Asker(prepared(project)).question(text, FILE, 3)


def test_a_prompt_without_a_token_names_its_line(project: Path) -> None:
    KINDS["gpt_2"]().save_pretrained(str(project / "theirs"))
    asker = Asker(prepared(project, tokenizer="theirs", framing="causal", answer_cue="", definition=False))
    question = asked(asker, task="swap", input=" ")
    with pytest.raises(DataError, match=r"^task swap, example in.jsonl:3: its prompt has no token"):
        asker.samples([question])


def test_without_the_project_s_tasks_a_definition_must_be_given(project: Path) -> None:
    where = prepared(project)
    shutil.rmtree(project / "tasks")
    asker = Asker(where)
    assert asker.samples([asked(asker, task="swap", input="ant", definition="swap")])
    with pytest.raises(DataError, match=r"tasks: no such file or folder; .*; or give `definition` in the lines$"):
        asked(asker, task="swap", input="ant")
