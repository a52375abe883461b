"""What test tasks are adapted with: pools, few-shot sets of seeds, renderings, and what validates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mhrctl.artifacts.writing import write_json
from mhrctl.data.rows import TEST_SCHEMA, Draft, Encoder
from mhrctl.data.shots import draw_shots
from mhrctl.data.tokenization import train_tokenizer
from mhrctl.errors import DataError, ParamsError
from mhrctl.suites.task import Example


def prepared(folder: Path, examples: list[Example]) -> Path:
    """A prepared suite of one test task, with the examples in the splits that they name."""
    texts = [text for example in examples for text in (example.input, *example.targets)]
    encoder = Encoder("quiz", str, train_tokenizer("word", texts, vocab_size=200), 16, 16)
    drafts: list[Draft] = [(example.split or "pool", example, 0) for example in examples]
    folder.mkdir(exist_ok=True)
    pq.write_table(encoder.table(drafts, TEST_SCHEMA), folder / "test_tasks.parquet")
    write_json(folder / "tasks.json", {"tasks": [{"name": "quiz", "role": "test", "metric": "accuracy"}]})
    return folder


def worded(record: int, seeds: tuple[int, ...]) -> list[Example]:
    """A record in three wordings."""
    row = Example("", "", ("yes",), ("yes", "no"), "train", seeds, f"train/{record}")
    return [replace(row, id=f"{record}/{word}", input=f"{word} question {record}") for word in ("is", "was", "can")]


TEST = [Example(f"t{number}", f"last question {number}", ("no",), ("yes", "no"), "test") for number in range(5)]
SETS = [*worded(0, (7, 8)), *worded(1, (7,)), *worded(2, (8,)), *TEST]


def records(texts: list[str]) -> list[str]:
    return sorted({text.split()[-1] for text in texts})


def test_a_seed_trains_on_its_own_few_shot_set(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "p", SETS)
    for seed, expected in ((7, ["0", "1"]), (8, ["0", "2"])):
        (task,) = draw_shots(folder, shots=None, validation=9, seed=seed, validate_on="test")
        assert records(task.prompts) == expected
        assert len(task.train) == 6
        assert [sorted(len(task.train[place].input_ids) for place in group) for group in task.groups] == [[4, 4, 4]] * 2
        assert sorted(place for group in task.groups for place in group) == list(range(6))
    with pytest.raises(DataError, match=r"test task quiz: no few-shot set of seed 9; there are 7, 8"):
        draw_shots(folder, shots=None, validation=9, seed=9)


def test_fewer_shots_than_the_set_are_whole_records(tmp_path: Path) -> None:
    (task,) = draw_shots(prepared(tmp_path / "p", SETS), shots=1, validation=9, seed=7)
    assert len(task.groups) == 1
    assert len(task.train) == 3
    assert len(records(task.prompts)) == 1


def test_the_test_split_validates_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "p", SETS)
    (task,) = draw_shots(folder, shots=None, validation=2, seed=7, validate_on="test")
    assert len(task.validation) == 5  # all of it, whatever `validation` says
    assert task.references == ["no"] * 5
    (held_out,) = draw_shots(folder, shots=None, validation=2, seed=7)
    assert len(held_out.validation) == 6  # nothing is held out: the training examples validate


def test_each_reference_of_a_pool_is_drawn_for_itself(tmp_path: Path) -> None:
    pool = [Example(f"p{number}", f"question {number}", ("yes", "no")) for number in range(6)]
    folder = prepared(tmp_path / "p", pool)
    (task,) = draw_shots(folder, shots=3, validation=3, seed=0)
    assert task.groups == [[place] for place in range(6)]
    assert len(set(task.prompts)) == 3
    with pytest.raises(ParamsError, match=r"shots: test task quiz gives no few-shot sets; say how many"):
        draw_shots(folder, shots=None, validation=3, seed=0)
