"""What mhrctl uses of DVC beyond its command line, what each name is for, and the check that it is there as tested.

Of a run, `engine.py` alone imports DVC. What has no name here is done by DVC's public commands and methods, or as DVC documents
it. Seconds are of 402 stages in one dvc.yaml, and would otherwise be spent for each of them.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from typing import Any

from packaging.specifiers import SpecifierSet

from mhrctl.errors import MhrctlError

TESTED = SpecifierSet(">=3.66.1,<4")  # the versions of DVC whose internals are known to be as below

INTERNALS: dict[str, tuple[str, ...] | None] = {
    # One process and one reading of the graph for all stages; a `dvc repro --single-item` of its own takes 1.2 s and 2.3 s more
    # to write dvc.lock, one after the other: 1,400 s, a quarter of the time of 402 one-minute cells, four at once.
    "dvc.exceptions:DvcException": None,
    "dvc.repo:Repo": ("_wait_for_lock",),
    "dvc.repo:lock_repo": ("repo",),
    # The promise that targets are those of `dvc repro`, frozen stages included, and that dvc.lock comes out in its order.
    "dvc.repo.reproduce:collect_stages": ("repo", "targets"),
    "dvc.repo.reproduce:get_active_graph": ("graph",),
    "dvc.repo.reproduce:plan_repro": ("graph", "stages"),
    # Whether a stage changed, in 2 ms; `Repo.status` of one takes 0.4 s, and says "busy" of what another run works on.
    "dvc.stage:Stage.status": ("self",),
    # Stages that run whatever their files are: of others it is noted that they are up to date.
    "dvc.stage:Stage.is_callback": None,
    # Reasons of a plan: what a parameter was, and is.
    "dvc.dependency.param:ParamsDependency.read_params": ("self",),
    "dvc.stage:Stage.params": None,
    # The key of the inputs at the start of a command: by it a job is adopted, or its result taken, after a kill, and a result
    # is not recorded for inputs that were edited meanwhile. The hash of outputs tells whether they are as the job left them.
    "dvc.stage:Stage.save_deps": ("self",),
    "dvc.output:Output.get_hash": ("self",),
    # The run-cache as `dvc repro` uses it, but that old outputs stay until their stage starts, and that a plan can ask.
    "dvc.stage:Stage.remove_outs": ("self", "ignore_remove", "force"),
    "dvc.stage.cache:StageCache.restore": ("self", "stage", "dry"),
    # Recording in 0.03 s, and one write of dvc.lock (2.3 s) for many stages; `Repo.commit` takes 2.8 s of DVC's lock a stage:
    # 1,100 s. The write is done aside, so that dvc.lock is replaced whole, and then made known to `core.autostage`.
    "dvc.stage:Stage.save": ("self", "run_cache"),
    "dvc.stage:Stage.commit": ("self",),
    "dvc.dvcfile:Lockfile": ("repo", "path"),
    "dvc.dvcfile:Lockfile.dump_stages": ("self", "stages"),
    "dvc.repo.scm_context:SCMContext.__call__": ("self", "quiet"),
    "dvc.repo.scm_context:SCMContext.track_file": ("self", "paths"),
    # The promise that `dvc repro` and `dvc status` say of a stage that runs that its files are busy.
    "dvc.rwlock:rwlock": ("tmp_dir", "fs", "cmd", "read", "write", "hardlink"),
    # Jobs in checkouts: what the cache holds is pushed by its hash, and not copied and hashed again for every job.
    "dvc_data.hashfile.db:HashFileDB.exists": ("self", "oid"),
}
"""{name: the arguments that it is called with here, or None for what is not called}."""


class InternalsError(MhrctlError):
    """DVC's internals are not as tested."""


def check_internals() -> None:
    """Check that DVC is as this module uses it.

    Raises:
        InternalsError: with what is not.
    """
    if version("dvc") not in TESTED:
        raise InternalsError(f"dvc {version('dvc')} is not among the tested versions ({TESTED})")
    with redirect_stdout(sys.stdout), redirect_stderr(sys.stderr):  # importing DVC wraps them; this puts them back
        for name, arguments in INTERNALS.items():
            module, path = name.split(":")
            try:
                item: Any = importlib.import_module(module)
                for part in path.split("."):
                    item = getattr(item, part)
                if arguments is not None:
                    inspect.signature(item).bind(**dict.fromkeys(arguments))
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                raise InternalsError(f"dvc {version('dvc')}: {path} of {module} is not as tested ({error})") from None


@contextmanager
def silent_dvc() -> Iterator[None]:
    """Keep DVC from logging until the context ends: what fails is raised, and whoever called says it."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, ("dvc", "dvc_objects", "dvc_data")):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield
