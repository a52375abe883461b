"""DVC from the inside: the only module of a run that touches what DVC does not promise to keep, but for `internals.py`.

That one names all of it, and it is checked before use. Where it is no longer as tested, `InternalsError` is raised, and a run
goes by DVC's command line (see `fallback.py`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

from mhrctl.errors import ArtifactError, DataError
from mhrctl.running.internals import check_internals, dvc_silent, params_parsed_once, stage_errors
from mhrctl.running.pipeline import Command, StageError, StageFiles, State
from mhrctl.running.plan import MISSING, difference

STAGE_CHANGES = {"changed command": "command changed", "changed checksum": "stage changed", "always changed": "always runs"}
ITEM_CHANGES = {"modified": "changed", "deleted": "missing", "new": "not recorded yet"}
DUMP_EVERY = 1.0
"""Seconds between writes of dvc.lock, or ten times what one takes."""


@contextmanager
def open_pipeline(project: Path, targets: Sequence[str]) -> Iterator[DvcPipeline]:
    """Open the stages that targets need; the working directory is the project's until the context ends.

    Raises:
        ArtifactError: if the project is not under DVC.
        DataError: if DVC cannot read its files, or a target is unknown.
        InternalsError: if DVC is not as tested.
    """
    check_internals()
    from dvc.exceptions import DvcException, NotDvcRepoError, PrettyDvcException
    from dvc.repo import Repo

    with ExitStack() as stack:
        stack.enter_context(chdir(project))
        stack.enter_context(dvc_silent())
        stack.enter_context(params_parsed_once())
        try:
            repo = stack.enter_context(Repo(_wait_for_lock=True))
            pipeline = DvcPipeline(repo, targets)
        except NotDvcRepoError:
            raise ArtifactError(f"{project.resolve()}: not a DVC project; run `mhrctl init` (or `dvc init`)") from None
        except PrettyDvcException as error:
            raise DataError(f"{' '.join(str(error).split())}; `dvc status` says where") from None
        except DvcException as error:
            raise DataError(" ".join(str(error).split())) from None
        stack.callback(pipeline.release_all)
        yield pipeline


class DvcPipeline:
    """The stages that targets need, run as `dvc repro` runs them (see `mhrctl.running.pipeline.Pipeline`)."""

    def __init__(self, repo: Any, targets: Sequence[str]) -> None:  # noqa: ANN401 - DVC's Repo
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

        self._repo = repo
        self.folder = Path(repo.tmp_dir) / "mhrctl"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.session():
            _drop_torn_rwlock(Path(repo.tmp_dir) / "rwlock")
            whole = repo.index.graph
            graph = get_active_graph(graph=whole)  # a frozen stage has no dependencies in it
            here = [] if targets else [stage for stage in repo.index.stages if stage.path == str(Path("dvc.yaml").absolute())]
            order = plan_repro(graph=graph, stages=here or collect_stages(repo=repo, targets=targets or ["dvc.yaml"]))
            self._stages = {stage.addressing: stage for stage in order}
            self._upstream = {stage.addressing: list(graph.successors(stage)) for stage in order}
            self.names: list[str] = list(self._stages)
            self.needs: dict[str, frozenset[str]] = _edges(graph, order)
            self.after: dict[str, frozenset[str]] = _edges(whole, order)
        self._held: dict[str, ExitStack] = {}
        self._recorded: dict[str, Any] = {}
        self._locked_before: dict[str, frozenset[str]] = {}
        self._appended: dict[str, list[str]] = defaultdict(list)
        self._dumped_at, self._dump_every = time.monotonic(), DUMP_EVERY

    def release_all(self) -> None:
        """Give all paths free that a run cut short still holds."""
        if self._held:
            with self.session():
                for name in list(self._held):
                    self.release(name)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold DVC's lock; everything below is called within."""
        from dvc.repo import lock_repo

        with lock_repo(repo=self._repo), self._repo.scm_context(quiet=True):
            yield

    def job(self, name: str) -> str:
        """The stage's address from the root of the DVC project."""
        stage = self._stages[name]
        inner = getattr(stage, "name", None)
        if inner is None:
            return str(stage.path_in_repo)
        return inner if stage.path_in_repo == "dvc.yaml" else f"{stage.path_in_repo}:{inner}"

    def files_of(self, job: str) -> StageFiles:
        """What a job's stage reads and writes, as it is now; for a dependency inside an output, the whole output."""
        from dvc.dependency.param import ParamsDependency

        stage = next(stage for name, stage in self._stages.items() if self.job(name) == job)
        root, cache = Path(self._repo.root_dir), self._repo.cache.local
        outs = {Path(out.fs_path): out for other in self._stages.values() for out in other.outs}

        def inside(items: Iterable[Any]) -> list[str]:
            return [Path(item.fs_path).relative_to(root).as_posix() for item in items if item.is_in_repo]

        params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        deps: dict[str, str | None] = {}
        with stage_errors(), _as_now(stage):
            for dep in (dep for dep in stage.deps if dep not in params and dep.is_in_repo):
                out = next((outs[path] for path in Path(dep.fs_path).parents if path in outs), None)
                found = out.get_hash() if out else dep.hash_info
                held = found.name == "md5" and cache.exists(found.value)
                deps[inside([out or dep])[0]] = found.value if held else None
        return StageFiles(deps, inside(params), inside(stage.outs))

    def examine(self, name: str) -> State | None:
        """Whether a stage's command must run; sources, imports and frozen stages go DVC's own way."""
        stage = self._stages[name]
        with stage_errors():
            if not stage.cmd or stage.frozen:
                if not stage.reproduce(upstream=self._upstream[name]):
                    return State.UNCHANGED
                self._recorded[name] = stage
                return State.DONE
            return None if _status(stage) else State.UNCHANGED

    def reasons(self, name: str) -> list[str]:
        """Why a stage's command would run as its inputs and outputs are now; empty if it would not."""
        stage = self._stages[name]
        with stage_errors():
            status = _status(stage)
            if stage.cmd and status and not any(item.hash_info for item in (*stage.deps, *stage.outs)):
                return ["always runs"] if "always changed" in status else ["never ran"]
            found = []
            for change in status:
                if isinstance(change, str):
                    found.append(STAGE_CHANGES.get(change, change))
                else:
                    found += [line for kind, paths in change.items() for line in _item_reasons(stage, kind, paths)]
            return found

    def key(self, name: str) -> str:
        """Hash of a stage's command, dependencies and parameters as they are now, and of the names of its outputs."""
        from dvc.stage.serialize import to_single_stage_lockfile

        stage = self._stages[name]
        with stage_errors(), _as_now(stage):
            entry = to_single_stage_lockfile(stage=stage)
        entry["outs"] = [out["path"] for out in entry.get("outs", [])]
        return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()

    def foresee(self, name: str) -> bool:
        """Whether the run-cache has a stage's outputs for the inputs as they are now."""
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        if not stage.cmd:
            return False
        with stage_errors():
            keep = not stage.changed_stage() and stage.deps_cached()
            with _as_now(stage, forget_outs=not keep):  # else DVC takes the old outputs for those of the new inputs
                try:
                    self._repo.stage_cache.restore(stage=stage, dry=True)
                except RunCacheNotFoundError:
                    return False
        return True

    def restore(self, name: str) -> bool:
        """Restore and record the outputs of a stage from the run-cache, if they are there."""
        from dvc.stage.cache import RunCacheNotFoundError

        if not self.foresee(name):
            return False
        stage = self._stages[name]
        with stage_errors():
            stage.remove_outs(ignore_remove=False, force=False)
            try:
                self._repo.stage_cache.restore(stage=stage, dry=False)
            except RunCacheNotFoundError:
                return False
        self.record(name, self.key(name))
        return True

    def begin(self, name: str) -> Command:
        """Remove a stage's old outputs and say what to run: each line in a shell of its own, as DVC does."""
        from dvc.stage.run import _enforce_cmd_list, _make_cmd, get_executable, prepare_kwargs

        stage = self._stages[name]
        with stage_errors():
            stage.remove_outs(ignore_remove=False, force=False)
            around = prepare_kwargs(stage=stage)
        lines = [shlex.join(_make_cmd(executable=get_executable(), cmd=line)) for line in _enforce_cmd_list(cmd=stage.cmd)]
        env = {name: value for name, value in around["env"].items() if os.environ.get(name) != value}
        return Command(" &&\n".join(lines), str(Path(around["cwd"]).absolute()), env)

    def hold(self, name: str) -> None:
        """Tell other DVC processes that a stage's paths are busy."""
        from dvc.rwlock import rwlock

        stage, stack = self._stages[name], ExitStack()
        with stage_errors():
            stack.enter_context(
                rwlock(
                    tmp_dir=self._repo.tmp_dir,
                    fs=self._repo.fs,
                    cmd=f"mhrctl run: {name}",
                    read=[dep.fs_path for dep in stage.deps],
                    write=[out.fs_path for out in stage.outs],
                    hardlink=self._repo.config["core"].get("hardlink_lock", False),
                )
            )
        self._held[name] = stack

    def release(self, name: str) -> None:
        """Give a stage's paths free."""
        with suppress(StageError, AssertionError), stage_errors():  # people remove DVC's list of busy paths, as it says
            self._held.pop(name, ExitStack()).close()

    def untouched(self, name: str, since: Path) -> bool:
        """Whether a stage's outputs are all there, and nothing has changed them since a file was written."""
        moment = since.stat().st_ctime_ns
        for out in self._stages[name].outs:
            root = Path(out.fs_path)
            if not root.exists():
                return False
            if any(path.lstat().st_ctime_ns > moment for path in (root, *root.rglob("*"))):
                return False
        return True

    def fingerprint(self, name: str) -> str:
        """The content of a stage's outputs; empty if one is missing."""
        outs = self._stages[name].outs
        with stage_errors():
            return json.dumps({out.def_path: out.get_hash().value for out in outs}) if all(out.exists for out in outs) else ""

    def record(self, name: str, key: str | None) -> State:
        """Record what a stage's command wrote, unless its inputs are no longer those that it began with."""
        if self.key(name) != key:
            raise StageError("its inputs changed while it ran: not recorded; run again")
        stage = self._stages[name]
        with stage_errors():  # the run-cache is not for stages with plain outputs outside of the cache
            stage.save(run_cache=all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs))
            stage.commit()
        self._recorded[name] = stage
        return State.DONE

    def due(self) -> bool:
        """Whether something was recorded that should go to dvc.lock now; a write takes time, so many stages share it."""
        return bool(self._recorded) and time.monotonic() - self._dumped_at >= self._dump_every

    def dump(self, *, last: bool) -> list[str]:
        """Write dvc.lock for all that was recorded since the last time, if it is long enough ago."""
        start = time.monotonic()
        if last or self.due():
            written, self._recorded = self._recorded, {}
            by_file: dict[str, list[Any]] = defaultdict(list)
            for stage in written.values():
                by_file[stage.path].append(stage)
            for path, stages in by_file.items():
                if getattr(stages[0], "name", None) is None:  # a .dvc file
                    stages[0].dvcfile.dump_stages(stages=stages, update_pipeline=False)
                else:
                    self._dump_lock(path, stages)
            if last:
                self._sort_locks()
            self._dumped_at = time.monotonic()
            self._dump_every = max(DUMP_EVERY, 10 * (self._dumped_at - start))
            return list(written)
        return []

    def _dump_lock(self, path: str, stages: Sequence[Any]) -> None:
        """Write the entries of stages to the lock file of a dvc.yaml, whole or not at all."""
        from dvc.dvcfile import Lockfile

        before = self._locked_before.get(path)
        if before is None:
            before = self._locked_before[path] = _lock_entries(Path(path).with_suffix(".lock"))
        new = [stage.name for stage in stages if stage.name not in before]
        self._appended[path] += [name for name in new if name not in self._appended[path]]
        with self._replacing_lock(path) as aside:
            Lockfile(repo=self._repo, path=str(aside)).dump_stages(stages=stages)

    def _sort_locks(self) -> None:
        """Put the entries that a run has added into the order in which `dvc repro` adds them."""
        from dvc.utils.serialize import modify_yaml

        for path, names in self._appended.items():
            wanted = [stage.name for stage in self._stages.values() if stage.path == path and stage.name in names]
            if names != wanted:
                with self._replacing_lock(path) as aside, modify_yaml(path=str(aside)) as data:
                    for name in wanted:
                        data["stages"][name] = data["stages"].pop(name)
                self._appended[path] = wanted

    @contextmanager
    def _replacing_lock(self, path: str) -> Iterator[Path]:
        """Change a lock file aside: DVC writes in place, and a run killed in the midst of it would leave half a file."""
        lock = Path(path).with_suffix(".lock")
        aside = self.folder / "dvc.lock"
        aside.unlink(missing_ok=True)
        if lock.exists():
            shutil.copy(lock, aside)
        yield aside
        aside.replace(lock)
        self._repo.scm_context.track_file(paths=os.path.relpath(lock))


