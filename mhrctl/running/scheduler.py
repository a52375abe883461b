"""The loop that runs a pipeline: what is ready is examined, what must run is given to an executor, what has ended is recorded.

One thread does all of DVC's work, under DVC's lock; the commands run outside of it. Whenever the scheduler dies, the files of
`jobs.py` and what DVC has cached are enough for the next one to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from typing import NamedTuple

from mhrctl.running import jobs
from mhrctl.running.fallback import PublicPipeline
from mhrctl.running.jobs import JobFiles, Record
from mhrctl.running.pipeline import StageError, State, stage_of
from mhrctl.running.progress import BAD, STOPPED, Progress
from mhrctl.running.slots import Slots, make_slots

TICK = 0.5  # seconds between looks at signals, at jobs of earlier runs, and at the lock file to be written


class Running(NamedTuple):
    """A job in progress: its stage, its key, and whether an earlier run started it."""

    name: str
    key: str | None
    adopted: bool


@dataclass
class Scheduler:
    """Runs the stages of a pipeline."""

    pipeline: PublicPipeline
    executor: Executor  # runs `jobs.run_job`: threads here, or workers that see the project's folder
    jobs_at_once: int  # at most, if `slots` does not say so
    _: KW_ONLY
    slots: Slots | None = None  # what jobs take
    env: Mapping[str, str] = field(default_factory=dict)  # set over the environment of each job
    keep_going: bool = True  # whether other stages go on after one has failed
    earlier: Mapping[str, float] = field(default_factory=dict)  # seconds that stages of dvc.yaml took in earlier runs
    watch: Callable[[str], None] = lambda _name: None  # is called with the name of a stage whenever its state has changed
    tell: Callable[[str], None] = lambda _line: None  # is called with a line on whatever else there is to know

    def __post_init__(self) -> None:
        names = self.pipeline.names
        self.progress = Progress.of(names, self.earlier)
        self._slots = self.slots or make_slots(self.jobs_at_once, [], None, {})
        self._order = {name: number for number, name in enumerate(names)}
        self._left = {name: set(self.pipeline.after[name]) for name in names}
        self._ready = [number for name, number in self._order.items() if not self._left[name]]  # a heap: ascending
        self._queue: list[int] = []  # stages whose commands must run, but have no slot yet
        self._running: dict[Future[int], Running] = {}
        self._strangers: dict[str, str | None] = {}  # living jobs of earlier runs: the stage that waits for their end
        # A thread for each adopted job. Strangers have none: the interpreter would not exit before those that are of no
        # stage of this run have ended.
        self._adopters = ThreadPoolExecutor(256, "adopted")
        self._stopping = self._closed = self._reported = False  # closed: no further stages are taken up

    def stop(self) -> None:
        """End the jobs, and the run when they have ended: what has finished is recorded. For signal handlers too."""
        self._stopping = self._closed = self.progress.stopping = True

    def run(self) -> Progress:
        """Run all stages; what one of them cannot do is in its note."""
        try:
            # Jobs of earlier runs have the slots that they were given, whether or not this run needs their stages.
            for job, record in jobs.unfinished(self.pipeline.folder).items():
                self._strangers[job] = None
                self._slots.claim(job, record.slots)
            while self._goes_on():
                ended = self._wait()
                with self.pipeline.session():
                    for future in ended:
                        self._collect(future)
                    self._advance()
                    self.pipeline.dump(last=not self._goes_on())
        except BaseException:
            self._end_jobs(hard=True)
            raise
        return self.progress

    def _goes_on(self) -> bool:
        waiting = bool(self._ready or self._queue or any(self._strangers.values()))
        return bool(self._running) or (waiting and not self._closed)

    def _end_jobs(self, *, hard: bool) -> None:
        if self._running and not self._reported:
            self.tell(f"ending {len(self._running)} job{'s' if len(self._running) > 1 else ''}")
            self._reported = True
        for future, running in self._running.items():
            files = self.pipeline.files(running.name)
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
            pause = TICK if busy and (self._closed or not self._ready) else 0
            ended = wait(self._running, timeout=pause, return_when=FIRST_COMPLETED).done if self._running else set()
            if not self._running:
                time.sleep(pause)
            if self._strangers_gone() or ended or not pause or not self._goes_on() or self.pipeline.due():
                return ended

    def _strangers_gone(self) -> bool:
        """Free what jobs of earlier runs held that have ended, and take up the stages that waited for that."""
        gone = [job for job in self._strangers if not jobs.is_alive(JobFiles(self.pipeline.folder, job))]
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
        while not self._closed:
            self._start_queued()
            if not self._ready or any(future.done() for future in self._running):
                break
            name = self.pipeline.names[heappop(self._ready)]
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
        state = self.pipeline.examine(name)
        if state is not None:
            return state
        key = self.pipeline.key(name)
        if key is not None:
            # The order matters. A living job would see a restored output, or a second command, in the place of its own. What
            # an ended job has left is not in the run-cache yet, and starting the stage would remove it.
            files, record = self.pipeline.files(name), jobs.read_record(self.pipeline.files(name))
            if jobs.is_alive(files):
                self._meet(name, key, record)
                return None
            if record and record.key == key and self.pipeline.finished(name):
                return self.pipeline.record(name, key)
            if self.pipeline.restore(name):
                return State.CACHED
        heappush(self._queue, self._order[name])
        return None

    def _meet(self, name: str, key: str, record: Record | None) -> None:
        """Adopt the living job of an earlier run, or end it and wait if its inputs have changed since."""
        files = self.pipeline.files(name)
        self._strangers.pop(files.name, None)
        if record and record.key == key:
            self.pipeline.hold(name)
            files.stop.unlink(missing_ok=True)  # the earlier run may have died after it had asked the job to end
            self._track(name, key, self._adopters.submit(jobs.wait_job, str(files.folder), files.name), record, adopted=True)
            return
        self.tell(f"{name}: ending a job of an earlier run, whose inputs have changed since")
        self._strangers[files.name] = name  # which keeps its slot, and the stage from starting, until it is gone
        jobs.ask_to_stop(files)
        self._adopters.submit(jobs.wait_job, str(files.folder), files.name)

    def _start_queued(self) -> None:
        """Start what the slots allow, in the order of `dvc repro`."""
        for number in sorted(self._queue):
            name = self.pipeline.names[number]
            taken = self._slots.take(self.pipeline.files(name).name, stage_of(name))
            if taken is not None:
                self._queue.remove(number)
                self._attempt(name, partial(self._start, name, taken))

    def _start(self, name: str, taken: dict[str, float]) -> None:
        """Start a stage's command.

        The note is written before the job is sent, so that no job lives that the next run would not know, and after the key
        was taken, so that an edit from here on counts as one while the stage runs.
        """
        files = self.pipeline.files(name)
        try:
            key, job = self.pipeline.key(name), self.pipeline.begin(name)
            self.pipeline.hold(name)
            files.settle()  # of what an earlier job has left, its lock alone stays
            files.log.unlink(missing_ok=True)
            record = Record(key or "", taken)
            jobs.write_record(files, record)
            job = replace(job, env={**job.env, **self.env, **self._slots.environment(taken)})
            future = self.executor.submit(jobs.run_job, jobs.ticketed(job, record))
        except StageError:
            self.pipeline.release(name)
            self._slots.release(files.name)
            raise
        self._track(name, key, future, record, adopted=False)

    def _track(self, name: str, key: str | None, future: Future[int], record: Record, *, adopted: bool) -> None:
        self._running[future] = Running(name, key, adopted)
        entry = self.progress.stages[name]
        entry.started, entry.log = record.started, self.pipeline.files(name).log
        self._change(name, State.RUNNING, "adopted" if adopted else "")

    def _collect(self, future: Future[int]) -> None:
        """Take in how a job has ended.

        A job that succeeded is recorded even if the run is about to stop. One that failed then has most likely been ended by
        the run itself, so that it is no failure of its stage.
        """
        running = self._running.pop(future)
        name, files = running.name, self.pipeline.files(running.name)
        self.pipeline.release(name)
        self._slots.release(files.name)
        entry = self.progress.stages[name]
        entry.seconds = time.time() - (entry.started or time.time())
        error = future.exception() if not future.cancelled() else "cancelled"
        code = jobs.DIED if error else future.result()
        if code and self._stopping:
            self._change(name, State.WAITING, STOPPED)
        # Who adopts a job sees no exit status but the file that its keeper writes, in which a kill leaves nothing; and outputs
        # may have been touched before this run held their paths. Such a stage is examined again rather than failed.
        elif running.adopted and (code == jobs.DIED or (code == 0 and not self.pipeline.finished(name))):
            heappush(self._ready, self._order[name])
            self._change(name, State.WAITING, "the job of the earlier run was killed")
        elif error:
            self._settle(name, State.FAILED, " ".join(str(error).split()))
        elif code:
            number = -code if code < 0 else code - 128  # a shell adds 128 to the signal that ended its command
            self._settle(name, State.FAILED, f"killed by signal {number}" if number > 0 else f"exit code {code}")
        else:
            self._attempt(name, partial(self.pipeline.record, name, running.key))

    def _settle(self, name: str, state: State, note: str = "") -> None:
        """End a stage, and take up or block those that waited for it."""
        self._change(name, state, note)
        self._closed = self._closed or (state is State.FAILED and not self.keep_going)
        for dependent, left in self._left.items():
            if name not in left or self.progress.stages[dependent].state is State.BLOCKED:
                continue
            if state in BAD and name in self.pipeline.needs[dependent]:
                self._settle(dependent, State.BLOCKED, f"needs {name}")
                continue
            left.discard(name)
            if not left:
                heappush(self._ready, self._order[dependent])

    def _change(self, name: str, state: State, note: str = "") -> None:
        entry = self.progress.stages[name]
        entry.note, entry.state = note, state
        self.watch(name)
