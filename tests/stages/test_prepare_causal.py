"""prepare for decoder-only models: prompts that are gone on with, answers as within the whole text."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from transformers import PreTrainedTokenizerBase

from mhrctl.artifacts.cards import read_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.config.tasks import PrepareParams
from mhrctl.data.rows import SCHEMA, Encoder
from mhrctl.data.tokenization import saved_tokenizer
from mhrctl.errors import DataError
from mhrctl.stages.prepare import prepare, prompt_of
from mhrctl.suites.superni.source import _prompter
from mhrctl.suites.task import Example, Task
from tests.data.kinds import BYTES, CHATS, KINDS, PIECES, gpt_2, llama_3
from tests.stages.test_prepare import params, rows, said, write_lines


def causal(project: Path, **options: Any) -> tuple[PreTrainedTokenizerBase, list[dict[str, Any]]]:
    """The tokenizer and all rows of a project that is prepared for a decoder-only model."""
    out = project / "out"
    prepare(params(framing="causal", **options), root=project, out=out, scratch=project / "scratch")
    return saved_tokenizer(out / "tokenizer"), [*rows(out, "training_tasks.parquet"), *rows(out, "test_tasks.parquet")]


@pytest.mark.parametrize("name", [*BYTES, *PIECES])
def test_causal_rows_are_whole_texts_that_end_after_the_answer(project: Path, name: str) -> None:
    KINDS[name]().save_pretrained(str(project / "theirs"))
    tokenizer, made = causal(project, tokenizer="theirs")
    assert made
    for row in made:
        assert row["prompt"].endswith("\nOutput:")
        text = tokenizer(f"{row['prompt']} {row['targets'][0]}")["input_ids"]
        end = [] if text[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
        assert row["input_ids"] + row["target_ids"][0] == text + end
        assert tokenizer.eos_token_id not in row["input_ids"]
        assert (row["input_tokens"], row["target_tokens"]) == (len(row["input_ids"]), len(row["target_ids"][0]))


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_tokenizers_trained_for_a_causal_model_know_the_cue(project: Path, kind: str) -> None:
    tokenizer, made = causal(project, tokenizer=kind, answer_cue="\nYour answer =>")
    for row in made:
        asked, answer = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (row["input_ids"], row["target_ids"][0]))
        assert asked.replace(" ", "").endswith("Youranswer=>")
        assert answer.strip() == row["targets"][0]
        assert row["prompt"].endswith("\nYour answer =>")
        assert tokenizer.eos_token_id not in row["input_ids"]
        assert row["target_ids"][0][-1] == tokenizer.eos_token_id


def test_causal_prompts_are_cut_at_their_beginning(project: Path) -> None:
    llama_3().save_pretrained(str(project / "theirs"))
    tokenizer, made = causal(project, tokenizer="theirs", max_input_tokens=5)
    cue = tokenizer("\nOutput:", add_special_tokens=False)["input_ids"]
    for row in made:
        assert len(row["input_ids"]) == 5
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert row["input_ids"][-len(cue) :] == cue
    table = json.loads((project / "out/tasks.json").read_text())["tasks"]
    assert all(task["cut_inputs"] == sum(task["splits"].values()) for task in table)


def test_a_tokenizer_without_padding_is_for_causal_models_and_is_written_with_it(project: Path) -> None:
    gpt_2().save_pretrained(str(project / "theirs"))
    with pytest.raises(
        DataError, match=r"^prepare.tokenizer .*: has no padding token; add `pad_token` to its tokenizer_config"
    ):
        prepare(params(tokenizer="theirs"), root=project, out=project / "out", scratch=project / "scratch")
    tokenizer, _ = causal(project, tokenizer="theirs")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (gpt_2().eos_token_id,) * 2


def test_the_card_says_for_which_kind_of_backbone_the_tokens_are(project: Path) -> None:
    def facts() -> tuple[PrepareFacts, dict[str, Any]]:
        card = read_card(project / "out", stage="prepare", command="mhrctl prepare")
        return card.facts, json.loads((project / "out/card.json").read_text())["facts"]

    prepare(params(), root=project, out=project / "out", scratch=project / "scratch")
    assert facts()[0].framing == "encoder_decoder"
    assert "framing" not in facts()[1]  # as cards of before
    causal(project)
    assert facts()[0].framing == facts()[1]["framing"] == "causal"


def test_a_causal_prompt_without_a_token_names_its_example(project: Path) -> None:
    gpt_2().save_pretrained(str(project / "theirs"))
    lines = [{"input": " ", "target": "ant", "id": "blank"}, *said([*range(12)])]
    write_lines(project / "tasks/test/swap.jsonl", *lines)
    plain = {"tokenizer": "theirs", "task_name": False, "definition": False}
    with pytest.raises(DataError, match=r"^task swap, example blank: its prompt has no token, .*; set prepare.answer_cue$"):
        causal(project, **plain, answer_cue="")
    assert [row["prompt"] for row in causal(project, **plain)[1] if row["id"] == "blank"] == ["\nOutput:"]


@pytest.mark.parametrize("prompt", ["original", "tk_instruct"])
@pytest.mark.parametrize("longest", [300, 90])
def test_causal_prompts_of_superni_keep_their_cue(prompt: Literal["original", "tk_instruct"], longest: int) -> None:
    tokenizer = llama_3()
    asked = PrepareParams(
        source="superni",
        path="clone",
        tokenizer="theirs",
        prompt=prompt,
        positive_examples=1,
        framing="causal",
        max_input_tokens=longest,
    )
    task = Task("capital", "test", "rouge_l", "Name the capital.", [], positives=(("France", "Paris"),))
    put = prompt_of(task, asked, partial(_prompter, asked), tokenizer)
    rows = Encoder("capital", put, tokenizer, longest, 10, "causal")
    (row,) = rows.table([("test", Example("a", "Italy, " * 10, ("Rome",)), 0)], SCHEMA).to_pylist()
    assert row["prompt"].endswith("\nOutput:")
    assert row["prompt"].count("Output:") == 1 + (longest == 300)
    assert len(row["input_ids"]) <= longest
    assert tokenizer.decode(row["input_ids"], skip_special_tokens=True).endswith("\nOutput:")
    assert row["input_ids"] + row["target_ids"][0] == [*tokenizer(f"{row['prompt']} Rome")["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_asked_in_a_turn_and_answered_to_the_end_of_one(project: Path, name: str) -> None:
    CHATS[name]().save_pretrained(str(project / "theirs"))
    tokenizer, made = causal(project, tokenizer="theirs", chat=True)
    said: dict[str, str] = {}
    for file in project.glob("tasks/*/*.jsonl"):
        for number, line in enumerate(file.read_text().splitlines()):
            said[f"{file.stem}-{number}"] = f"{file.stem}\n\n{json.loads(line)['input']}"
    assert made
    for row in made:
        asked = [{"role": "user", "content": said[row["id"]]}]
        if name != "dated":  # on which day, is not ours to say
            ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False, enable_thinking=False)
            assert row["input_ids"] == ids
        assert said[row["id"]] in row["prompt"]
        assert row["target_ids"][0][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["target_ids"][0], skip_special_tokens=True).strip().endswith(row["targets"][0])


def test_the_card_of_a_chat_says_what_ends_an_answer(project: Path) -> None:
    def facts() -> dict[str, Any]:
        card: dict[str, Any] = json.loads((project / "out/card.json").read_text())
        return card["facts"] | {"asked": card["params"].get("chat")}

    CHATS["marked"]().save_pretrained(str(project / "theirs"))
    causal(project, tokenizer="theirs")
    assert facts().keys() & {"chat", "framing"} == {"framing"}
    assert facts()["asked"] is None
    causal(project, tokenizer="theirs", chat=True)
    assert (facts()["chat"], facts()["asked"]) == ("<|im_end|>", True)


def test_a_chat_without_a_template_is_refused(project: Path) -> None:
    gpt_2().save_pretrained(str(project / "theirs"))
    with pytest.raises(DataError, match=r"^prepare.tokenizer '.*theirs': has no chat template; name the tokenizer of a model"):
        causal(project, tokenizer="theirs", chat=True)
    assert not (project / "out").exists()


@pytest.mark.parametrize("prompt", ["original", "tk_instruct"])
def test_superni_asks_in_its_own_words_within_a_turn(prompt: Literal["original", "tk_instruct"]) -> None:
    tokenizer = CHATS["marked"]()
    options: dict[str, Any] = {"source": "superni", "path": "clone", "tokenizer": "theirs", "prompt": prompt}
    options |= {"positive_examples": 1, "framing": "causal", "chat": True}
    task = Task("capital", "test", "rouge_l", "Name the capital.", [], positives=(("France", "Paris"),))
    example = Example("a", "Italy, " * 10, ("Rome",))

    def asked(longest: int) -> tuple[int, int, int]:
        """Tokens, worked examples and words of the input in a prompt of so many tokens at most."""
        params = PrepareParams(**options, max_input_tokens=longest)
        put = prompt_of(task, params, partial(_prompter, params), tokenizer)
        rows = Encoder("capital", put, tokenizer, longest, 10, "causal", chat=True)
        (row,) = rows.table([("test", example, 0)], SCHEMA).to_pylist()
        read = tokenizer.decode(row["input_ids"])
        assert read.startswith("<|im_start|>user\n")
        assert read.endswith("\nOutput:<|im_end|>\n<|im_start|>assistant\n")
        assert len(row["input_ids"]) <= longest
        return len(row["input_ids"]), read.count("Positive Example"), read.count("Italy,")

    whole = asked(400)
    assert whole[1:] == (1, 10)
    assert asked(whole[0])[1:] == (1, 10)
    bare = asked(whole[0] - 1)
    assert bare[1:] == (0, 10)
    assert asked(bare[0] - 6)[2] < 10
