"""The training mixture of T0: the table of 313 tasks, and P3's rows from folders made on disk."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mhrctl.errors import DataError
from mhrctl.suites.t0 import p3
from mhrctl.suites.t0.p3 import capped_rows, p3_name, p3_templates, read_p3_rows, training_tasks

FACTS = Path(__file__).parents[4] / "shared/facts/t0_313_tasks.json"
EQUIVALENT, PARAPHRASE, RATE = "glue_mrpc_equivalent", "glue_mrpc_paraphrase", "yelp_review_full_format_rating"
TEXT = ["inputs_pretokenized", "targets_pretokenized"]


def rows(size: int, start: int = 0) -> dict[str, list[Any]]:
    """Columns as P3 has them."""
    numbers = range(start, start + size)
    return {
        "inputs": [[number] * 50 for number in numbers],
        "inputs_pretokenized": [f"\n in {number} " for number in numbers],
        "targets": [[1]] * size,
        "targets_pretokenized": [f" {('no', 'yes')[number % 2]}\n" for number in numbers],
        "answer_choices": [[" no", "yes "]] * size,
    }


def write(folder: Path, *shards: dict[str, list[Any]], row_group_size: int = 1000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(shards):
        path = folder / f"train-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(pa.table(shard), path, row_group_size=row_group_size, compression="none", use_dictionary=False)
    return folder


def spoil(path: Path, column: str) -> None:
    """Overwrite the bytes of a column, so that nobody can read it."""
    content = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(index) for index in range(metadata.num_columns))
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
        content[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
            chunk.total_compressed_size
        )
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"\w"):
        pq.read_table(path, columns=[column])


def test_the_mixture_is_313_templates_of_38_data_sets() -> None:
    templates = p3_templates()
    assert len({template.name for template in templates}) == len(templates) == 313
    assert len({(template.dataset, template.subset) for template in templates}) == 38
    assert sum(template.original_task for template in templates) == 222
    assert [template.name for template in templates] == sorted(template.name for template in templates)


def test_caps_are_equal_parts_of_500_000_rows_by_data_set() -> None:
    caps = {template.data_set: capped_rows(template) for template in p3_templates()}
    by_hand = {"glue_mrpc": 3668, "glue_qqp": 83333, "amazon_polarity": 55555, "app_reviews": 125000, "xsum": 50000}
    assert {name: caps[name] for name in by_hand} == by_hand
    assert sum(capped_rows(template) for template in p3_templates()) == 10_606_443
    assert sum(min(capped_rows(template), template.p3_rows) for template in p3_templates()) == 10_417_980
    assert max(capped_rows(template, max_rows=60) for template in p3_templates()) == 60 // 4


def test_the_table_says_what_the_reference_says() -> None:
    if not FACTS.is_file():
        pytest.skip("../shared/facts is not there")
    fields = ("dataset", "subset", "template", "original_task")
    rows = json.loads(FACTS.read_text())
    facts = {row["task_name"]: (*(row[field] for field in fields), row["p3_train"], row["cap"]) for row in rows}
    ours = {
        row.name: (row.dataset, row.subset, row.template, row.original_task, row.p3_rows, capped_rows(row))
        for row in p3_templates()
    }
    assert ours == facts


def test_names_are_p3s() -> None:
    for row in p3_templates():
        whole = f"{row.dataset}_{row.subset}_{row.template}" if row.subset else f"{row.dataset}_{row.template}"
        assert row.name == re.sub(r"[^\w\d\._]+", "_", whole) == p3_name(row.dataset, row.subset, row.template)
    assert p3_name("super_glue", "wsc.fixed", "GPT-3 Style") == "super_glue_wsc.fixed_GPT_3_Style"
    assert p3_name("hellaswag", None) == "hellaswag"


def test_a_changed_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p3, "TEMPLATES", 314)
    with pytest.raises(DataError, match=r"t0/tasks.json: 313 tasks of 38 data sets, not 314 of 38; install"):
        p3_templates.__wrapped__()


def test_texts_are_stripped_and_rows_without_one_are_passed_over(tmp_path: Path) -> None:
    table = rows(4)
    table["inputs_pretokenized"][1], table["targets_pretokenized"][2] = " \n", None
    table["answer_choices"][3] = ["other", "words"]
    write(tmp_path / RATE, table)
    first, last = read_p3_rows(RATE, source=str(tmp_path), rows=10)
    assert (first.id, first.input, first.targets, first.choices) == ("0", "in 0", ("no",), ("no", "yes"))
    assert (last.id, last.input, last.targets, last.choices) == ("3", "in 3", ("yes",), ())
    assert [example.id for example in read_p3_rows(RATE, source=str(tmp_path), rows=3)] == ["0"]


def test_both_forms_of_a_folder_are_read_in_order_without_choices_too(tmp_path: Path) -> None:
    plain = [{column: rows(3, start)[column] for column in TEXT} for start in (0, 3)]
    write(tmp_path / "hub" / RATE, *plain)
    (tmp_path / "converted" / RATE / "train").mkdir(parents=True)
    for number, shard in enumerate(plain):
        pq.write_table(pa.table(shard), tmp_path / "converted" / RATE / f"train/{number:04d}.parquet")
    for form in ("hub", "converted"):
        examples = list(read_p3_rows(RATE, source=str(tmp_path / form), rows=100))
        assert [(example.id, example.input) for example in examples] == [(str(n), f"in {n}") for n in range(6)]
        assert all(example.choices == () for example in examples)


def test_a_shard_is_opened_only_when_the_ones_before_it_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / RATE, rows(5), rows(5, 5))
    (folder / "train-00001-of-00002.parquet").unlink()
    assert len(list(read_p3_rows(RATE, source=str(tmp_path), rows=5))) == 5
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet: cannot be read: .*; download it again"):
        list(read_p3_rows(RATE, source=str(tmp_path), rows=6))


@pytest.mark.parametrize("row_group_size", [1000, 20_000])
def test_memory_stays_at_a_batch_and_only_text_is_read(row_group_size: int, tmp_path: Path) -> None:
    table = rows(20_000)
    table["inputs_pretokenized"] = [f"{text} {'x' * 1000}" for text in table["inputs_pretokenized"]]
    folder = write(tmp_path / RATE, table, row_group_size=row_group_size)
    spoil(folder / "train-00000-of-00001.parquet", "inputs")
    del table
    before, most, read = pa.total_allocated_bytes(), 0, 0
    for example in read_p3_rows(RATE, source=str(tmp_path), rows=20_000):
        most, read = max(most, pa.total_allocated_bytes() - before), read + len(example.input)
    assert read > 20_000_000
    assert most < 6_000_000


def test_the_hub_gives_the_same_rows_and_only_text_is_read(tmp_path: Path) -> None:
    write(tmp_path / RATE, rows(2500), rows(7, 2500), row_group_size=600)
    (tmp_path / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {RATE}\n  data_files:\n  - split: train\n    path: {RATE}/train-*\n---\n"
    )
    spoil(tmp_path / RATE / "train-00000-of-00002.parquet", "inputs")
    batches = p3._hub_batches(str(tmp_path), RATE, None)
    from_hub = [record for batch in batches for record in batch.to_pylist()]
    assert set(from_hub[0]) == {*TEXT, "answer_choices"}
    assert from_hub == [record for batch in p3._local_batches(tmp_path / RATE) for record in batch.to_pylist()]
    assert len(from_hub) == 2507
    for config, message in (("other", "BuilderConfig 'other' not found"), (RATE, "no column 'inputs_pretokenized'")):
        write(tmp_path / RATE, {"text": ["x"]})
        with pytest.raises(DataError, match=rf"configuration {config}: .*{message}"):
            next(p3._hub_batches(str(tmp_path), config, None))


def test_a_hub_that_cannot_be_reached_is_reported_in_one_line() -> None:
    with pytest.raises(DataError, match=r"^bigscience/P3, configuration x: cannot be read from the hub: .*; check") as caught:
        next(read_p3_rows("x", source="bigscience/P3", revision="main", rows=1))
    assert "\n" not in str(caught.value)


def test_each_template_a_task_or_each_data_set(tmp_path: Path) -> None:
    for config in (PARAPHRASE, EQUIVALENT):
        write(tmp_path / config, rows(3))
    write(tmp_path / RATE, rows(5))
    suite = training_tasks(source=str(tmp_path), revision=None, by="template")
    assert [task.name for task in suite.tasks] == [EQUIVALENT, PARAPHRASE, RATE]
    assert {(task.role, task.metric, len(task.examples)) for task in suite.tasks} == {("training", "rouge_l", 0)}
    assert len(suite.dropped) == 310
    assert suite.dropped["xsum_read_below_DOC_write_abstract"].endswith("holds no train-*.parquet")
    stream = suite.tasks[0].stream
    assert stream is not None
    assert [example.id for example in stream()] == [example.id for example in stream()] == ["0", "1", "2"]

    suite = training_tasks(source=str(tmp_path), revision=None, by="dataset", max_rows=14)
    assert [task.name for task in suite.tasks] == ["glue_mrpc", "yelp_review_full"]
    ids = {task.name: [example.id for example in task.stream()] for task in suite.tasks if task.stream}
    assert ids["glue_mrpc"] == [f"{EQUIVALENT}/0", f"{EQUIVALENT}/1", f"{PARAPHRASE}/0", f"{PARAPHRASE}/1"]
    assert ids["yelp_review_full"] == [f"{RATE}/0", f"{RATE}/1"]


def test_the_hub_has_all_tasks_and_nothing_is_read_to_name_them() -> None:
    for by, size in (("template", 313), ("dataset", 38)):
        suite = training_tasks(source="bigscience/P3", revision="main", by=by)  # type: ignore[arg-type]
        assert (len(suite.tasks), suite.dropped) == (size, {})


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 313 configurations of P3 that T0 trains on is in this folder"):
        training_tasks(source=str(tmp_path), revision=None, by="template")
    with pytest.raises(DataError, match=r"nowhere: no such folder, and no id on the hub"):
        training_tasks(source=str(tmp_path / "nowhere"), revision=None, by="template")
    with pytest.raises(DataError, match=rf"{RATE}: no train-00000-of-"):
        next(read_p3_rows(RATE, source=str(tmp_path), rows=1))
    folder = write(tmp_path / RATE, {"inputs_pretokenized": ["a"], "other": ["b"]})
    with pytest.raises(DataError, match=r"no column 'targets_pretokenized' \(it has inputs_pretokenized, other\)"):
        next(read_p3_rows(RATE, source=str(tmp_path), rows=1))
    (folder / "train-00000-of-00001.parquet").write_text("not Parquet")
    with pytest.raises(DataError, match=r"of-00001.parquet: cannot be read: .*; download it again"):
        list(islice(read_p3_rows(RATE, source=str(tmp_path), rows=1), 1))
