"""The examples of docs/api.md run as they are written, in a study like that which they are about."""

from __future__ import annotations

import ast
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.studies import small_study

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/api.md"


def examples() -> list[str]:
    """The blocks of Python, from the top."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study of the page, all of whose stages have run."""
    folder = tmp_path_factory.mktemp("made")
    project = small_study(folder / "study", no_scm=True, quiet=True)
    project.prepare()
    project.backbone()
    project.pretrain("mhr-h8-s0")
    project.adapt("mhr-h8-s0")
    project.evaluate("mhr-h8-s0")
    return folder


@pytest.fixture(autouse=True)
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory has a copy of it."""
    shutil.copytree(made / "study", tmp_path / "study")
    monkeypatch.chdir(tmp_path)


def code(text: str) -> Any:
    return compile(text, str(PAGE), "exec")


@pytest.mark.filterwarnings("ignore:answered zero-shot:mhrctl.FallbackWarning")
def test_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    shown = []
    for text in examples():
        exec(code(text), names)  # noqa: S102 - of our own page
        shown.append(capsys.readouterr().out)
    assert set(ast.literal_eval(shown[0])) <= {"food", "sport"}
    assert shown[1].splitlines()[0] == "[0] 1"
    assert "mhr-h8-s0 mhr {'pretrain': 'up to date', 'adapt': 'up to date', 'evaluate': 'up to date'}" in shown[1]
    assert shown[2] == "['topic']\n"
    first, second, third = ast.literal_eval(shown[3])
    assert first in ("food", "sport")
    assert second in ("positive", "negative")
    assert third in ("food", "sport", "music")
    numbers, scores = shown[4].splitlines()
    assert [len(row) for row in ast.literal_eval(numbers)] == [2]
    assert scores.startswith(("0.0 ['sport'] ", "100.0 ['food'] "))
    assert shown[5] == "study/data/adapt/mhr-h8-s0 132480\n"
    assert [line.split()[:2] for line in shown[6].splitlines()] == [["mhr-h8-s0", "zero_shot"], ["mhr-h8-s0", "adapted"]]
    assert shown[7].endswith("(2, 8, 8) ['sentiment', 'who']\n")
    assert shown[8].startswith("inputs[0]: unknown task 'topics'; did you mean 'topic'?")
    assert len(shown) == 10


@contextmanager
def served(server: Any) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(address: str, body: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(address, data=body, timeout=60) as response:  # noqa: S310 - our own service
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_service_answers_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [text for text in examples() if "http.server" in text]
    names: dict[str, Any] = {"__name__": "service"}
    exec(code(text), names)  # noqa: S102
    monkeypatch.setattr(names["Answers"], "log_message", lambda *_: None)
    rows = [{"task": "topic", "input": "They made soup."}]
    expected = names["CELL"].generate(rows)
    said: list[tuple[int, Any]] = []
    with served(names["ThreadingHTTPServer"](("127.0.0.1", 0), names["Answers"])) as address:
        threads = [threading.Thread(target=lambda: said.append(answer(address, json.dumps(rows).encode()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == [(200, expected)] * 4
        assert answer(address, b'[{"task": "topics", "input": ""}]')[0] == 400
        assert answer(address, b"[3]") == (400, "inputs[0]: should be a text or a row, not 3")
        assert answer(address, b"{}") == (400, "inputs: give a list of them, also of one")
        assert answer(address, b"no JSON")[0] == 400
