"""The page on troubles quotes messages that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
OTHERS = {"CUDA out of memory", "No space left on device", "dvc plots show"}
"""What others say: torch, the operating system; and a command."""


def quoted(text: str) -> list[str]:
    """Messages in the first column, in backticks."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def missing(messages: list[str], sources: str) -> list[str]:
    """Messages of which a part, between the dots, is in no source."""
    said = [message for message in messages if message not in OTHERS]
    return [message for message in said if any(part.strip(" :") not in sources for part in message.split("..."))]


def test_messages_are_in_the_sources() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "mhrctl").rglob("*.py"))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # of strings over several lines
    messages = quoted(PAGE.read_text(encoding="utf-8"))
    assert len(messages) > 10
    assert missing(messages, sources) == []


def test_messages_that_nobody_says_are_seen() -> None:
    assert missing(quoted("| `no such line ... at all` | why |"), "no such line of it") == ["no such line ... at all"]
