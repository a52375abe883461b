"""Toy projects: a tiny suite and a tiny backbone that tests make on disk."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["CI"] = "true"
os.environ["MHRCTL_PROGRESS_SECONDS"] = "0"  # no lines of progress among those that tests look for
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import torch
from accelerate import Accelerator
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, T5ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from mhrctl.artifacts.hashing import content_hash, digest
from mhrctl.artifacts.names import CARD
from mhrctl.artifacts.sealing import opened, sealed
from mhrctl.cli.app import main
from mhrctl.config import methods
from mhrctl.config.methods import METHODS
from mhrctl.config.sections import ScratchParams
from mhrctl.evaluation import pretraining
from mhrctl.stages.backbone import scratch_config
from mhrctl.training import checkpoint
from tests.robustness.outcomes import table
from tests.tools.stand_in_hub import Hub, standing_in

transformers_logging.disable_progress_bar()

TINY = ScratchParams(d_model=16, d_ff=32, d_kv=4, attention_heads=4, layers=1, steps=2, batch_size=4)

PARAMS = """\
prepare:
  source: jsonl
  path: tasks
  tokenizer: word
  examples: 4

backbone:
  source: scratch
  scratch: {d_model: 16, d_ff: 32, d_kv: 4, attention_heads: 4, layers: 1, steps: 2, batch_size: 4}

pretrain:
  skills: 2
  steps: 4
  batch_size: 4
  log_every: 2

index:
  examples: 9

adapt:
  shots: 3
  validation: 3
  steps: 4
  batch_size: 2
  evaluate_every: 2
  max_new_tokens: 4

evaluate:
  max_new_tokens: 4

report:
  tables: [1, 2]

recipe: null

grid:
  seeds: [0]
  methods:
    lora:
    poly:
    mhr: {heads: [4]}
    mhr_z: {heads: [4]}
    mhr_mu: {heads: [4]}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the campaigns of tests/robustness counted; here, since xdist's printing process reads no other conftest."""
    reports = [report for which in terminalreporter.stats.values() for report in which if isinstance(report, pytest.TestReport)]
    counted = [
        value for report in reports for name, value in report.user_properties if name == "campaign" and isinstance(value, dict)
    ]
    if counted:
        terminalreporter.section("campaigns")
        for line in table(counted):
            terminalreporter.write_line(line)
    if path := os.environ.get("MHRCTL_CAMPAIGNS"):
        Path(path).write_text(json.dumps(counted, indent=1))


@pytest.fixture(scope="session", autouse=True)
def _writes_are_not_waited_for() -> Iterator[None]:
    """No test takes the power away; those of the calls themselves put their own in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _stream: None)
        yield


@pytest.fixture(scope="session")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def tiny_t5() -> T5ForConditionalGeneration:
    """A T5 of one layer each, d_model 16, with random weights."""
    torch.manual_seed(0)
    model: T5ForConditionalGeneration = T5ForConditionalGeneration(scratch_config(TINY, 64)).eval()
    return model


@pytest.fixture
def tiny_bart() -> BartForConditionalGeneration:
    """Another architecture: biases, and names of its own."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
    )
    model = BartForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return model


def write_tasks(folder: Path) -> None:
    """Three training and two test tasks of twelve examples, of which no two have a text in common."""
    words = ["ant", "bee", "cat", "dog", "elk", "fox"]
    for role, names in (("training", ["copy", "first", "last"]), ("test", ["swap", "twice"])):
        for number, name in enumerate(names):
            rows = [
                {
                    "input": f"{words[i % 6]} {words[i // 6]}",
                    "target": words[(i + number + 3 * (role == "test")) % 6],
                    "definition": name,
                }
                for i in range(12)
            ]
            path = folder / role / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with params.yaml and the user's own tasks."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    write_tasks(tmp_path / "tasks")
    return tmp_path


