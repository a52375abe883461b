"""The proxy in docs/serving.md works as it stands there, against a stand-in for a server of language models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
ROUTES = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])


@contextmanager
def upstream() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that says which model it was asked for, and fails for the prompt `fail`."""
    asked: list[dict[str, Any]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            content = json.dumps({"model": body["model"], "choices": [{"text": " Paris"}]}).encode()
            self.send_response(404 if body["prompt"] == "fail" else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server has it
            pass

    server = ThreadingHTTPServer(("localhost", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The proxy of the page in a process of its own, and what its upstream was asked."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) <= 50
    (tmp_path / "proxy.py").write_text(code, encoding="utf-8")
    (tmp_path / "routes.json").write_text(json.dumps(ROUTES))
    free = ThreadingHTTPServer(("localhost", 0), BaseHTTPRequestHandler)
    port = free.server_port
    free.server_close()
    with upstream() as (url, asked):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "proxy.py", tmp_path / "routes.json", url, str(port)], stderr=subprocess.DEVNULL
        )
        try:
            wait_for(f"http://localhost:{port}")
            yield f"http://localhost:{port}/v1/completions", asked
        finally:
            process.kill()
            process.wait()


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urlopen(url)  # noqa: S310 - this machine
        except HTTPError as error:  # it is there, and answers no GET
            error.close()
            return
        except URLError:
            time.sleep(0.05)
    raise TimeoutError(url)


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    try:
        request = Request(url, body, {"Content-Type": "application/json", **headers})  # noqa: S310 - this machine
        with urlopen(request) as said:  # noqa: S310
            return said.status, json.loads(said.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_task_becomes_the_name_of_its_adapter(proxy: tuple[str, list[dict[str, Any]]]) -> None:
    url, asked = proxy
    route = ROUTES["routes"]["capital"]
    body = {"task": "capital", "prompt": "France", "temperature": 0}
    assert post(url, json.dumps(body).encode(), Authorization="Bearer me") == (
        200,
        {"model": route["model"], "choices": [{"text": " Paris"}]},
    )
    expected = {"model": route["model"], "prompt": "France", "temperature": 0, "path": "/v1/completions", "key": "Bearer me"}
    assert asked == [expected]
    assert post(url, json.dumps(body | {"prompt": "fail"}).encode())[0] == 404


@pytest.mark.parametrize("body", [b'{"task": "colour"}', b'{"prompt": "x"}', b"no JSON", b"[1]"])
def test_what_names_no_task_is_refused(proxy: tuple[str, list[dict[str, Any]]], body: bytes) -> None:
    url, asked = proxy
    assert post(url, body) == (400, {"error": {"message": "give a task: capital"}})
    assert asked == []


def test_the_routes_of_the_page_have_the_keys_of_an_export() -> None:
    assert list(ROUTES) == ["form", "base", "suite", "cell", "stage", "max_lora_rank", "routes"]
    route = ROUTES["routes"]["capital"]
    assert list(route) == ["model", "adapter", "sha256", "rank", "metric", "score", "skills"]
