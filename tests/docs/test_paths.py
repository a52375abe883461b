"""Files that the documents name are there, and links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = "mhrctl|docs|tests|benchmarks|pipelines"
NAMED = re.compile(rf"(?<![\w/.])(?:{FOLDERS})/[\w./*-]*[\w/*]")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")
MADE = re.compile(r"pipelines/[\w-]+/(?:data|dvc\.lock)|benchmarks/quick")
"""What a run leaves behind, which a clone has not."""


def missing_paths(text: str, root: Path) -> list[str]:
    """Paths below the root that a text names and that are not there; `*` stands for any."""
    named = sorted({path for path in NAMED.findall(text) if not MADE.match(path)})
    return [path for path in named if not any(root.glob(path.rstrip("/")))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    assert missing_paths(page.read_text(encoding="utf-8"), ROOT) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = [match[1] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_document_is_linked_from_the_readme_or_another() -> None:
    linked = {(page.parent / match[1]).resolve() for page in PAGES for match in LINK.finditer(page.read_text(encoding="utf-8"))}
    assert [page.name for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in linked] == []


def test_missing_paths_are_seen(tmp_path: Path) -> None:
    (tmp_path / "mhrctl" / "cli").mkdir(parents=True)
    (tmp_path / "mhrctl" / "cli" / "app.py").touch()
    text = "`mhrctl/cli/app.py`, `mhrctl/cli/`, `mhrctl/gone.py`, (mhrctl/old/), mhrctl/cli/*.py. data/mhrctl/x.py"
    assert missing_paths(text, tmp_path) == ["mhrctl/gone.py", "mhrctl/old/"]