CELLS = ["lora", "poly", "mhr", "mhr_z", "mhr_mu"]


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage of every cell has run."""
    folder = tmp_path_factory.mktemp("walked")
    (folder / "params.yaml").write_text(PARAMS)
    write_tasks(folder / "tasks")
    steps = [["grid", "sync"], ["prepare"], ["backbone"], *(["pretrain", "-m", method] for method in CELLS[:3])]
    steps += [["average", "-m", "mhr"], *([stage, "-m", method] for method in CELLS for stage in ("adapt", "evaluate"))]
    for step in [*steps, ["evaluate", "-m", "backbone"], ["report"]]:
        assert mhrctl(*step, "-C", folder) == 0, step
    return folder


OTHERS = [name for name in METHODS if name not in CELLS]
AVERAGED = [name for name in methods.AVERAGED if name != "mhr"]  # whose skills `walked` has averaged
PRETRAINED = [name for name in OTHERS if METHODS[name].pretrain == name]


@pytest.fixture(scope="session")
def walked_all(walked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage of every method has run, with a light variant and extra steps besides."""
    folder = tmp_path_factory.mktemp("all") / "project"
    shutil.copytree(walked, folder)
    params = folder / "params.yaml"
    rows = "".join(f"    {name}:{' {heads: [4]}' if METHODS[name].multi_head else ''}\n" for name in OTHERS)
    params.write_text(params.read_text() + rows + "  variants:\n    light: {pretrain: {targets: light}}\n")
    steps = [["index"], *(["pretrain", "-m", name] for name in PRETRAINED)]
    steps += [["average", "-m", name] for name in AVERAGED]
    steps += [[stage, "-m", name] for name in OTHERS for stage in ("adapt", "evaluate")]
    steps += [[stage, "-m", "mhr", "--variant", "light"] for stage in ("pretrain", "adapt", "evaluate")]
    for name in ("lora", "mhr_mu"):
        steps += [[stage, "-m", name, "--extra-steps", "3"] for stage in ("pretrain", "evaluate")]
    for step in steps:
        assert mhrctl(*step, "-C", folder) == 0, step
    return folder


@pytest.fixture
def copy(walked: Path, tmp_path: Path) -> Path:
    """A copy of the walked project, to be changed."""
    return Path(shutil.copytree(walked, tmp_path / "project"))


@pytest.fixture
def swept() -> Iterator[None]:
    """After a test with a cluster, what Dask leaves of its event loops is collected here, and not in a test to come."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def exported(copy: Path) -> Path:
    """The folder with the exports of both test tasks of a LoRA."""
    assert mhrctl("export", "-m", "lora", "-C", copy) == 0
    return copy / "data/export/adapt/lora-s0"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in for the Hugging Face hub, which the real client talks to."""
    with standing_in(monkeypatch, tmp_path / "hf") as served:
        yield served


@pytest.fixture
def copy_of_all(walked_all: Path, tmp_path: Path) -> Path:
    """A copy of the project of all methods, to be changed."""
    return Path(shutil.copytree(walked_all, tmp_path / "project"))


def mhrctl(*arguments: object) -> int:
    """Run the command line in this process, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr("sys.argv", ["mhrctl", *map(str, arguments)])
        main()
    return int(stop.value.code or 0)


@contextmanager
def killed_after_checkpoint() -> Iterator[None]:
    """Every pre-training is killed when it has written a checkpoint."""

    def killed(*args: object, **rest: object) -> None:
        checkpoint.save_checkpoint(*args, **rest)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "save_checkpoint", killed)
        yield


def reseal(folder: Path, **parents: Path) -> None:
    """Make an output's card say that its stage wrote the files that are there now, from the parents as they are now."""
    record = opened(json.loads((folder / CARD).read_text()))
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    record["files"] = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": content_hash(path)} for path in names
    }
    record["parents"] |= {name: digest(path) for name, path in parents.items()}
    (folder / CARD).write_text(json.dumps(sealed(record)))


Run = Callable[..., int]


@pytest.fixture
def run() -> Run:
    """Runs `mhrctl` in this process and returns its exit code."""
    return mhrctl
