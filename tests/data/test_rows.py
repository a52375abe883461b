"""Rows: what was encoded, cut and counted."""

from __future__ import annotations

from mhrctl.data.rows import SCHEMA, TEST_SCHEMA, Encoder
from mhrctl.data.tokenization import train_tokenizer
from mhrctl.suites.task import Example

EXAMPLES = [
    Example("a", "one two three four five", ("two",), ("one", "two"), seeds=(3, 4), group="g"),
    Example("b", "one", ("three", "four five one two three"), ()),
]


def encoder(longest: int = 4) -> Encoder:
    texts = [example.input for example in EXAMPLES]
    tokenizer = train_tokenizer("word", ["say " + text for text in texts], vocab_size=100)
    return Encoder("count", lambda text: f"say {text}", tokenizer, longest, longest)


def test_texts_are_encoded_as_one_by_one_and_cut_with_their_end_kept() -> None:
    made = encoder()
    rows = made.table([("train", EXAMPLES[0], 0), ("test", EXAMPLES[1], 1)], SCHEMA).to_pylist()
    ids = [made.tokenizer(f"say {example.input}")["input_ids"] for example in EXAMPLES]
    assert rows[0]["input_ids"] == [*ids[0][:3], ids[0][-1]]
    assert rows[1]["input_ids"] == ids[1]
    assert [row["target_tokens"] for row in rows] == [2, 4]
    assert rows[1]["target_ids"][0] == made.tokenizer("three")["input_ids"]
    assert made.cut == {"input": 1, "target": 1, "choice": 0}
    assert (rows[0]["split"], rows[1]["reference"], rows[0]["task"]) == ("train", 1, "count")


def test_gold_names_the_choice_of_each_target() -> None:
    rows = encoder().table([("train", example, 0) for example in EXAMPLES], TEST_SCHEMA).to_pylist()
    assert [row["gold"] for row in rows] == [[1], []]
    assert rows[0]["choice_ids"][1] == rows[0]["target_ids"][0]
    assert [(row["seeds"], row["group"]) for row in rows] == [([3, 4], "g"), ([], "")]
