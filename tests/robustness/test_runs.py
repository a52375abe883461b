"""Two `mhrctl run` at once, or one that is killed: with real processes and DVC, since jobs start `mhrctl` themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import write_tasks
from tests.robustness.conftest import PARAMS, Counting
from tests.robustness.outcomes import Ended, Kind
from tests.robustness.workshop import ENVIRONMENT, ROOT, Runner, content, files_of

pytestmark = pytest.mark.slow
SMALL = PARAMS[: PARAMS.index("  methods:")].replace("[0, 1]", "[0]") + "  methods: {lora: }\n"
LIMIT = 600.0


@pytest.fixture
def study(runner: Runner, tmp_path: Path) -> Path:
    """A project under DVC with one cell, of which nothing has been made."""
    root = tmp_path / "study"
    assert runner.run("init", root, "--no-scm").code == 0
    (root / "params.yaml").write_text(SMALL)
    shutil.rmtree(root / "tasks")
    write_tasks(root / "tasks")
    assert runner.run("grid", "sync", "-C", root).code == 0
    return root


def started(root: Path) -> subprocess.Popen[str]:
    """Begin `mhrctl run`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "PATH": path}
    return subprocess.Popen(
        [sys.executable, "-m", "mhrctl", "run", "--jobs", "1", "-C", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a run."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Ended(("run",), -signal.SIGKILL, out, err, hung=True)
    return Ended(("run",), process.returncode, out, err)


def results(root: Path) -> dict[str, str]:
    """Return {name: hash} of what stages have written."""
    return {
        name: content(path)
        for name, path in files_of(root / "data").items()
        if not name.startswith(("log/", "scratch/")) and not path.name.startswith(".") and ".lock" not in path.name
    }


def test_two_runs_at_once_and_a_killed_one(study: Path, tmp_path: Path, counting: Counting) -> None:
    campaign = counting("pairs of processes: run")
    alone = Path(shutil.copytree(study, tmp_path / "alone", symlinks=True))
    first = ended(started(alone))
    assert first.code == 0, first.err
    whole = results(alone)
    for turn, (later, kill) in enumerate(((0.0, None), (3.0, 8.0))):
        root = Path(shutil.copytree(study, tmp_path / f"turn{turn}", symlinks=True))
        processes = [started(root)]
        time.sleep(later)
        processes.append(started(root))
        if kill is not None:
            time.sleep(kill)
            processes[0].kill()
        ends = [ended(process) for process in processes]
        kinds: list[Kind] = [end.kind((1, 2)) for end in (ends[1:] if kill else ends)]
        again = ended(started(root))
        bad = [kind for kind in kinds if kind in {"hangs", "tracebacks"}]
        kind: Kind = bad[0] if bad else "unexpected" if again.code else "right" if results(root) == whole else "silent"
        campaign.count(f"two runs, {later} s apart, the first killed: {kill}", kind, ends[1], again.err[-200:])
    campaign.require_clean()
