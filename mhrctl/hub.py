"""What comes from the Hugging Face hub is fetched in here: that is said before, and what cannot be had is said in one line.

The libraries that fetch try a hub that cannot be reached again and again, for a minute, and for every file. So whether it can
be reached is tried once; if not, the process goes on as under HF_HUB_OFFLINE=1: with what is in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from threading import Thread

from mhrctl.errors import DataError, MhrctlError, listed, nearest
from mhrctl.progress import Warn, unheard

SECONDS = 5.0
"""The hub has so long to answer, unless HF_HUB_ETAG_TIMEOUT, which its own client goes by, says how long."""
SIZES = ("small", "base", "large", "xl", "xxl")
KNOWN = (
    *(f"google/{name}" for size in SIZES for name in (f"flan-t5-{size}", f"t5-v1_1-{size}", f"t5-{size}-lm-adapt")),
    *("t5-small", "t5-base", "t5-large", "bigscience/T0_3B", "bigscience/T0", "facebook/bart-base", "facebook/bart-large"),
    *("sentence-transformers/all-mpnet-base-v2", "sentence-transformers/all-MiniLM-L6-v2"),
)
"""Models that are often meant."""
LIKENESS = 0.8
"""So near to a model that is meant must a name with an owner be."""
_say: ContextVar[Warn] = ContextVar("mhrctl.hub.say", default=unheard)
_unreachable: set[str] = set()
"""Hubs that did not answer this process."""


@contextmanager
def heard(say: Warn) -> Iterator[None]:
    """Let what is fetched be said, in a line each."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


@contextmanager
def fetching(name: str, *, what: str, way_out: str, files: Collection[str] = (), revision: str | None = None) -> Iterator[None]:
    """Load what may be on the hub, of which nothing is asked that it cannot answer.

    Args:
        name: hub id; of a folder, nothing is asked.
        what: is loaded, with which errors begin.
        way_out: what else to do where there is no network.
        files: of a model, of which one is in the cache if what is wanted is; a data set, which is read as a stream, has none.
        revision: on the hub.

    Raises:
        DataError: if it is not in the cache, and the hub cannot be reached or is not to be asked.
    """
    from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache

    if Path(name).exists() or not _is_id(name):
        yield
        return
    is_cached = any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files)
    if not is_offline_mode():
        host = _host(constants.ENDPOINT)
        if not is_cached:
            _say_once(f"fetching {name} from {host}")
        if not _is_reachable(constants.ENDPOINT):
            _unreachable.add(host)
            constants.HF_HUB_OFFLINE = True  # by which the libraries go
            if is_cached:
                _say_once(f"note: {host} cannot be reached; what is in the cache is used")
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if is_cached or not is_offline_mode():
            raise
        why = f"{listed(sorted(_unreachable))} cannot be reached" if _unreachable else "HF_HUB_OFFLINE is set"
        if files:
            why = f"cannot be loaded: it is not in the cache ({_shortened(Path(constants.HF_HUB_CACHE))}), and {why}"
            hint = did_you_mean(name)
            download = f"run {_download(name, revision)} where there is a network and copy the cache, or"
            way_out = f"{hint}{' if not, ' if hint else ''}{download} {way_out}"
        raise DataError(f"{what}: {why}; {way_out}") from error


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Ask the hub for something, and say in one line why it refuses.

    Args:
        what: is asked, with which errors begin.

    Raises:
        DataError: if the hub refuses, or cannot be reached.
    """
    try:
        yield
    except MhrctlError:
        raise
    except Exception as error:
        if (why := _refusal(error)) is None:
            raise
        raise DataError(f"{what}: {why}") from error


def _refusal(error: Exception) -> str | None:
    """Why the hub does not do what it was asked for; None of an error that is none of the hub's."""
    from huggingface_hub import constants
    from huggingface_hub import errors as of_hub

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (of_hub.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set; unset it"),
        (of_hub.GatedRepoError, "its owner gives access on request; ask for it on the page of the repository"),
        (of_hub.RepositoryNotFoundError, f"there is no such repository, or it is private and {_token()} may not see it"),
        (of_hub.RevisionNotFoundError, "the repository has no such branch, tag or commit"),
        (of_hub.HFValidationError, f"no name of a repository ({error})"),
    )
    for kind, why in reasons:
        if isinstance(error, kind):
            return why
    if isinstance(error, of_hub.HfHubHTTPError):
        status = error.response.status_code
        hint = f"; see that {_token()} is valid and may write there" if status in (401, 403) else ""
        return (
            f"{_host(constants.ENDPOINT)} says {status}: {' '.join((error.server_message or str(error)).split())[:300]}{hint}"
        )
    if type(error).__module__.partition(".")[0].startswith("httpx"):
        return f"{_host(constants.ENDPOINT)} cannot be reached ({' '.join(str(error).split()) or type(error).__name__})"
    cause = error.__cause__  # the client makes an error of its own of that of an upload
    return _refusal(cause) if isinstance(cause, Exception) else None


def _token() -> str:
    return "the token (`hf auth login`, or HF_TOKEN)"


def did_you_mean(name: str) -> str:
    """Ask, for the end of an error, whether a model is meant that is near; nothing if none is, or it is a folder."""
    if name in KNOWN or Path(name).is_dir():
        return ""
    if "/" in name:
        close = nearest(name, KNOWN, likeness=LIKENESS)
    else:
        whole = {known.rpartition("/")[2]: known for known in KNOWN}
        tail = nearest(name, whole)
        close = whole[tail] if tail else None
    return f"did you mean {close}?" if close else ""


def _is_id(name: str) -> bool:
    """Whether a name can be one of the hub; of others, the libraries say more."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # it is documented, and not exported

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@cache
def _is_reachable(endpoint: str) -> bool:
    """Whether a hub answers anything; it is asked in a thread, since looking its name up has no time limit."""
    from huggingface_hub import get_session

    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or SECONDS)
    answers: list[object] = []

    def ask() -> None:
        with suppress(Exception):  # whatever a client, a proxy or a certificate fails with: there is no answer
            answers.append(get_session().head(endpoint, timeout=seconds, follow_redirects=False))

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(answers)


@cache
def _say_once(line: str) -> None:
    _say.get()(line)


def _host(endpoint: str) -> str:
    return endpoint.partition("://")[2].rstrip("/") or endpoint


def _download(name: str, revision: str | None) -> str:
    """The command that fetches a model into the cache."""
    return f"`hf download {name}{f' --revision {revision}' if revision not in (None, 'main') else ''}`"


def _shortened(folder: Path) -> str:
    """A folder as people write it."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
