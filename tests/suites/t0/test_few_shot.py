"""Few-shot sets of T0's test tasks: their layouts, their draw, and the records in them."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.errors import DataError
from mhrctl.suites.t0.few_shot import drawn_sets, few_shot_files, raw_records, read_records
from mhrctl.suites.t0.held_out import T0_TEST_TASKS
from mhrctl.suites.t0.promptsource import Rendering

REAL = Path(__file__).parents[4] / "shared/data/t-few"
SPLIT_SIZES = {
    "rte": 2490,
    "cb": 250,
    "copa": 400,
    "wic": 5428,
    "wsc": 554,
    "winogrande": 40398,
    "h-swag": 39905,
    "storycloze": 1871,  # of the validation split
    "anli-r1": 16946,
    "anli-r2": 45460,
    "anli-r3": 100459,
}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def rendered(idx: int = 7, template: str | None = "so", **changes: Any) -> dict[str, Any]:
    row = {"dataset": "super_glue/rte", "template": template, "idx": idx, "inputs_pretokenized": f"{template} {idx}?"}
    return row | {"targets_pretokenized": "No", "answer_choices": ["Yes", "No"], "label": 1} | changes


def test_the_draw_is_numpys_seeded_shuffle() -> None:
    rows = [f"row {number}" for number in range(100)]
    for seed, drawn in drawn_sets(rows, shots=5, seeds=[42, 0]).items():
        shuffled = list(rows)
        np.random.RandomState(seed).shuffle(shuffled)
        assert drawn == shuffled[:5]
    assert drawn_sets(range(2490), shots=3, seeds=[42]) == {42: [1057, 478, 976]}  # as T-Few published for RTE


@pytest.mark.parametrize("task", sorted(T0_TEST_TASKS))
def test_the_draw_gives_the_sets_that_t_few_published_and_the_papers_32_of_anli_are_their_first(task: str) -> None:
    if not REAL.is_dir():
        pytest.skip("../shared/data is not there")
    files = few_shot_files(REAL, task, shots=50)
    shots = T0_TEST_TASKS[task].shots
    drawn = drawn_sets(range(SPLIT_SIZES[task]), shots=shots, seeds=files)
    assert drawn == {seed: [record.idx for record in read_records(path)] for seed, path in files.items()}
    papers = T0_TEST_TASKS[task].paper_shots
    redrawn = drawn_sets(range(SPLIT_SIZES[task]), shots=papers, seeds=files)
    assert redrawn == {seed: [record.idx for record in read_records(path)][:papers] for seed, path in files.items()}
    assert (shots, papers) == ((50, 32) if task.startswith("anli") else (shots, shots))


def test_files_of_each_layout_are_found_by_seed(tmp_path: Path) -> None:
    for name in ("few_shot/rte/32_shot/1024_seed", "few_shot/rte/32_shot/0_seed", "rendered/rte/seed7", "rendered/rte/notes"):
        write(tmp_path / f"{name}.jsonl", {})
    assert (
        list(few_shot_files(tmp_path, "rte", shots=32))
        == list(few_shot_files(tmp_path / "few_shot", "rte", shots=50))
        == [0, 1024]
    )
    assert few_shot_files(tmp_path / "rendered", "rte", shots=32) == {7: tmp_path / "rendered/rte/seed7.jsonl"}
    write(tmp_path / "few_shot/rte/4_shot/1_seed.jsonl", {})
    assert list(few_shot_files(tmp_path, "rte", shots=4)) == [1]
    with pytest.raises(DataError, match=r"rte/8_shot: no few-shot sets of task 'rte'; it must hold <task>/<k>_shot/"):
        few_shot_files(tmp_path, "rte", shots=8)
    with pytest.raises(DataError, match=r"missing: no such folder; it must be a clone of r-three/t-few, or hold <task>/"):
        few_shot_files(tmp_path / "missing", "cb", shots=32)
    with pytest.raises(DataError, match=r"no few-shot sets of task 'cb'; it must hold <task>/<k>_shot/"):
        few_shot_files(tmp_path, "cb", shots=32)


def test_two_files_of_one_seed_are_rejected_and_hidden_ones_are_none(tmp_path: Path) -> None:
    write(tmp_path / "rte/seed7.jsonl", {})
    write(tmp_path / "rte/._seed7.jsonl", {})
    write(tmp_path / "rte/.4_shot/1_seed.jsonl", {})
    assert list(few_shot_files(tmp_path, "rte", shots=4)) == [7]
    write(tmp_path / "rte/7_seed.jsonl", {})
    with pytest.raises(DataError, match=r"seed7.jsonl: is of seed 7, as .*7_seed.jsonl is; remove one of them"):
        few_shot_files(tmp_path, "rte", shots=4)


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.jsonl"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name}: is a pipe"):
            read_records(tmp_path / name)


def test_raw_records_keep_their_fields_and_their_number(tmp_path: Path) -> None:
    rows = [{"premise": "a\u2028b", "idx": 9}, {"premise": "c", "idx": 3}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rte.parquet")
    lines = tmp_path / "rte.jsonl"
    lines.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    for path, second in ((lines, f"{lines}:3"), (tmp_path / "rte.parquet", f"{tmp_path}/rte.parquet, row 1")):
        records = read_records(path)
        assert [(record.idx, dict(record.fields)) for record in records] == [(row["idx"], row) for row in rows]
        assert records[1].where == second
    assert [record.idx for record in raw_records([("a", {}), ("b", {})])] == [0, 1]


def test_the_lines_of_a_rendered_record_become_one(tmp_path: Path) -> None:
    rows = [rendered(7), rendered(2, label=0), rendered(7, "then")]
    first, second = read_records(write(tmp_path / "seed1.jsonl", *rows))
    assert (first.idx, second.idx, first.fields) == (7, 2, {})
    assert first.renderings == {
        "so": Rendering("so", "so 7?", "No", ("Yes", "No")),
        "then": Rendering("then", "then 7?", "No", ("Yes", "No")),
    }
    assert second.renderings["so"].target == "Yes"
    shuffled = random.Random(0).sample(rows, 3)
    assert {record.idx: record.renderings for record in read_records(write(tmp_path / "b.jsonl", *shuffled))} == {
        7: first.renderings,
        2: second.renderings,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no records"),
        (["[1]"], "x.jsonl:1: should be a JSON object"),
        (["{"], "x.jsonl:1: not valid JSON"),
        ([{"idx": "a"}], "x.jsonl:1: idx 'a' is no whole number"),
        ([{"idx": 1}, {"idx": 1}], "x.jsonl:2: idx 1 occurs twice, first in .*x.jsonl:1"),
        ([rendered(), rendered()], "x.jsonl:2: idx 7 occurs twice with template 'so'"),
        ([rendered(label=2)], "x.jsonl:1: label 2 of 2 answer choices"),
        ([rendered(), rendered(8, answer_choices=[])], "x.jsonl:2: answer_choices: List should have at least 1 item"),
        ([rendered(template=None)], "x.jsonl:1: template: Input should be a valid string, not None"),
    ],
)
def test_malformed_records_are_named(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_records(write(tmp_path / "x.jsonl", *rows))


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.parquet: cannot be read as Parquet: "):
        read_records(write(tmp_path / "x.parquet", "text"))
