"""`mhrctl` as one of several processes, which leaves a checkpoint every two steps and says where it went on from.

With KILLED_AFTER=4 the process that writes checkpoints is killed once it has written that of step 4.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from mhrctl.__main__ import main
from mhrctl.evaluation import pretraining
from mhrctl.training import checkpoint

pretraining.CHECKPOINT_EVERY = 2


def _save(*args: Any, step: int, **rest: Any) -> None:
    checkpoint.save_checkpoint(*args, step=step, **rest)
    if os.environ.get("KILLED_AFTER") == str(step):
        os.kill(os.getpid(), signal.SIGKILL)


def _load(*args: Any, **rest: Any) -> tuple[int, list[Any]]:
    step, log = checkpoint.load_checkpoint(*args, **rest)
    sys.stderr.write(f"process {os.environ['RANK']} goes on from step {step}\n")
    return step, log


pretrains: Any = pretraining
pretrains.save_checkpoint, pretrains.load_checkpoint = _save, _load

if __name__ == "__main__":
    main()
