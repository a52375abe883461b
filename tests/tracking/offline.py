"""A training with a tracker, in a process of its own that reaches nothing but this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

CELL = "lora-s0"
NAME = f"pretrain-{CELL}"
LOSSES = [1, 2, 3, 4]
"""The steps of a whole training of a project of the tests."""
SCRIPT = """
import socket, sys

def here(host):
    return host in (None, "", "localhost", "127.0.0.1", "::1", b"localhost")

def guarded(call, host_of):
    def guard(*arguments, **rest):
        host = host_of(*arguments)
        if not here(host):
            print(f"asked the network for {host}", file=sys.stderr, flush=True)
            raise OSError(f"no network, not even for {host}")
        return call(*arguments, **rest)
    return guard

def host_of(stream, address):
    return None if stream.family == socket.AF_UNIX else address[0]

socket.socket.connect = guarded(socket.socket.connect, host_of)
socket.socket.connect_ex = guarded(socket.socket.connect_ex, host_of)
socket.getaddrinfo = guarded(socket.getaddrinfo, lambda host, *_: host)

from contextlib import nullcontext
from mhrctl.evaluation import pretraining
from tests.conftest import killed_after_checkpoint, mhrctl

pretraining.CHECKPOINT_EVERY = 2
with killed_after_checkpoint() if sys.argv[1] == "killed" else nullcontext():
    sys.exit(mhrctl(*sys.argv[2:]))
"""
UNSET = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "DO_NOT_TRACK", "DVC_STUDIO_OFFLINE", "WANDB_MODE")
"""By some of these, trackers keep from the network by themselves, which would be no proof."""


def tracked(project: Path, tracker: str, *, killed: bool = False) -> str:
    """Pre-train with a tracker; returns what was printed.

    Args:
        project: of the tests, with its backbone.
        tracker: of `--track`.
        killed: whether the training is killed at its first checkpoint.
    """
    with _proxy() as (address, asked):
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
        arguments = ["pretrain", "-m", "lora", "--set", "pretrain.log_every=1", "--track", tracker, "--force", "-C", project]
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT, "killed" if killed else "whole", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=kept | proxies | {"NO_PROXY": "localhost,127.0.0.1"},
        )
    assert ran.returncode == (130 if killed else 0), ran.stderr
    assert "asked the network" not in ran.stderr, ran.stderr
    assert not asked, "a process that the tracker has started asked the network"
    assert "records no more" not in ran.stderr, ran.stderr
    return ran.stdout + ran.stderr


@contextmanager
def _proxy() -> Iterator[tuple[str, list[object]]]:
    """A proxy for processes in other languages, such as W&B's: it answers nothing, and lists who has come."""
    asked: list[object] = []

    def wait() -> None:
        while True:
            try:
                stream, peer = server.accept()
            except OSError:
                return
            asked.append(peer)
            stream.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=wait, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
