"""What a look at framed examples shows: which of them, their texts, tokens and cuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mhrctl.artifacts.names import Project
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.stages.prepare import prepare
from mhrctl.tools.show import Gallery, Piece, Said, Shown, show
from tests.conftest import reseal
from tests.data.kinds import BYTES, CHATS, KINDS, PIECES


def prepared(project: Path, **options: Any) -> Project:
    settings: dict[str, Any] = {"source": "jsonl", "path": "tasks", "tokenizer": "word", "examples": 4}
    where = Project(project)
    prepare(PrepareParams(**settings | options), root=project, out=where.output("prepare"), scratch=where.scratch)
    return where


def framed(project: Path, name: str, **options: Any) -> Project:
    """A project that is prepared for a decoder-only model with a tokenizer of some kind."""
    {**KINDS, **CHATS}[name]().save_pretrained(str(project / "theirs"))
    return prepared(project, tokenizer="theirs", framing="causal", chat=name in CHATS, **options)


def only(where: Project, task: str, **options: Any) -> Shown:
    (shown,) = show(where, tasks=[task], **options).examples
    return shown


def said(said: Said) -> str:
    """What the pieces say, special ones aside."""
    return "".join(piece.text for piece in said.pieces if not piece.is_special)


def special(said: Said) -> list[str]:
    return [piece.text for piece in said.pieces if piece.is_special]


def test_the_first_examples_of_a_task_are_shown_with_their_places(project: Path) -> None:
    where = prepared(project)
    rows = [row for row in pq.read_table(where.output("prepare") / "test_tasks.parquet").to_pylist() if row["task"] == "twice"]
    shown = show(where, tasks=["twice"], limit=6).examples
    assert [each.id for each in shown] == [row["id"] for row in rows[:6]]
    assert [(each.split, each.number, each.of) for each in shown][:5] == [
        *(("test", n, 4) for n in (1, 2, 3, 4)),
        ("pool", 1, 8),
    ]
    for each, row in zip(shown, rows, strict=False):
        assert (each.task, each.role, each.prompt.text) == ("twice", "test", row["prompt"])
        assert [piece.id for piece in each.prompt.pieces] == row["input_ids"]
        assert [[piece.id for piece in target.pieces] for target in each.targets] == row["target_ids"]
        assert [target.text for target in each.targets] == row["targets"]
    pool = only(where, "twice", split="pool")
    assert (pool.id, pool.number, pool.of) == (rows[4]["id"], 1, 8)


def test_where_no_task_is_named_the_first_of_each_role_are_shown(project: Path) -> None:
    line = json.dumps({"input": "a b", "target": "c"}) + "\n"
    for name in ("zeroth", "zooth"):
        lines = [line.replace("a b", f"a {number}") for number in range(12)]
        (project / f"tasks/training/{name}.jsonl").write_text("".join(lines))
    where = prepared(project)

    def names(gallery: Gallery) -> list[str]:
        assert gallery.all_tasks == 7
        assert gallery.tasks == len({each.task for each in gallery.examples})
        return [each.task for each in gallery.examples]

    assert names(show(where)) == ["copy", "first", "last", "swap", "twice"]
    assert names(show(where, every=True)) == ["copy", "first", "last", "zeroth", "zooth", "swap", "twice"]
    assert names(show(where, split="pool", limit=2)) == ["swap", "swap", "twice", "twice"]
    assert names(show(where, tasks=["twice", "last", "twice"])) == ["last", "twice"]


@pytest.mark.parametrize("name", [*BYTES, *PIECES])
def test_pieces_are_the_text_with_its_spaces_and_special_tokens(project: Path, name: str) -> None:
    each = only(framed(project, name), "swap")
    assert said(each.prompt).removeprefix(" ") == each.prompt.text  # Llama 2 puts a space before a text
    assert each.prompt.text.endswith("\nOutput:")
    assert said(each.targets[0]) == f" {each.targets[0].text}"
    tokenizer = KINDS[name]()
    assert special(each.prompt) == [token for token in [tokenizer.bos_token] if name != "gpt_2"]
    assert special(each.targets[0]) == [tokenizer.eos_token]
    assert each.targets[0].pieces[-1] == Piece(int(tokenizer.eos_token_id), str(tokenizer.eos_token), is_special=True)
    assert [each.prompt.cut, each.targets[0].cut] == [0, 0]


@pytest.mark.parametrize("name", ["gpt_2", "mistral", "gemma"])
def test_parts_of_a_letter_are_bytes(project: Path, name: str) -> None:
    lines = [{"input": f"\u2014 {number}", "target": "a"} for number in range(12)]
    (project / "tasks/test/swap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert r"\xe2\x80\x94" in said(only(framed(project, name), "swap").prompt)


def test_of_an_encoder_decoder_the_end_is_shown_and_what_was_cut_before_it(project: Path) -> None:
    where = prepared(project, max_input_tokens=3)
    each = only(where, "copy")
    assert [piece.text.strip() for piece in each.prompt.pieces] == ["copy", "cat", "</s>"]
    assert (each.prompt.cut, each.prompt.place) == (1, 2)
    assert each.prompt.text.startswith("copy\n\ncat")


@pytest.mark.parametrize(("name", "begin"), [("llama_3", 1), ("gpt_2", 0)])
def test_of_a_causal_prompt_what_was_cut_stood_at_its_beginning(project: Path, name: str, begin: int) -> None:
    whole = only(framed(project, name), "swap")
    each = only(framed(project, name, max_input_tokens=5), "swap")
    assert (each.prompt.cut, each.prompt.place) == (len(whole.prompt.pieces) - 5, begin)
    assert each.prompt.pieces == whole.prompt.pieces[:begin] + whole.prompt.pieces[begin - 5 :]
    assert each.prompt.text == whole.prompt.text


def test_of_a_chat_what_was_cut_stood_within_the_turn(project: Path) -> None:
    whole = only(framed(project, "marked"), "swap")
    each = only(framed(project, "marked", max_input_tokens=len(whole.prompt.pieces) - 2), "swap")
    assert each.prompt.cut >= 2
    assert special(each.prompt) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert special(each.targets[0]) == ["<|im_end|>"]
    before, after = each.prompt.pieces[: each.prompt.place], each.prompt.pieces[each.prompt.place :]
    assert after == whole.prompt.pieces[-len(after) :]
    assert before == whole.prompt.pieces[: len(before)]
    assert after[0].text == "<|im_end|>"


def test_choices_are_shown_with_the_right_one(project: Path) -> None:
    lines = [
        {"input": f"what is {number}", "target": "bee" if number % 2 else "ant", "choices": ["ant", "bee"]}
        for number in range(12)
    ]
    (project / "tasks/test/swap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shown = show(prepared(project), tasks=["swap"], limit=4).examples
    assert {each.gold for each in shown} == {(0,), (1,)}
    for each in shown:
        assert [choice.text for choice in each.choices] == ["ant", "bee"]
        assert each.choices[each.gold[0]].pieces == each.targets[0].pieces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["swop"]}, r"^--task: unknown task 'swop'; did you mean 'swap'\? \(known: copy, first, last, swap\)$"),
        ({"tasks": ["twice"]}, r"^--task twice: has no examples: not in prepare.test_tasks$"),
        ({"tasks": ["swap"], "split": "train"}, r"^--split train: task swap has none; it has test, pool$"),
        ({"split": "pools"}, r"^--split pools: no task has any; there are train, validation, test, pool$"),
    ],
)
def test_what_there_is_not_is_one_line(project: Path, options: dict[str, Any], message: str) -> None:
    where = prepared(project, test_tasks=["swap"])
    with pytest.raises(ParamsError, match=message):
        show(where, **options)


def test_before_prepare_there_is_nothing_to_see(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no finished prepare output; run `mhrctl prepare`"):
        show(Project(project))


def test_damaged_examples_are_not_shown(project: Path) -> None:
    where = prepared(project)
    file = where.output("prepare") / "test_tasks.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"test_tasks.parquet: .*; run `mhrctl prepare`$"):
        show(where)
    reseal(file.parent)
    with pytest.raises(ArtifactError, match=r"test_tasks.parquet: cannot be read"):
        show(where)