def _lock_entries(lock: Path) -> frozenset[str]:
    """The stages in a lock file: its keys two spaces deep, since reading all of a long one takes seconds."""
    text = lock.read_text() if lock.exists() else ""
    return frozenset(key.strip("'\"") for key in re.findall(r"^  (\S.*):$", text, re.MULTILINE))


def _edges(graph: Any, stages: Sequence[Any]) -> dict[str, frozenset[str]]:  # noqa: ANN401
    """{stage: what it depends on} among some stages."""
    chosen = set(stages)
    return {
        stage.addressing: frozenset(upstream.addressing for upstream in graph.successors(stage) if upstream in chosen)
        for stage in stages
    }


def _item_reasons(stage: Any, kind: str, paths: Mapping[str, Any]) -> Iterator[str]:  # noqa: ANN401
    """What `dvc status` says of dependencies, parameters or outputs, in words."""
    for path, change in paths.items():
        if isinstance(change, str):
            yield f"{'output' if kind == 'changed outs' else 'dependency'} {path} {ITEM_CHANGES.get(change, change)}"
            continue
        params = next(dep for dep in stage.deps if str(dep) == path)
        before, now = params.hash_info.value or {}, params.read_params()
        for param in change:
            yield f"params changed: {path} {'; '.join(difference(param, before.get(param, MISSING), now.get(param, MISSING)))}"


def _status(stage: Any) -> list[Any]:  # noqa: ANN401
    """What `dvc status` says of a stage, without the two writes of DVC's rwlock file that it makes for each."""
    found: dict[str, list[Any]] = inspect.unwrap(type(stage).status)(stage)
    return found.get(stage.addressing, [])


def _drop_torn_rwlock(path: Path) -> None:
    """Remove DVC's list of busy paths if a process was killed while it wrote it: DVC itself then does nothing at all."""
    try:
        json.loads(path.read_text())
    except FileNotFoundError:
        pass
    except ValueError:
        path.unlink()


@contextmanager
def _as_now(stage: Any, *, forget_outs: bool = False) -> Iterator[None]:  # noqa: ANN401
    """A stage with its dependencies as they are now, and as recorded again afterwards."""
    from dvc_data.hashfile.hash_info import HashInfo

    recorded = [(item, item.hash_info, item.meta) for item in (*stage.deps, *stage.outs)]
    try:
        stage.save_deps()
        for out in stage.outs if forget_outs else ():
            out.hash_info = HashInfo()
        yield
    finally:
        for item, hash_info, meta in recorded:
            item.hash_info, item.meta = hash_info, meta
