"""Data sets are opened as streams, wherever they are, and what cannot be opened is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from mhrctl.errors import DataError
from mhrctl.suites.hub.opening import DataSet, chosen_split, open_splits
from tests.suites.hub.made import Stream, labelled, questions, save, write_csv, write_jsonl, write_parquet

TEXT = ("question", "answer", "task")


def opened(place: Path | str, **options: Any) -> dict[str, list[dict[str, Any]]]:
    settings: dict[str, Any] = {"text": TEXT, "max_rows": None} | options
    return {name: [dict(row) for row in split.rows()] for name, split in open_splits(DataSet(place), **settings).items()}


@pytest.mark.parametrize("form", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "saved"])
def test_every_form_of_one_split_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    path, rows = tmp_path / form, questions()
    if form == "saved":
        save(path, only=Dataset.from_list(rows))
    elif form.endswith("sv"):
        write_csv(path, rows, "\t" if form == "rows.tsv" else ",")
    elif form == "rows.parquet":
        write_parquet(path, rows)
    else:
        write_jsonl(path, rows)
    assert opened(path) == {"train": rows}
    assert opened(path, max_rows=2) == {"train": rows[:2]}


@pytest.mark.parametrize("form", ["jsonl", "csv", "saved"])
def test_a_folder_has_splits(tmp_path: Path, form: str) -> None:
    rows = questions()
    if form == "saved":
        save(tmp_path / "data", train=Dataset.from_list(rows), test=Dataset.from_list(rows[:3]))
    else:
        write = write_csv if form == "csv" else write_jsonl
        write(tmp_path / f"data/train.{form}", rows)
        write(tmp_path / f"data/test.{form}", rows[:3])
    assert opened(tmp_path / "data") == {"train": rows, "test": rows[:3]}


@pytest.mark.parametrize("inside", [True, False])
def test_text_of_csv_stays_what_it_is(tmp_path: Path, inside: bool) -> None:
    answers = ["7", "007", "NA", "2018-09-03", "1.50", "null"]
    rows = [{"question": "q", "answer": answer} for answer in answers]
    path = write_csv(tmp_path / "data/train.csv", rows)
    (read,) = opened(path.parent if inside else path).values()
    assert [row["answer"] for row in read] == answers


def test_splits_are_read_as_often_as_they_are_asked_for(tmp_path: Path) -> None:
    split = open_splits(DataSet(write_jsonl(tmp_path / "a.jsonl", questions())), text=(), max_rows=None)["train"]
    assert list(split.rows()) == list(split.rows())


def test_names_of_class_labels(tmp_path: Path) -> None:
    splits = open_splits(DataSet(save(tmp_path / "saved", only=labelled())), text=(), max_rows=None)
    assert splits["train"].labels == {"label": ("no", "yes")}


def test_the_hub_is_asked_for_a_stream_of_a_revision_and_for_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    stream = Stream(questions(1000))

    def load_dataset(*names: Any, **options: Any) -> dict[str, Stream]:
        asked.append((names, options))
        return {"train": stream}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    data = DataSet("owner/name", "abc", "small")
    split = open_splits(data, text=TEXT, max_rows=5)["train"]
    assert asked == [(("owner/name", "small"), {"revision": "abc", "streaming": True})]
    assert len(list(split.rows())) == 5
    assert stream.read == 5  # and no more is fetched
    assert (data.name, split.where) == ("name", "owner/name, configuration small, split train")


def test_what_the_hub_fails_with_is_one_line_even_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^nobody/nothing: cannot be read from the hub: .*; check its id") as error:
        open_splits(DataSet("nobody/nothing"), text=(), max_rows=None)
    assert "\n" not in str(error.value)

    class Torn(Stream):
        def __iter__(self) -> Any:
            yield {"a": 1}
            raise ConnectionResetError("the network\nis gone")

    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: {"train": Torn([])})
    rows = open_splits(DataSet("a/b"), text=(), max_rows=None)["train"].rows()
    next(rows)
    with pytest.raises(DataError, match=r"^a/b: cannot be read from the hub: the network is gone; check"):
        next(rows)


def test_what_is_no_data_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.parquet").write_text("no Parquet")
    (tmp_path / "empty").mkdir()
    script = tmp_path / "code/code.py"
    script.parent.mkdir()
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for place, message in (
        (tmp_path / "nowhere", r"nowhere: no such file or folder; set prepare.path"),
        (tmp_path / "a.txt", r"a.txt: no form that is read here; use .json, .jsonl, .csv"),
        (tmp_path / "a.parquet", r"a.parquet: cannot be read: .*; see that it is whole"),
        (tmp_path / "empty", r"empty: cannot be read: .*"),
        (tmp_path / "code", r"code: cannot be read: .*"),
        ("../up", r"\.\./up: no id of the hub, as `owner/name` is; a file or folder is named as `path`"),
    ):
        with pytest.raises(DataError, match=message) as error:
            opened(place)
        assert "\n" not in str(error.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^empty: is a file or folder here, and no id of the hub; name it as `path`"):
        opened("empty")
    assert not (tmp_path / "ran").exists()  # no code of a data set is run
    data = DataSet(write_jsonl(tmp_path / "a.jsonl", questions()), config="small")
    with pytest.raises(DataError, match=r"a.jsonl: has no configurations; leave out config"):
        open_splits(data, text=(), max_rows=None)


def test_the_split_to_train_on(tmp_path: Path) -> None:
    rows = Dataset.from_list(questions())
    both = DataSet(save(tmp_path / "both", train=rows, dev=rows))
    others = DataSet(save(tmp_path / "others", dev=rows, test=rows))
    only = DataSet(save(tmp_path / "only", test=rows))

    def chosen(data: DataSet, wanted: str | None) -> str:
        splits = open_splits(data, text=(), max_rows=None)
        return chosen_split(data, splits, wanted, "prepare.splits.train").where.rpartition(" ")[2]

    assert [chosen(both, None), chosen(both, "dev"), chosen(only, None)] == ["train", "dev", "test"]
    for data, wanted, known in ((others, None, "dev, test"), (both, "trial", "train, dev")):
        with pytest.raises(DataError, match=rf"unknown split .*\(known: {known}\); set prepare.splits.train"):
            chosen(data, wanted)
