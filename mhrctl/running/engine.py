"""The pipeline within one process: DVC's graph is read once, a stage is examined in milliseconds, dvc.lock written for many.

What it uses of DVC beyond its command line is named in `internals.py`, with what each name is for, and checked before use.
Where it is no longer as tested, `InternalsError` is raised, and a run goes by DVC's command line (see `fallback.py`).
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
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from mhrctl.errors import DataError, unknown
from mhrctl.running.fallback import Graph, PublicPipeline, dvc_root
from mhrctl.running.internals import check_internals, silent_dvc
from mhrctl.running.jobs import Job, exit_code, read_record, write_record
from mhrctl.running.pipeline import StageError, StageFiles, State
from mhrctl.running.up_to_date import describing, fingerprint, write_up_to_date

STAGE_CHANGES = {"changed command": "command changed", "changed checksum": "stage changed", "always changed": "always runs"}
ITEM_CHANGES = {"modified": "changed", "deleted": "missing", "new": "not recorded yet"}
SHELL_OPTIONS = {"bash": ["--noprofile", "--norc"], "fish": ["--no-config"], "zsh": ["--no-rcs"]}
"""{shell: options by which DVC keeps a user's settings out of a command}."""
NO_STAGE = re.compile(r"Stage '(.+)' not found inside")
MISSING = object()
SHOWN = 3  # differing values of one section of parameters that are named
DUMP_EVERY = 1.0  # seconds between writes of dvc.lock, or ten times what one takes


@contextmanager
def open_pipeline(project: Path, targets: Sequence[str]) -> Iterator[DvcPipeline]:
    """Open the stages that targets need; the working directory is the project's until the context ends.

    Raises:
        ArtifactError: if the project is not under DVC.
        DataError: if DVC cannot read its files, or a target is unknown.
        InternalsError: if DVC is not as tested.
    """
    check_internals()
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with (
        chdir(project),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
        silent_dvc(),
        ExitStack() as stack,
    ):
        root = dvc_root()
        try:
            repo = stack.enter_context(Repo(_wait_for_lock=True))
            pipeline = DvcPipeline(root, repo, targets)
            stack.callback(pipeline.release_all)
            yield pipeline
        except DvcException as error:
            if missing := NO_STAGE.match(str(error)):
                names = [stage.addressing for stage in repo.index.stages]
                groups = dict.fromkeys(name.partition("@")[0] for name in names)
                raise DataError(unknown("stage", missing[1], [*groups, *names])) from None
            where = "; `dvc status` says where" if hasattr(error, "__pretty_exc__") else ""
            raise DataError(" ".join(str(error).split()) + where) from None


class DvcPipeline(PublicPipeline):
    """The stages that targets need (without any, those of the dvc.yaml here), run as `dvc repro` runs them."""

    def __init__(self, root: Path, repo: Any, targets: Sequence[str]) -> None:  # noqa: ANN401
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

        self._repo, self._dvc_yaml = repo, Path("dvc.yaml").absolute()
        self._describing = describing(self._dvc_yaml, root)
        self._described = fingerprint(self._describing)  # before it is read: an edit from here on is one while the run goes on
        with self.session():
            _drop_torn_rwlock(Path(repo.tmp_dir) / "rwlock")
            whole = repo.index.graph
            active = get_active_graph(graph=whole)  # a frozen stage has no dependencies in it
            here = [] if targets else [stage for stage in repo.index.stages if stage.path == str(self._dvc_yaml)]
            chosen = here or collect_stages(repo=repo, targets=targets or ["dvc.yaml"])  # which reads dvc.yaml once more
            order = plan_repro(graph=active, stages=chosen)
            self._stages = {stage.addressing: stage for stage in order}
        super().__init__(root, self._edges(active), self._edges(whole))
        self._held: dict[str, ExitStack] = {}
        self._recorded: dict[str, Any] = {}
        self._seen: dict[str, str] = {}  # {stage that is up to date: fingerprint of its files when that was seen}
        self._added: dict[str, list[str]] = defaultdict(list)  # {dvc.yaml: stages that dvc.lock did not have}
        self._next_dump = time.monotonic() + DUMP_EVERY

    def _edges(self, graph: Any) -> Graph:  # noqa: ANN401
        """{stage: what it depends on} among the stages of this pipeline."""
        edges = {name: [upstream.addressing for upstream in graph.successors(stage)] for name, stage in self._stages.items()}
        return {name: frozenset(upstream).intersection(self._stages) for name, upstream in edges.items()}

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold DVC's lock."""
        from dvc.repo import lock_repo

        with lock_repo(repo=self._repo), self._repo.scm_context(quiet=True):
            yield

    def files_of(self, job: str) -> StageFiles:
        """What a job's stage reads and writes, as it is now; for a dependency inside an output, the whole output."""
        stage = next(stage for name, stage in self._stages.items() if self.job(name) == job)
        root, cache = Path(self._repo.root_dir), self._repo.cache.local
        outs = {Path(out.fs_path): out for other in self._stages.values() for out in other.outs}

        def inside(items: Iterable[Any]) -> list[str]:
            paths = [Path(item.fs_path) for item in items]
            return [path.relative_to(root).as_posix() for path in paths if path.is_relative_to(root)]

        deps: dict[str, str | None] = {}
        with _stage_errors():
            for dep in [dep for dep in stage.deps if dep not in stage.params and inside([dep])]:
                item = next((outs[path] for path in Path(dep.fs_path).parents if path in outs), dep)
                hash_info = item.get_hash()
                held = hash_info.name == "md5" and cache.exists(hash_info.value)
                deps[inside([item])[0]] = hash_info.value if held else None
        return StageFiles(deps, inside(stage.params), inside(stage.outs))

    def examine(self, name: str) -> State | None:
        """Whether a stage's command must run; frozen stages and those of `.dvc` files are handed to DVC as they are."""
        stage = self._stages[name]
        with _stage_errors():
            if stage.frozen or stage.path.endswith(".dvc"):
                return State.DONE if self._repo.reproduce(targets=[name], single_item=True) else State.UNCHANGED
            before = fingerprint(_paths(stage))
            if _status(stage):
                return None
            self._seen[name] = before
            return State.UNCHANGED

    def reasons(self, name: str) -> list[str]:
        """Why a stage's command would run as its inputs and outputs are now; empty if it would not."""
        stage = self._stages[name]
        with _stage_errors():
            status = _status(stage)
            if stage.cmd and status and not any(item.hash_info for item in (*stage.deps, *stage.outs)):
                return ["always runs"] if "always changed" in status else ["never ran"]
            return [line for change in status for line in _in_words(stage, change)]

    def key(self, name: str) -> str:
        """Hash of a stage's command, dependencies and parameters as they are now, and of the names of its outputs."""
        with _stage_errors():
            stage = _as_now(self._stages[name])
            inputs = [(dep.def_path, dep.hash_info.value) for dep in stage.deps]
            entry = [stage.cmd, inputs, [out.def_path for out in stage.outs]]
            return hashlib.sha256(json.dumps(entry, sort_keys=True, default=str).encode()).hexdigest()

    def foresee(self, name: str) -> bool:
        """Whether DVC has a stage's outputs for the inputs as they are now; not if an input is missing."""
        stage = self._stages[name]
        with suppress(StageError), _stage_errors():
            now = _as_now(stage)
            if any("changed outs" not in change for change in _status(stage)):
                for (
                    out
                ) in now.outs:  # else DVC, which sees no change in `now`, takes the old outputs for those of the new inputs
                    out.hash_info = type(out.hash_info)()
            self._repo.stage_cache.restore(stage=now, dry=True)
            return True
        return False

    def restore(self, name: str) -> bool:
        """Restore and record the outputs of a stage from the run-cache, if they are there."""
        if not self.foresee(name):
            return False
        stage = self._stages[name]
        with _stage_errors():
            stage.remove_outs(ignore_remove=False, force=False)
            self._repo.stage_cache.restore(stage=stage, dry=False)
        self.record(name, self.key(name))
        return True

    def begin(self, name: str) -> Job:
        """Remove a stage's old outputs and return what to run: each line in a shell of its own, as DVC does."""
        stage = self._stages[name]
        with _stage_errors():
            stage.remove_outs(ignore_remove=False, force=False)
        shell = os.environ.get("SHELL") or "/bin/sh"
        options = SHELL_OPTIONS.get(Path(shell).name.lower(), [])
        lines = stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines()
        script = " &&\n".join(shlex.join([shell, *options, "-c", line]) for line in lines)
        env = {"DVC_ROOT": os.environ.get("DVC_ROOT", self._repo.root_dir), "DVC_STAGE": stage.addressing}
        return Job(self.job(name), script, str(Path(stage.wdir).absolute()), env, str(self.folder))

    def hold(self, name: str) -> None:
        """Keep a stage's paths busy for other DVC processes, which then say so."""
        from dvc.rwlock import rwlock

        stage = self._stages[name]
        reads, writes = [dep.fs_path for dep in stage.deps], [out.fs_path for out in stage.outs]
        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        with _stage_errors(), ExitStack() as stack:
            stack.enter_context(rwlock(self._repo.tmp_dir, self._repo.fs, f"mhrctl run: {name}", reads, writes, hardlink))
            self._held[name] = stack.pop_all()

    def release(self, name: str) -> None:
        """Give a stage's paths free, unless somebody has removed DVC's list of busy paths, as its message says."""
        with suppress(StageError), _stage_errors():
            self._held.pop(name, ExitStack()).close()

    def release_all(self) -> None:
        """Give all paths free that a run cut short still holds; else the interpreter would do so at its end, and hang in it."""
        if self._held:
            with self.session():
                for name in list(self._held):
                    self.release(name)

    def finished(self, name: str) -> bool:
        """Whether a job of an earlier run has ended well, and its outputs are as it left them.

        They are if nothing has changed them since it left its exit code. If a run was killed while it recorded them, in which
        DVC touches them, their content must be what was noted before.
        """
        files, roots = self.files(name), [Path(out.fs_path) for out in self._stages[name].outs]
        record = read_record(files)
        if record is None or exit_code(files) != 0 or not all(root.exists() for root in roots):
            return False
        moment = files.code.stat().st_ctime_ns
        if all(path.lstat().st_ctime_ns <= moment for root in roots for path in (root, *root.rglob("*"))):
            return True
        return bool(record.wrote) and self._fingerprint(name) == record.wrote

    def _fingerprint(self, name: str) -> str:
        """The content of a stage's outputs; empty if one is missing."""
        outs = self._stages[name].outs
        with _stage_errors():
            return json.dumps({out.def_path: out.get_hash().value for out in outs}) if all(out.exists for out in outs) else ""

    def record(self, name: str, key: str | None) -> State:
        """Record what a stage's command wrote, unless its inputs are no longer those that it began with."""
        stage, files = self._stages[name], self.files(name)
        if (note := read_record(files)) and note.key == key:
            write_record(files, replace(note, wrote=self._fingerprint(name)))
        if self.key(name) != key:
            raise StageError("its inputs changed while it ran: not recorded; run again")
        with _stage_errors():  # the run-cache is not for stages with plain outputs outside of the cache
            stage.save(run_cache=all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs))
            stage.commit()
        self._recorded[name] = stage
        self._seen[name] = fingerprint(_paths(stage))
        return State.DONE

    def note_up_to_date(self, targets: Sequence[str]) -> None:
        """Note that all stages are up to date, if they are and only files decide on it, for the next run to know."""
        files = map(str, [*self._describing, self._dvc_yaml.with_suffix(".lock")])
        paths = list(dict.fromkeys([*files, *(path for stage in self._stages.values() for path in _paths(stage))]))
        before = fingerprint(paths)  # then the check, so that what changes meanwhile is not noted as up to date
        unchanged = fingerprint(self._describing) == self._described
        if unchanged and all(self._is_settled(name) for name in self.names):
            write_up_to_date(self.folder, targets, stages=self.names, paths=paths, seen=before)

    def _is_settled(self, name: str) -> bool:
        """Whether a stage is up to date as long as files of this machine, and the dvc.yaml here, stay as they are."""
        stage = self._stages[name]
        always = stage.always_changed or stage.is_callback
        elsewhere = stage.path != str(self._dvc_yaml) or any("://" in item.def_path for item in (*stage.deps, *stage.outs))
        return not always and not elsewhere and self._seen.get(name) == fingerprint(_paths(stage))

    def due(self) -> bool:
        """Whether something was recorded that should go to dvc.lock now; a write takes time, so many stages share it."""
        return bool(self._recorded) and time.monotonic() >= self._next_dump

    def dump(self, *, last: bool) -> None:
        """Write dvc.lock for all that was recorded since the last time, if it is long enough ago; notes of jobs have served."""
        if not (last or self.due()):
            return
        start = time.monotonic()
        written, self._recorded = self._recorded, {}
        for path in {stage.path for stage in written.values()} | (self._added.keys() if last else set()):
            self._write(path, [stage for stage in written.values() if stage.path == path], in_order=last)
        self._next_dump = time.monotonic() + max(DUMP_EVERY, 10 * (time.monotonic() - start))
        for name in written:
            self.files(name).settle()

    def _write(self, path: str, stages: Sequence[Any], *, in_order: bool) -> None:
        """Write stages to the lock file of their dvc.yaml; in the end, what a run has added in the order of `dvc repro`.

        That is done in a copy, which then replaces the file: DVC writes in place, and a run that is killed in the midst of it
        would leave half a file, in which all results were lost.
        """
        from dvc.dvcfile import Lockfile

        lock, aside, added = Path(path).with_suffix(".lock"), self.folder / "dvc.lock", self._added[path]
        aside.unlink(missing_ok=True)
        if lock.exists():
            shutil.copy(lock, aside)
        known = {name for name, _ in _entries(aside.read_text())} if lock.exists() else set()
        added += [stage.name for stage in stages if stage.name not in known]
        Lockfile(repo=self._repo, path=str(aside)).dump_stages(stages=stages)
        if in_order:
            ordered = [stage.name for stage in self._stages.values() if stage.path == path and stage.name in added]
            aside.write_text(_put_in_order(aside.read_text(), ordered))
        aside.replace(lock)
        self._repo.scm_context.track_file(paths=os.path.relpath(lock))


