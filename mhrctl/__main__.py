"""`python -m mhrctl` is the command `mhrctl`, and this is where both begin.

Nothing but the standard library's smallest is imported before Ctrl-C has an answer: a signal that comes while the rest is
imported would otherwise show a traceback of whatever module was at work. Nothing is written by then, so the process just ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType

IMPORTED = {
    "average": ("mhrctl.cli.app", "torch", "mhrctl.stages.average"),
    "prepare": ("transformers", "pandas", "mhrctl.stages.prepare"),  # pyarrow looks for pandas when it makes its first table
    "index": ("mhrctl.stages.index",),
    "evaluate": ("transformers.models.t5.modeling_t5", "rouge_score.rouge_scorer", "mhrctl.stages.evaluate"),
    "adapt": ("mhrctl.stages.adapt",),
    "pretrain": ("mhrctl.stages.pretrain",),
    "backbone": ("mhrctl.stages.backbone",),
}
"""{stage: modules that are slow to import}, in their order: a fork server imports them once a run (see `running.forked`)."""


class Ending:
    """The last that a process does: it leaves its modules as they are, which the interpreter takes apart for a second.

    It is registered first, and so comes last of what is to be done at the exit.
    """

    def __init__(self) -> None:
        self.code = 0
        atexit.register(self.leave)

    def leave(self) -> None:
        """End the process, unless its output cannot be written, which the interpreter then says."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return
        os._exit(self.code)


def end_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
    """End the process, which has begun nothing yet; a shell that it completes a word for shows nothing of that."""
    if "_MHRCTL_COMPLETE" not in os.environ:
        os.write(2, b"error: interrupted\n" if number == signal.SIGINT else b"error: terminated\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command line, or have it run by the fork server of the run that it is part of."""
    ending = Ending()
    _heed_signals()
    if sys.argv[1:2] == ["--forkserver"]:
        from pathlib import Path

        from mhrctl.running.forkserver import serve

        sys.argv[1:] = serve(Path(sys.argv[2]), int(sys.argv[3]), IMPORTED, then=_compile_patterns)
        _heed_signals()
        from mhrctl.cli.display import look_again

        look_again()
    elif "DVC_STAGE" in os.environ:
        from mhrctl.running.forked import end_like, run_forked

        if (ended := run_forked(sys.argv[1:], starts=IMPORTED)) is not None:
            end_like(ended)
    from mhrctl.cli.app import main as run

    try:
        run()
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        ending.code = code if isinstance(code, int) else 0 if code is None else 1
        raise


def _compile_patterns() -> None:
    """Have transformers compile its thousand patterns of weights' names, which it keeps, before it loads a first model."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("t5")


def _heed_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and shells in the background ask for
            signal.signal(number, end_at_once)


if __name__ == "__main__":
    main()
