"""`python -m mhrctl` is the command `mhrctl`, and this is where both begin.

Nothing but the standard library's smallest is imported before Ctrl-C has an answer: a signal that comes while the rest is
imported would otherwise show a traceback of whatever module was at work. Nothing is written by then, so the process just ends.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def end_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
    """End the process, which has begun nothing yet."""
    os.write(2, b"error: interrupted\n" if number == signal.SIGINT else b"error: terminated\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and shells in the background ask for
            signal.signal(number, end_at_once)
    from mhrctl.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
