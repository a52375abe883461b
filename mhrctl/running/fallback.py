"""The reference: a pipeline by DVC's public commands alone, safe with any version that has `--wait-for-lock`.

`dvc dag` says which stages there are. Each runs as a `dvc --wait-for-lock repro --single-item` of its own, which decides by
itself whether the stage must run, restores it from the run-cache, keeps its paths busy, and writes dvc.lock. `engine.py` does
the same within one process, and overrides what is described here where that is worth it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from graphlib import TopologicalSorter
from pathlib import Path

from mhrctl.errors import ArtifactError
from mhrctl.running.jobs import Job, JobFiles
from mhrctl.running.pipeline import State

OUTCOMES = {"is cached - skipping run": State.CACHED, "didn't change, skipping": State.UNCHANGED}
NODE = re.compile(r'"([^"]+)"(?: -> "([^"]+)")?;?')
Graph = Mapping[str, frozenset[str]]  # {stage: stages}, in the order in which `dvc repro` would run them


@contextmanager
def open_public_pipeline(project: Path, targets: Sequence[str]) -> Iterator[PublicPipeline]:
    """Open the stages that targets need; the working directory is the project's until the context ends.

    Raises:
        ArtifactError: if the project is not under DVC, DVC cannot read its files, or a target is unknown.
    """
    with chdir(project):
        yield PublicPipeline(dvc_root(), _graph(targets or ["dvc.yaml"]))


class PublicPipeline:
    """The stages that targets need, under names as `dvc repro` shows them, in the order in which it would run them.

    What keeps a stage from being examined, started or recorded, such as a missing dependency or output, is a `StageError`.

    Args:
        root: the folder that holds `.dvc`.
        needs: {stage: stages that must not fail before it runs}.
        after: {stage: stages that must have ended before it runs}; with what a frozen stage is made from, unlike `needs`.
    """

    def __init__(self, root: Path, needs: Graph, after: Graph | None = None) -> None:
        self.needs, self.after, self.names = needs, after or needs, list(needs)
        self.folder = jobs_folder(root)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._root = root

    def job(self, name: str) -> str:
        """The stage's address from the root of the DVC project, wherever a run was started."""
        file, _, inner = name.rpartition(":")
        path = Path(name if name.endswith(".dvc") else file or "dvc.yaml").resolve().relative_to(self._root).as_posix()
        if name.endswith(".dvc"):
            return path
        return inner if path == "dvc.yaml" else f"{path}:{inner}"

    def files(self, name: str) -> JobFiles:
        """The files of a stage's job."""
        return JobFiles(self.folder, self.job(name))

    def session(self) -> AbstractContextManager[None]:
        """Hold DVC's lock, if what is below works in this process; all of it but `due` is called within."""
        return nullcontext()

    def examine(self, name: str) -> State | None:  # noqa: ARG002
        """Decide whether a stage's command must run: None if so, else how the stage has ended."""
        return None

    def key(self, name: str) -> str | None:  # noqa: ARG002
        """Hash of a stage's command, dependencies and parameters as they are now; None if DVC itself will look."""
        return None

    def restore(self, name: str) -> bool:  # noqa: ARG002
        """Restore the outputs of a stage from the run-cache and record them, if they are there and DVC itself will not."""
        return False

    def begin(self, name: str) -> Job:
        """Remove a stage's old outputs, if DVC itself will not, and return what is to run."""
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
        return Job(self.job(name), shlex.join(command), str(Path.cwd()), {}, str(self.folder))

    def hold(self, name: str) -> None:
        """Keep a stage's paths busy for other DVC processes until `release`, if DVC itself will not."""

    def release(self, name: str) -> None:
        """Give a stage's paths free."""

    def finished(self, name: str) -> bool:  # noqa: ARG002
        """Whether a job of an earlier run has ended well, is to be recorded here, and its outputs are as it left them."""
        return False

    def record(self, name: str, key: str | None) -> State:  # noqa: ARG002
        """Record what a stage's command wrote, if its key is as when that started, and return how the stage has ended."""
        files = self.files(name)
        files.settle()
        log = files.log.read_text(errors="replace")
        return next((state for text, state in OUTCOMES.items() if text in log), State.DONE)

    def due(self) -> bool:
        """Whether something was recorded that should go to dvc.lock now."""
        return False

    def dump(self, *, last: bool) -> None:
        """Write what was recorded to dvc.lock, for many stages at once; with `last`, all of it."""


def jobs_folder(root: Path) -> Path:
    """The folder of the jobs of a DVC project."""
    return root / ".dvc" / "tmp" / "mhrctl"


def dvc_root() -> Path:
    """The root of the DVC project that the working directory belongs to.

    Raises:
        ArtifactError: if it belongs to none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise ArtifactError(f"{Path.cwd()}: not a DVC project; run `mhrctl init` (or `dvc init`)")


def run_dvc(folder: Path, *arguments: str) -> str:
    """Run a DVC command in a folder and return what it prints.

    Raises:
        ArtifactError: with DVC's own reason, if it fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        reasons = [line.removeprefix("ERROR: ") for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
        raise ArtifactError(f"`dvc {arguments[0]}` failed in {folder}: {' '.join(reasons) or ' '.join(result.stderr.split())}")
    return result.stdout


def _graph(targets: Sequence[str]) -> Graph:
    """{stage: stages that it needs} of what targets need, in an order in which they can run."""
    needs: dict[str, set[str]] = defaultdict(set)
    for target in targets:
        for line in run_dvc(Path.cwd(), "dag", "--dot", target).splitlines():
            if edge := NODE.fullmatch(line.strip()):
                upstream, name = edge.groups()
                needs[upstream].update()
                if name:
                    needs[name].add(upstream)
    return {name: frozenset(needs[name]) for name in TopologicalSorter(needs).static_order()}
