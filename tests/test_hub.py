"""What is on the hub: it is said, asked for once, and answered in one line where it cannot be had."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from huggingface_hub import close_session, constants, is_offline_mode

from mhrctl import hub
from mhrctl.data.similarity import SentenceEncoder
from mhrctl.data.tokenization import load_tokenizer
from mhrctl.errors import DataError
from mhrctl.hub import did_you_mean, fetching, heard
from mhrctl.models.backbones import load_pretrained, pretrained_config
from mhrctl.suites.hub.opening import DataSet, open_splits
from tests.cli.conftest import Capture
from tests.conftest import Run

COMMIT = "0" * 40


class Server:
    """A hub that answers 404 to all, or that never answers.

    Attributes:
        asked: the paths that it was asked for.
    """

    def __init__(self, *, answers: bool) -> None:
        self.asked: list[str] = []
        self._over = Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.asked.append(self.path)
                if not answers:
                    outer._over.wait()
                    return
                self.send_response(404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A process that may ask the hub, which is a closed port, and has an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "_unreachable", set())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    close_session()
    hub._is_reachable.cache_clear()
    hub._say_once.cache_clear()
    yield monkeypatch
    hub._is_reachable.cache_clear()
    hub._say_once.cache_clear()
    close_session()


@pytest.fixture
def serve(online: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Starts a hub in place of the closed port."""
    servers = []

    def start(*, answers: bool) -> Server:
        servers.append(Server(answers=answers))
        online.setattr(constants, "ENDPOINT", servers[-1].endpoint)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def cached(name: str, file: str) -> None:
    """Put a file of a model into the cache, as of its main branch."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    for path, text in ((folder / "refs/main", COMMIT), (folder / f"snapshots/{COMMIT}" / file, "{}")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(name: str, *, files: tuple[str, ...] = ("config.json",), error: Exception | None = None) -> list[str]:
    """Load something, which fails with an error or does not, and return what was said of it."""
    said: list[str] = []
    with heard(said.append), fetching(name, what=f"model {name!r}", way_out="do without", files=files):
        if error is not None:
            raise error
    return said


@pytest.mark.usefixtures("online")
def test_a_closed_port_is_tried_once_and_answered_in_a_line() -> None:
    host = constants.ENDPOINT.removeprefix("http://")
    said: list[str] = []
    for name in ("a/b", "a/b", "a/c"):
        with pytest.raises(DataError) as raised, heard(said.append):
            load_tokenizer(name)
        assert str(raised.value) == (
            f"tokenizer '{name}' (revision main): cannot be loaded: it is not in the cache ({constants.HF_HUB_CACHE}), and"
            f" {host} cannot be reached;"
            f" run `hf download {name}` where there is a network and copy the cache, or set prepare.tokenizer to a folder, and"
            " backbone.name too, with backbone.source: local"
        )
    assert said == [f"fetching a/b from {host}"]  # after which the process is as under HF_HUB_OFFLINE=1
    assert is_offline_mode()


def test_a_hub_that_hangs_is_given_up(online: pytest.MonkeyPatch, serve: Callable[..., Server]) -> None:
    online.setattr(hub, "SECONDS", 0.2)
    server = serve(answers=False)
    for _ in range(2):
        with pytest.raises(DataError, match=r"127.0.0.1:\d+ cannot be reached; run `hf download a/b` where"):
            load("a/b", error=OSError("no such file"))
    assert server.asked == ["/"]


def test_a_variable_says_how_long_to_wait(online: pytest.MonkeyPatch, serve: Callable[..., Server]) -> None:
    online.setattr(hub, "SECONDS", 3600.0)
    online.setenv("HF_HUB_ETAG_TIMEOUT", "0.2")
    serve(answers=False)
    with pytest.raises(DataError, match="cannot be reached"):
        load("a/b", error=OSError("no such file"))


def test_a_hub_that_answers_is_asked_once_and_errors_are_the_library_s(serve: Callable[..., Server]) -> None:
    server = serve(answers=True)
    assert load("a/b") == [f"fetching a/b from {server.endpoint.removeprefix('http://')}"]
    for error in (OSError("not on the hub"), DataError("no model")):
        with pytest.raises(type(error), match=str(error)):
            load("a/b", error=error)
    assert server.asked == ["/"]
    assert not is_offline_mode()


def test_offline_nothing_is_asked_or_said(online: pytest.MonkeyPatch, serve: Callable[..., Server]) -> None:
    server = serve(answers=True)
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("a/b") == []
    message = (
        r"^model 'a/b': cannot be loaded: it is not in .*cache\), and HF_HUB_OFFLINE is set; run `hf .*` where .* do without$"
    )
    with pytest.raises(DataError, match=message):
        load("a/b", error=OSError("no such file"))
    with pytest.raises(DataError, match="a line of its own"):
        load("a/b", error=DataError("a line of its own"))
    assert server.asked == []


@pytest.mark.usefixtures("online")
def test_what_is_in_the_cache_is_used_without_a_network() -> None:
    cached("a/b", "config.json")
    host = constants.ENDPOINT.removeprefix("http://")
    assert load("a/b") == [f"note: {host} cannot be reached; what is in the cache is used"]
    assert load("a/b") == []
    with pytest.raises(OSError, match="damaged"):
        load("a/b", error=OSError("damaged"))
    with pytest.raises(DataError, match="not in the cache"):  # of which another file is there
        load("a/b", files=("model.safetensors",), error=OSError("no such file"))


def test_what_is_in_the_cache_is_not_said_to_be_fetched(serve: Callable[..., Server]) -> None:
    serve(answers=True)
    cached("a/b", "config.json")
    assert load("a/b") == []


@pytest.mark.usefixtures("online")
def test_of_folders_and_what_is_no_id_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b", str(tmp_path), "a/b/c", "../a"):
        assert load(name) == []
        with pytest.raises(OSError, match="no such file"):
            load(name, error=OSError("no such file"))
    assert not is_offline_mode()


@pytest.mark.parametrize(
    ("name", "said", "what"),
    [
        ("o/config", "fetching o/config from ", r"backbone.name 'o/config': .* set backbone.name to a folder, with"),
        ("o/model", "note: ", r"backbone.name 'o/model': .* run `hf download o/model --revision abc`"),
        ("all-mpnet", "fetching all-mpnet from ", r"encoder 'all-mpnet': .* did you mean sentence-transformers/all-.*`tfidf`"),
        ("o/data", "fetching o/data from ", r"o/data: cannot be read from the hub: 127.0.0.1:\d+ cannot be reached; check its"),
    ],
)
@pytest.mark.usefixtures("online")
def test_whatever_is_loaded_is_fetched_so(name: str, said: str, what: str) -> None:
    loads: dict[str, Callable[[str], object]] = {
        "o/config": pretrained_config,
        "o/model": weights_of,
        "all-mpnet": encoder,
        "o/data": rows,
    }
    heard_of: list[str] = []
    with pytest.raises(DataError, match=what), heard(heard_of.append):
        loads[name](name)
    assert heard_of[0].startswith(said)


def weights_of(name: str) -> None:
    cached(name, "config.json")
    snapshot = Path(constants.HF_HUB_CACHE) / "models--o--model"
    (snapshot / "refs/abc").write_text(COMMIT)
    config = '{"model_type": "t5", "d_model": 16, "num_layers": 1, "vocab_size": 64, "decoder_start_token_id": 0}'
    (snapshot / f"snapshots/{COMMIT}/config.json").write_text(config)
    load_pretrained(name, revision="abc")


def encoder(name: str) -> None:
    SentenceEncoder(name, revision="main", device="cpu")


def rows(name: str) -> None:
    open_splits(DataSet(name), text=(), max_rows=None)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("all-mpnet", "sentence-transformers/all-mpnet-base-v2"),
        ("all-MiniLM", "sentence-transformers/all-MiniLM-L6-v2"),
        ("flan-t5-small", "google/flan-t5-small"),
        ("google/flan-t5-smal", "google/flan-t5-small"),
        ("Google/Flan-T5-Small", "google/flan-t5-small"),
    ],
)
def test_a_name_that_is_near_another_is_asked_about(name: str, meant: str) -> None:
    assert did_you_mean(name) == f"did you mean {meant}?"


@pytest.mark.parametrize("name", ["google/flan-t5-small", "t5-small", "gpt2", "my-group/flan-t5-base-of-ours", "x"])
def test_of_other_names_nothing_is_asked(name: str) -> None:
    assert did_you_mean(name) == ""


def test_a_folder_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all-mpnet").mkdir()
    assert did_you_mean("all-mpnet") == ""


def test_the_command_line_says_it_first_and_ends_with_a_line(
    online: pytest.MonkeyPatch, project: Path, run: Run, capfd: Capture
) -> None:
    host = constants.ENDPOINT.removeprefix("http://")
    assert run("prepare", "--set", "prepare.tokenizer=google/flan-t5-small", "-C", project) == 2
    first, last = capfd.readouterr().err.splitlines()
    assert first == f"fetching google/flan-t5-small from {host}"
    assert last.startswith(
        "error: prepare.tokenizer 'google/flan-t5-small' (revision main): cannot be loaded: it is not in the cache ("
    )
    online.setenv("RANK", "1")
    online.setattr(constants, "HF_HUB_OFFLINE", False)
    hub._say_once.cache_clear()
    assert run("prepare", "--set", "prepare.tokenizer=google/flan-t5-small", "-C", project) == 2
    assert "fetching" not in capfd.readouterr().err