def _entries(lock: str) -> list[tuple[str, str]]:
    """The text of a lock file as (stage, its lines), and ("", line) between; to parse it as YAML takes seconds."""
    pieces = re.split(r"^(?=\S|  \S)", lock, flags=re.MULTILINE)
    return [(piece[2:].partition(":\n")[0].strip("'\"") if piece.startswith("  ") else "", piece) for piece in pieces]


def _put_in_order(lock: str, names: Sequence[str]) -> str:
    """The text of a lock file with the entries of some stages in this order, in the places that they have."""
    entries = _entries(lock)
    lines = dict(entries)
    order = iter([name for name in names if name in lines])
    return "".join(lines[next(order)] if name in names else piece for name, piece in entries)


def _paths(stage: Any) -> list[str]:  # noqa: ANN401
    """What a stage reads and writes, parameter files among them."""
    return [item.fs_path for item in (*stage.deps, *stage.outs)]


def _in_words(stage: Any, change: Any) -> Iterator[str]:  # noqa: ANN401
    """What `dvc status` says of a stage, or of its dependencies, parameters or outputs, in words."""
    if isinstance(change, str):
        yield STAGE_CHANGES.get(change, change)
        return
    for kind, path, what in [(kind, path, what) for kind, items in change.items() for path, what in items.items()]:
        if isinstance(what, str):
            yield f"{'output' if kind == 'changed outs' else 'dependency'} {path} {ITEM_CHANGES.get(what, what)}"
            continue
        params = next(dep for dep in stage.params if str(dep) == path)
        before, now = params.hash_info.value or {}, params.read_params()
        for param in what:
            yield f"params changed: {path} {'; '.join(difference(param, before.get(param, MISSING), now.get(param, MISSING)))}"


