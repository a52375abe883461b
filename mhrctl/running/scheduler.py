"""The loop that runs a pipeline: what is ready is examined, what must run is given to an executor, what has ended is recorded.

One thread does all of DVC's work, under DVC's lock; the commands run outside of it. Whenever the scheduler dies, the files of
`jobs.py` and what DVC has cached are enough for the next one to go on.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush

from mhrctl.running import jobs
from mhrctl.running.fallback import PublicPipeline
from mhrctl.running.jobs import Job, JobFiles, Record
from mhrctl.running.pipeline import StageError, State, stage_of
from mhrctl.running.progress import BAD, Progress
from mhrctl.running.slots import Slots, make_slots

TICK = 0.5
"""Seconds between looks at signals, at jobs of earlier runs, and at the lock file to be written."""


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class Running:
    """A job in progress: its stage, its key, and whether an earlier run started it."""

    name: str
    key: str | None
    adopted: bool


class Scheduler:
    """Runs the stages of a pipeline.

    Args:
        pipeline: the stages.
        executor: runs `jobs.run_job`: threads here, or workers that see the project's folder.
        jobs_at_once: jobs at once at most.
        slots: what jobs take; as many as `jobs_at_once` if not said.
        env: set over the environment of each job.
        keep_going: whether other stages go on after one has failed.
        earlier: {stage of dvc.yaml: seconds}, for the estimate of the time left.
        watch: is called with the name of a stage whenever its state has changed.
        tell: is called with a line on whatever else there is to know.
    """

    def __init__(
        self,
        pipeline: PublicPipeline,
        executor: Executor,
        jobs_at_once: int,
        *,
        slots: Slots | None = None,
        env: Mapping[str, str] | None = None,
        keep_going: bool = True,
        earlier: Mapping[str, float] | None = None,
        watch: Callable[[str], None] = _silent,
        tell: Callable[[str], None] = _silent,
    ) -> None:
        self.progress = Progress.of(pipeline.names, earlier or {})
        self._pipeline, self._executor, self._watch, self._tell = pipeline, executor, watch, tell
        self._slots = slots or make_slots(jobs_at_once, [], None, {})
        self._jobs, self._env, self._keep_going = jobs_at_once, dict(env or {}), keep_going
        self._order = {name: number for number, name in enumerate(pipeline.names)}
        self._left = {name: set(pipeline.after[name]) for name in pipeline.names}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        for name in pipeline.names:
            for upstream in pipeline.after[name]:
                self._dependents[upstream].append(name)
        self._ready = [number for name, number in self._order.items() if not self._left[name]]  # a heap: ascending
        self._queue: list[int] = []  # stages whose commands must run, but have no slot yet
        self._running: dict[Future[int], Running] = {}
        self._strangers: dict[str, str | None] = {}  # living jobs of earlier runs: the stage that waits for their end
        # A thread for each adopted job. Strangers have none: the interpreter would not exit before those that are of no
        # stage of this run have ended.
        self._adopters = ThreadPoolExecutor(256, "adopted")
        self._stopping = self._closed = self._reported = False

    def stop(self) -> None:
        """End the jobs, and the run when they have ended: what has finished is recorded. For signal handlers too."""
        self._stopping = True

    def run(self) -> Progress:
        """Run all stages; what one of them cannot do is in its note."""
        try:
            with self._pipeline.session():
                self._find_survivors()
            while self._goes_on():
                ended = self._wait()
                with self._pipeline.session():
                    for future in ended:
                        self._collect(future)
                    self._advance()
                    self._dump(last=not self._goes_on())
        except BaseException:
            self._end_jobs(hard=True)
            raise
        finally:
            self._adopters.shutdown(wait=False)
        return self.progress

    def _goes_on(self) -> bool:
        waiting = bool(self._ready or self._queue or any(self._strangers.values()))
        return bool(self._running) or (waiting and self._starts)

    @property
    def _starts(self) -> bool:
        """Whether further stages are taken up."""
        return not (self._stopping or self._closed)

    def _end_jobs(self, *, hard: bool) -> None:
        if self._running and not self._reported:
            self._tell(f"ending {len(self._running)} job{'s' if len(self._running) > 1 else ''}")
            self._reported = True
        for future, running in self._running.items():
            files = self._files(running.name)
            jobs.ask_to_stop(files, hard=hard)
            if not jobs.is_alive(files) and jobs.exit_code(files) is None:
                # It waits for a worker, which may never come. One that takes it up nevertheless sees the wish to stop.
                future.cancel()

    def _wait(self) -> set[Future[int]]:
        """Wait until a job has ended or there is something to do; DVC's lock is free meanwhile.

        Nothing wakes it for a signal, for the end of a stranger, or for the time to write dvc.lock: it looks at every tick.
        """
        while True:
            if self._stopping:
                self._end_jobs(hard=False)
            busy = bool(self._running or self._strangers)
            pause = TICK if busy and not (self._ready and self._starts) else 0
            ended = wait(self._running, timeout=pause, return_when=FIRST_COMPLETED).done if self._running else set()
            if not self._running:
                time.sleep(pause)
            if self._strangers_gone() or ended or not pause or not self._goes_on() or self._pipeline.due():
                return ended

    def _find_survivors(self) -> None:
        """Count the slots of jobs that an earlier run started and that live.

        This comes before anything is started: they use what they were given, whether or not this run needs their stages.
        """
        for job, record in jobs.unfinished(self._pipeline.folder).items():
            self._strangers[job] = None
            self._slots.claim(job, record.slots)

    def _strangers_gone(self) -> bool:
        """Free what jobs of earlier runs held that have ended, and take up the stages that waited for that."""
        gone = [job for job in self._strangers if not jobs.is_alive(JobFiles(self._pipeline.folder, job))]
        for job in gone:
            self._slots.release(job)
            if (name := self._strangers.pop(job)) is not None:
                heappush(self._ready, self._order[name])
        return bool(gone)

    def _advance(self) -> None:
        """Examine what is ready, and start what must run as long as there are slots.

        It breaks off when a job has ended. Examining a thousand stages takes seconds, in which the slot would stay idle and,
        were the run killed, what the job has made would not be recorded.
        """
        while self._starts:
            self._start_queued()
            if not self._ready or any(future.done() for future in self._running):
                break
            name = self._pipeline.names[heappop(self._ready)]
            self._attempt(name, partial(self._examine, name))

    def _attempt(self, name: str, step: Callable[[], State | None]) -> None:
        """Take a step with a stage, which settles it if it returns a state or fails."""
        try:
            state = step()
        except StageError as error:
            self._settle(name, State.FAILED, str(error))
        else:
            if state is not None:
                self._settle(name, state)

    def _examine(self, name: str) -> State | None:
        state = self._pipeline.examine(name)
        if state is not None:
            return state
        key = self._pipeline.key(name)
        if key is not None:
            # The order matters. A living job would see a restored output, or a second command, in the place of its own. What
            # an ended job has left is not in the run-cache yet, and starting the stage would remove it.
            files, record = self._files(name), jobs.read_record(self._files(name))
            if jobs.is_alive(files):
                self._meet(name, key, record)
                return None
            if record and record.key == key and self._has_finished(name):
                return self._record(name, key)
            if self._pipeline.restore(name):
                return State.CACHED
        heappush(self._queue, self._order[name])
        return None

    def _has_finished(self, name: str) -> bool:
        """Whether a job of an earlier run has ended well, and its outputs are still what it wrote."""
        files = self._files(name)
        record = jobs.read_record(files)
        return record is not None and jobs.exit_code(files) == 0 and self._pipeline.intact(name, record.wrote, files.code)

    def _record(self, name: str, key: str | None) -> State:
        """Record what a job wrote, by which DVC touches it: the next run must know it again if this one dies at that."""
        files = self._files(name)
        if record := jobs.read_record(files):
            jobs.write_record(files, replace(record, wrote=self._pipeline.fingerprint(name)))
        return self._pipeline.record(name, key)

    def _meet(self, name: str, key: str, record: Record | None) -> None:
        """Adopt the living job of an earlier run, or end it and wait if its inputs have changed since."""
        files = self._files(name)
        self._strangers.pop(files.name, None)
        if record and record.key == key:
            self._pipeline.hold(name)
            files.stop.unlink(missing_ok=True)  # the earlier run may have died after it had asked the job to end
            self._track(name, key, self._adopters.submit(jobs.wait_job, str(files.folder), files.name), record, adopted=True)
            return
        self._tell(f"{name}: ending a job of an earlier run, whose inputs have changed since")
        self._strangers[files.name] = name  # which keeps its slot, and the stage from starting, until it is gone
        jobs.ask_to_stop(files)
        self._adopters.submit(jobs.wait_job, str(files.folder), files.name)

    def _start_queued(self) -> None:
        """Start what the slots allow, in the order of `dvc repro`."""
        for number in sorted(self._queue):
            if len(self._running) >= self._jobs:
                return
            name = self._pipeline.names[number]
            taken = self._slots.take(self._files(name).name, stage_of(name))
            if taken is not None:
                self._queue.remove(number)
                self._attempt(name, partial(self._start, name, taken))

    def _start(self, name: str, taken: dict[str, float]) -> None:
        """Start a stage's command.

        The note is written before the job is sent, so that no job lives that the next run would not know, and after the key
        was taken, so that an edit from here on counts as one while the stage runs.
        """
        files = self._files(name)
        try:
            key, command = self._pipeline.key(name), self._pipeline.begin(name)
            self._pipeline.hold(name)
            files.clear()
            record = Record(key or "", taken)
            jobs.write_record(files, record)
            env = {**command.env, **self._env, **self._slots.environment(taken)}
            job = jobs.ticketed(Job(files.name, command.script, command.cwd, env, str(files.folder)), record)
            future = self._executor.submit(jobs.run_job, job)
        except StageError:
            self._pipeline.release(name)
            self._slots.release(files.name)
            raise
        self._track(name, key, future, record, adopted=False)

    def _track(self, name: str, key: str | None, future: Future[int], record: Record, *, adopted: bool) -> None:
        self._running[future] = Running(name, key, adopted)
        entry = self.progress.stages[name]
        entry.started, entry.log = record.started, self._files(name).log
        self._change(name, State.RUNNING, "adopted" if adopted else "")

    def _collect(self, future: Future[int]) -> None:
        """Take in how a job has ended.

        A job that succeeded is recorded even if the run is about to stop. One that failed then has most likely been ended by
        the run itself, so that it is no failure of its stage.
        """
        running = self._running.pop(future)
        name, files = running.name, self._files(running.name)
        self._pipeline.release(name)
        self._slots.release(files.name)
        entry = self.progress.stages[name]
        entry.seconds = time.time() - (entry.started or time.time())
        error = future.exception() if not future.cancelled() else "cancelled"
        code = jobs.DIED if error else future.result()
        if code and self._stopping:
            self._change(name, State.WAITING, "stopped")
        # Who adopts a job sees no exit status but the file that its keeper writes, in which a kill leaves nothing; and outputs
        # may have been touched before this run held their paths. Such a stage is examined again rather than failed.
        elif running.adopted and (code == jobs.DIED or (code == 0 and not self._has_finished(name))):
            heappush(self._ready, self._order[name])
            self._change(name, State.WAITING, "the job of the earlier run was killed")
        elif error:
            self._settle(name, State.FAILED, " ".join(str(error).split()))
        elif code:
            self._settle(name, State.FAILED, _exit_note(code))
        else:
            self._attempt(name, partial(self._record, name, running.key))

    def _settle(self, name: str, state: State, note: str = "") -> None:
        """End a stage, and take up or block those that waited for it."""
        self._change(name, state, note)
        self._closed = self._closed or (state is State.FAILED and not self._keep_going)
        for dependent in self._dependents[name]:
            if self.progress.stages[dependent].state is State.BLOCKED:
                continue
            if state in BAD and name in self._pipeline.needs[dependent]:
                self._settle(dependent, State.BLOCKED, f"needs {name}")
                continue
            self._left[dependent].discard(name)
            if not self._left[dependent]:
                heappush(self._ready, self._order[dependent])

    def _change(self, name: str, state: State, note: str = "") -> None:
        entry = self.progress.stages[name]
        entry.note, entry.state = note, state
        self._watch(name)

    def _dump(self, *, last: bool) -> None:
        for name in self._pipeline.dump(last=last):
            self._files(name).settle()

    def _files(self, name: str) -> JobFiles:
        return JobFiles(self._pipeline.folder, self._pipeline.job(name))


def _exit_note(code: int) -> str:
    """What an exit code says."""
    if code < 0:
        return f"killed by signal {-code}"
    return f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
