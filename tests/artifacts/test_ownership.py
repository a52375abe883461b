"""What a card lists may be replaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.ownership import foreign_files, require_apart, require_listed
from mhrctl.errors import ArtifactError, ParamsError


@pytest.fixture
def output(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    (out / "tokenizer").mkdir(parents=True)
    (out / "tokenizer" / "x.json").write_text("1")
    write_card(out, Card.of("prepare", {}, {}, PrepareFacts(suite="made", tokenizer="none", vocab_size=1)))
    return out


def test_an_output_as_its_card_lists_it_may_be_replaced(output: Path) -> None:
    require_listed(output)
    require_listed(output.with_name("new"))
    (output / "tokenizer" / "x.json").write_text("rotten")
    require_listed(output)
    (output / CARD).write_text(
        (output / CARD).read_text().replace("made", "fade")
    )  # a rotten card still says whose files are whose
    require_listed(output)


@pytest.mark.parametrize("name", ["notes.txt", "tokenizer/notes.txt", ".gitignore", "a/b/notes.txt"])
def test_the_first_foreign_file_is_named(output: Path, name: str) -> None:
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text("mine")
    with pytest.raises(ArtifactError, match=rf"holds {name}, which its card does not list") as caught:
        require_listed(output)
    assert "\n" not in str(caught.value)
    assert [path.relative_to(output).as_posix() for path in foreign_files(output)] == [name]


def test_links_files_and_folders_without_a_card_are_the_user_s(output: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(output)
    with pytest.raises(ArtifactError, match="is a link, which is not followed"):
        require_listed(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is a file, in the way"):
        require_listed(tmp_path / "file")
    (output / CARD).write_text("{")
    with pytest.raises(ArtifactError, match=r"holds card\.json, which"):
        require_listed(output)
    (output / "tokenizer" / "link").symlink_to(tmp_path)
    (output / CARD).unlink()
    assert [path.name for path in foreign_files(output)] == ["link", "x.json"]


@pytest.mark.parametrize(
    ("out", "path", "said"),
    [
        ("data/backbone", "data/backbone", "is"),
        ("data/backbone", "data/backbone/weights", "lies in"),
        ("data/backbone", "data", "holds"),
        ("data/backbone", "link", "is"),
        ("data/backbone", "data/../data/backbone", "is"),
        ("data/backbone", "data/backbone2", None),
        ("data/backbone", "tasks", None),
    ],
)
def test_an_input_is_no_output(tmp_path: Path, out: str, path: str, said: str | None) -> None:
    (tmp_path / "data/backbone").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/backbone")
    if said is None:
        require_apart(tmp_path / out, tmp_path / path)
        return
    with pytest.raises(ParamsError, match=rf": {said} \S*data/backbone, which would be written while this is read"):
        require_apart(tmp_path / out, tmp_path / path)