def _status(stage: Any) -> list[Any]:  # noqa: ANN401
    """What `dvc status` says of a stage, without its two writes of DVC's list of busy paths, which take as long again."""
    status: dict[str, list[Any]] = inspect.unwrap(type(stage).status)(stage)
    return status.get(stage.addressing, [])


def _drop_torn_rwlock(path: Path) -> None:
    """Remove DVC's list of busy paths if a process was killed while it wrote it: DVC itself then does nothing at all."""
    if not path.exists():
        return
    if not path.is_file():
        raise DataError(f"{path}: no file, where DVC keeps the list of busy paths; remove it and run again")
    try:
        busy = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        busy = None
    if not isinstance(busy, dict) or not all(isinstance(paths, dict) for paths in busy.values()):
        path.unlink()


def _as_now(stage: Any) -> Any:  # noqa: ANN401
    """A copy of a stage with its dependencies as they are now; the stage itself stays as recorded, for DVC to compare."""
    now = copy(stage)
    now.deps, now.outs = [copy(dep) for dep in stage.deps], [copy(out) for out in stage.outs]
    now.save_deps()
    return now


@contextmanager
def _stage_errors() -> Iterator[None]:
    """Whatever DVC raises of one stage, as a `StageError` of one line: the others go on."""
    try:
        yield
    except Exception as error:
        reason = error.__cause__ or error  # DVC wraps its reasons in "failed to reproduce"
        raise StageError(" ".join(str(reason).split()) or type(reason).__name__) from error


def difference(name: str, before: Any, now: Any) -> list[str]:  # noqa: ANN401 - any value of a params file
    """Name the values that differ between two trees of parameters, the first few of them."""
    leaves = list(_leaves(name, before, now))
    return leaves[:SHOWN] + ([f"{len(leaves) - SHOWN} more"] if len(leaves) > SHOWN else [])


def _leaves(name: str, before: Any, now: Any) -> Iterator[str]:  # noqa: ANN401
    before, now = _section(before, now), _section(now, before)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _leaves(f"{name}.{key}", before.get(key, MISSING), now.get(key, MISSING))
    elif before is MISSING:
        yield f"{name} added" if now is None or isinstance(now, Mapping) else f"{name} = {now} added"
    elif now is MISSING:
        yield f"{name} removed"
    elif before != now:
        yield f"{name} {before} -> {now}"


def _section(value: Any, beside: Any) -> Any:  # noqa: ANN401
    """A key without a value, beside one that has settings, is a section without any."""
    return {} if value is None and isinstance(beside, Mapping) and beside else value
