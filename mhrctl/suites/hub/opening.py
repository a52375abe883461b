"""Data sets on the hub, in folders and in files are opened as streams; no code of theirs is run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mhrctl.config.sources import HUB_ID
from mhrctl.errors import DataError, unknown
from mhrctl.suites.files import LINKED, data_files, require_file
from mhrctl.suites.reading import READABLE, file_errors, hub_errors, parse, read_text

BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
"""{ending of a file: what of `datasets` reads it}."""
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""Endings of files that `datasets` unpacks."""
SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder that `save_to_disk` wrote is known."""
Record = Mapping[str, Any]


@dataclass(frozen=True)
class DataSet:
    """This is a data set, or one of its configurations.

    Attributes:
        place: an id of the hub, or a file or folder.
        revision: commit, tag or branch on the hub.
        config: name of the configuration; None for the only one.
    """

    place: str | Path
    revision: str = "main"
    config: str | None = None

    @property
    def name(self) -> str:
        """The end of its id, or its file's name without the ending."""
        return self.place.stem if isinstance(self.place, Path) else self.place.rpartition("/")[2]

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"{self.place}, configuration {self.config}" if self.config else str(self.place)


@dataclass(frozen=True)
class Split:
    """A split gives the rows of one split, read as often as they are asked for.

    Attributes:
        where: what errors call it.
        labels: {column: names of its class labels}.
        rows: opens the stream.
    """

    where: str
    labels: Mapping[str, tuple[str, ...]]
    rows: Callable[[], Iterator[Record]]


def open_splits(data: DataSet, *, text: tuple[str, ...], max_rows: int | None) -> dict[str, Split]:
    """Open a data set.

    Args:
        data: the data set.
        text: columns that hold text, which files that say no types (CSV) are read by.
        max_rows: rows of a split to read, its first; None reads all.

    Returns:
        {name of the split: the split}. A file is one split, `train`.

    Raises:
        DataError: if there is none, or nothing can read it.
    """
    with _errors(data, opens=True):
        opened = _opened(data, text)
    return {name: _split(data, name, rows, max_rows) for name, rows in opened.items()}


def chosen_split(data: DataSet, splits: Mapping[str, Split], wanted: str | None, setting: str) -> Split:
    """Return the split to train on: the one that is wanted, or `train`, or the only one.

    Raises:
        DataError: naming those that there are.
    """
    if wanted is None and len(splits) == 1:
        return next(iter(splits.values()))
    name = wanted or "train"
    if name not in splits:
        raise DataError(f"{data.where}: {unknown('split', name, splits)}; set {setting}")
    return splits[name]


def beside(data: DataSet) -> dict[str, int]:
    """Look at what else lies in a local folder, as the notes of a suite say it; nothing of the hub, or of what was saved.

    Raises:
        DataError: if a link, a pipe or a folder stands where `datasets` would look for data, and would pass it over.
    """
    place = data.place
    if not isinstance(place, Path) or not place.is_dir() or _is_saved(place):
        return {}
    endings = [*BUILDERS, *(ending + packed for ending in BUILDERS for packed in PACKED)]
    inside = data_files(place, endings, any_case=True)
    if linked := inside.remarks.get(LINKED):
        raise DataError(f"{place / linked[0]}: is a link to a folder, which `datasets` does not follow; put its files here")
    return inside.notes


def _is_saved(place: Path) -> bool:
    return any((place / name).is_file() for name in SAVED)


def _opened(data: DataSet, text: tuple[str, ...]) -> dict[str, Any]:
    """{split: its rows, as `datasets` has them}."""
    from datasets import Dataset, load_dataset, load_from_disk

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it logs before it fails stands in our line
    place = data.place
    if not isinstance(place, Path):
        if not HUB_ID.fullmatch(place):
            raise DataError(f"{place}: no id of the hub, as `owner/name` is; a file or folder is named as `path`")
        if Path(place).exists():  # which `load_dataset` would take for the data set
            raise DataError(f"{place}: is a file or folder here, and no id of the hub; name it as `path`")
        return dict(load_dataset(place, data.config, revision=data.revision, streaming=True))
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; set prepare.path")
    if not place.is_dir():
        require_file(place)
    is_saved = _is_saved(place)
    if data.config and (is_saved or place.is_file()):
        raise DataError(f"{place}: has no configurations; leave out config")
    if is_saved:
        saved = load_from_disk(str(place))
        return {"train": saved} if isinstance(saved, Dataset) else dict(saved)
    # A type that is guessed from a column's first rows is wrong for some text: answers such as 7 or NA.
    as_text = {"converters": dict.fromkeys(text, str), "keep_default_na": False}
    if place.is_dir():
        is_csv = any(file.suffix in (".csv", ".tsv") for file in place.rglob("*"))
        return dict(load_dataset(str(place), data.config, streaming=True, **(as_text if is_csv else {})))
    if place.suffix not in BUILDERS:
        raise DataError(f"{place}: no form that is read here; use {', '.join(BUILDERS)}, or a folder that `datasets` loads")
    options = as_text if BUILDERS[place.suffix] == "csv" else {}
    options |= {"sep": "\t"} if place.suffix == ".tsv" else {}
    return dict(load_dataset(BUILDERS[place.suffix], data_files={"train": str(place)}, streaming=True, **options))


def _split(data: DataSet, name: str, rows: Any, max_rows: int | None) -> Split:  # noqa: ANN401 - of an untyped library
    features = rows.features or {}
    labels = {column: tuple(feature.names) for column, feature in features.items() if hasattr(feature, "names")}
    return Split(f"{data.where}, split {name}", labels, partial(_rows, data, rows, max_rows))


def _rows(data: DataSet, rows: Any, max_rows: int | None) -> Iterator[Record]:  # noqa: ANN401
    stream = islice(rows, max_rows)
    while True:
        with _errors(data):  # around what is read, and not around what is made of it
            record = next(stream, None)
        if record is None:
            return
        yield record


@contextmanager
def _errors(data: DataSet, *, opens: bool = False) -> Iterator[None]:
    """Whatever `datasets` fails with is one line; of JSON Lines, if they are not many, with the number of the line."""
    place = data.place
    if not isinstance(place, Path):
        how = "check its id, configuration, revision and the network, or name a folder as prepare.path"
        with hub_errors(data.where, how, opens=place if opens else None):
            yield
        return
    try:
        with file_errors(data.where, "see that it is whole, and of a form that `datasets` loads"):
            yield
    except DataError:
        if place.suffix == ".jsonl" and place.is_file() and place.stat().st_size <= READABLE:
            for number, text in enumerate(read_text(place).split("\n"), 1):
                if text.strip():
                    parse(text, place, number)
        raise
