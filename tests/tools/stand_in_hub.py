"""A hub of one process: the endpoints that huggingface_hub asks to make, fill, look at and read a repository of a model."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

from mhrctl import hub

TOKEN = "hf_" + "a" * 32
LARGE = ".safetensors"
"""Files of this kind go through LFS."""


Answer = tuple[int, Any, dict[str, str]]
"""A status, JSON or bytes, and headers."""


@dataclass
class Repository:
    """A repository has commits, the last of which is `main`."""

    private: bool
    commits: list[tuple[str, dict[str, bytes], str]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        text = f"{len(self.commits)} {message} {sorted(files)}"
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), files, message))  # noqa: S324 - as git does
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        for commit, files, _ in reversed(self.commits):
            if revision in ("main", commit):
                return commit, files
        return None


class Hub:
    """A hub has repositories, what was uploaded before its commit, and faults that a test puts in.

    Attributes:
        repositories: {OWNER/NAME: the repository}.
        asked: the requests, as `METHOD path`.
        damage: {file: other bytes that are sent for it}.
        is_gated: whether files are sent to those alone whom their owner lets in, who is nobody.
        refuses: what commits are answered with, in place of being done.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.damage: dict[str, bytes] = {}
        self.is_gated = False
        self.refuses: tuple[int, str] | None = None
        self.endpoint = ""
        self._uploads: dict[str, bytes] = {}

    def make(self, repo: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Make a repository with one commit."""
        self.repositories[repo] = Repository(private)
        return self.repositories[repo].commit(files, "first")

    def files(self, repo: str) -> dict[str, bytes]:
        """What `main` of a repository holds."""
        return self.repositories[repo].commits[-1][1]

    def answer(self, method: str, path: str, body: bytes, *, known: bool) -> Answer:
        """Answer a request: the status, JSON or bytes, and headers."""
        self.asked.append(f"{method} {path}")
        if path == "/api/repos/create":
            return self._create(json.loads(body), known=known)
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if match := re.fullmatch(r"/upload/(\w+)", path):
            self._uploads[match[1]] = body
            return 200, b"", {"ETag": match[1]}
        if match := re.fullmatch(r"/(?P<repo>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", path):
            return 200, {"transfer": "basic", "objects": [self._upload_of(each) for each in json.loads(body)["objects"]]}, {}
        if match := re.fullmatch(r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)(/(?P<what>\w+)/(?P<revision>[^/]+))?", path):
            return self._of_repository(
                match["repo"], match["what"] or "revision", match["revision"] or "main", body, known=known
            )
        if match := re.fullmatch(r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path):
            return self._file(match["repo"], match["revision"], match["file"], known=known)
        return 404, {"error": f"no such endpoint: {path}"}, {}

    def _create(self, asked: dict[str, Any], *, known: bool) -> Answer:
        repo = f"{asked['organization']}/{asked['name']}"
        if not known:
            return 401, {"error": "Invalid username or password."}, {}
        self.make(repo, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=asked.get("visibility") == "private")
        return 200, {"url": f"{self.endpoint}/{repo}", "id": repo, "name": repo}, {}

    def _upload_of(self, asked: dict[str, Any]) -> dict[str, Any]:
        actions = {} if asked["oid"] in self._uploads else {"upload": {"href": f"{self.endpoint}/upload/{asked['oid']}"}}
        return {"oid": asked["oid"], "size": asked["size"], **({"actions": actions} if actions else {})}

    def _seen(self, repo: str, *, known: bool) -> Repository | None:
        repository = self.repositories.get(repo)
        return repository if repository and (known or not repository.private) else None

    def _of_repository(self, repo: str, what: str, revision: str, body: bytes, *, known: bool) -> Answer:
        repository = self._seen(repo, known=known)
        if repository is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if what == "preupload":
            asked = json.loads(body)["files"]
            modes = {each["path"]: "lfs" if each["path"].endswith(LARGE) else "regular" for each in asked}
            return (
                200,
                {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]},
                {},
            )
        if what == "commit":
            return self._commit(repo, repository, body, known=known)
        if (there := repository.at(unquote(revision))) is None:
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        commit, files = there
        if what == "tree":
            return 200, [self._entry(name, content) for name, content in files.items()], {}
        siblings = [{"rfilename": name} for name in files]
        return 200, {"id": repo, "sha": commit, "private": repository.private, "siblings": siblings}, {}

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _commit(self, repo: str, repository: Repository, body: bytes, *, known: bool) -> Answer:
        if not known:
            return 403, {"error": "You have no write access"}, {}
        if self.refuses:
            return self.refuses[0], {"error": self.refuses[1]}, {}
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repository.commits[-1][0]):
            return 412, {"error": "A commit has happened since."}, {}
        files = dict(repository.commits[-1][1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files, header["summary"])
        return 200, {"commitUrl": f"{self.endpoint}/{repo}/commit/{commit}", "commitOid": commit}, {}

    def _file(self, repo: str, revision: str, file: str, *, known: bool) -> Answer:
        repository = self._seen(repo, known=known)
        there = repository.at(unquote(revision)) if repository else None
        if there is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if self.is_gated:
            return 403, {"error": "Access to this model is restricted."}, {"X-Error-Code": "GatedRepo"}
        name = unquote(file)
        if name not in there[1]:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": there[0]}
        content = self.damage.get(name, there[1][name])
        return 200, content, {"X-Repo-Commit": there[0], "ETag": f'"{hashlib.sha256(there[1][name]).hexdigest()}"'}


def _mode(path: str) -> str:
    return "lfs" if path.endswith(LARGE) else "regular"


def _handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if "chunked" not in self.headers.get("Transfer-Encoding", "") else self._chunks()
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            status, answer, headers = served.answer(self.command, urlsplit(self.path).path, body, known=known)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            if "error" in (answer if isinstance(answer, dict) else {}):
                self.send_header("X-Error-Message", answer["error"])
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _chunks(self) -> bytes:
            content = b""
            while length := int(self.rfile.readline(), 16):
                content += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return content

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def standing_in(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Let huggingface_hub ask a hub of this process, as who has a token."""
    served = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{served.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    close_session()
    hub._is_reachable.cache_clear()
    try:
        yield served
    finally:
        close_session()
        server.shutdown()
        server.server_close()
        thread.join()
