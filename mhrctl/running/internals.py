"""What mhrctl uses of DVC beyond its command line: the check that it is there as tested, and how it is kept quiet and quick.

Nothing but this module and `engine.py` imports DVC.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from mhrctl.errors import MhrctlError
from mhrctl.running.pipeline import StageError

TESTED = SpecifierSet(">=3.66.1,<4")
"""The versions of DVC whose internals are known to be as below."""

INTERNALS: dict[str, tuple[str, ...] | None] = {
    "dvc.cachemgr:CacheManager": ("repo",),
    "dvc.dependency.base:Dependency.is_in_repo": None,
    "dvc.dependency.param:ParamsDependency": ("stage", "path", "params"),
    "dvc.dependency.param:load_path": ("fs_path", "fs"),
    "dvc.dependency.param:ParamsDependency.read_params": ("self",),
    "dvc.dvcfile:Lockfile": ("repo", "path"),
    "dvc.dvcfile:Lockfile.dump_stages": ("self", "stages"),
    "dvc.dvcfile:ProjectFile.dump_stages": ("self", "stages"),
    "dvc.dvcfile:SingleStageFile.dump_stages": ("self", "stages", "update_pipeline"),
    "dvc.exceptions:DvcException": None,
    "dvc.exceptions:NotDvcRepoError": None,
    "dvc.exceptions:PrettyDvcException": None,
    "dvc.output:Output.get_hash": ("self",),
    "dvc.output:Output.is_in_repo": None,
    "dvc.repo:Repo": ("_wait_for_lock",),
    "dvc.repo:lock_repo": ("repo",),
    "dvc.repo.reproduce:collect_stages": ("repo", "targets"),
    "dvc.repo.reproduce:get_active_graph": ("graph",),
    "dvc.repo.reproduce:plan_repro": ("graph", "stages"),
    "dvc.repo.scm_context:SCMContext.__call__": ("self", "quiet"),
    "dvc.repo.scm_context:SCMContext.track_file": ("self", "paths"),
    "dvc.rwlock:rwlock": ("tmp_dir", "fs", "cmd", "read", "write", "hardlink"),
    "dvc.stage:Stage.changed_stage": ("self",),
    "dvc.stage:Stage.commit": ("self",),
    "dvc.stage:Stage.deps_cached": ("self",),
    "dvc.stage:Stage.remove_outs": ("self", "ignore_remove", "force"),
    "dvc.stage:Stage.reproduce": ("self", "upstream"),
    "dvc.stage:Stage.save": ("self", "run_cache"),
    "dvc.stage:Stage.save_deps": ("self",),
    "dvc.stage:Stage.status": ("self",),
    "dvc.stage.cache:RunCacheNotFoundError": None,
    "dvc.stage.cache:StageCache.restore": ("self", "stage", "dry"),
    "dvc.stage.run:_enforce_cmd_list": ("cmd",),
    "dvc.stage.run:_make_cmd": ("executable", "cmd"),
    "dvc.stage.run:get_executable": (),
    "dvc.stage.run:prepare_kwargs": ("stage",),
    "dvc.stage.serialize:to_single_stage_lockfile": ("stage",),
    "dvc.utils.serialize:modify_yaml": ("path",),
    "dvc_data.hashfile.db:HashFileDB.exists": ("self", "oid"),
    "dvc_data.hashfile.hash_info:HashInfo": ("name", "value"),
    "dvc_objects.errors:ObjectDBError": None,
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
    with _stdio_kept():
        for name, arguments in INTERNALS.items():
            module, path = name.split(":")
            try:
                found: Any = importlib.import_module(module)
                for part in path.split("."):
                    found = getattr(found, part)
                if arguments is not None:
                    inspect.signature(found).bind(**dict.fromkeys(arguments))
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                raise InternalsError(f"dvc {version('dvc')}: {path} of {module} is not as tested ({error})") from None


@contextmanager
def stage_errors() -> Iterator[None]:
    """What DVC raises of one stage, as a `StageError` of one line."""
    from dvc.exceptions import DvcException
    from dvc_objects.errors import ObjectDBError

    try:
        yield
    except (DvcException, ObjectDBError, OSError) as error:
        raise StageError(" ".join(str(error).split()) or type(error).__name__) from error


@contextmanager
def params_parsed_once() -> Iterator[None]:
    """DVC parses a params file for every stage that names it; here each version of a file is parsed once."""
    from dvc.dependency import param

    original: Callable[..., Any] = param.load_path
    parsed: dict[str, tuple[tuple[int, ...], Any]] = {}

    def load_once(fs_path: str, fs: Any, **options: Any) -> Any:  # noqa: ANN401
        found = Path(fs_path).stat()
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if parsed.get(fs_path, (None,))[0] != stamp:
            parsed[fs_path] = stamp, original(fs_path, fs, **options)
        return parsed[fs_path][1]

    param.load_path = load_once
    try:
        yield
    finally:
        param.load_path = original


@contextmanager
def dvc_silent() -> Iterator[None]:
    """No messages, bars and warnings of DVC's: what fails is raised, and told by whoever asked."""
    levels = {name: logging.getLogger(name).level for name in ("dvc", "dvc_objects", "dvc_data")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _stdio_kept() -> Iterator[None]:
    """Importing DVC wraps sys.stdout and sys.stderr; put them back."""
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
