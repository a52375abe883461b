"""A study of `pipelines/` is made tiny: another backbone, other data and few steps, and the grid as the study has it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from mhrctl.config.resolve import load_params
from mhrctl.projects.templates import dvc_yaml
from mhrctl.suites.t0.p3 import p3_templates
from tests.robustness.workshop import Job, Runner

AT_ONCE = max(2, os.cpu_count() or 2)
LIMIT = 300.0
"""Seconds after which a command of a tiny study hangs."""
ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
UNCOPIED = ("data", "model", "packages", "natural-instructions")
"""What a study's folder has only once it has been used."""
CHOSEN = "chosen"
"""Split files of a study of its own, beside a link to a clone's tasks."""
TRAINING_TASKS = 6
ROWS = 12
"""Of a training task."""
SEEDS = 2
RECORDS = 8
"""Of a few-shot set."""
EVALUATED = 1
"""The seed whose few-shot sets are scored in place of the evaluation splits."""
EVERY = 8
"""Steps between two looks in pre-training, of which there are two."""

Tree = dict[str, Any]

SOURCES: dict[str, Tree] = {
    "t0": {"path": "p3", "examples": 8},
    "superni": {"path": str(DATA / "natural-instructions"), "test_tasks": [], "definition": False, "examples": 4},
}
"""Of Super-NaturalInstructions all test tasks are taken that are here, since most of the paper's 20 are not."""
TOKENS: Tree = {"tokenizer": "bpe", "vocab_size": 1500, "max_input_tokens": 32, "max_target_tokens": 12}
T0: Tree = {"few_shot": "t-few", "promptsource": str(DATA), "evaluation_seeds": [EVALUATED]}
SCRATCH: Tree = {"d_model": 64, "d_ff": 64, "d_kv": 16, "attention_heads": 4}
"""Every width can be divided by 64 heads."""
LAYERS = {"t0": 5, "superni": 2}
"""On T0 blocks of four share a routing, of which there are to be several."""
TRAINED: Tree = {"steps": 100, "batch_size": 8, "lr": 0.005}
OPTIMISED: Tree = {"batch_size": 4, "accumulation": 1, "precision": "fp32", "lr": 0.05}
"""With a rate at which a few steps change the scores, so that points lie apart."""
PRETRAIN: Tree = OPTIMISED | {"steps": 2 * EVERY, "log_every": EVERY, "validate_examples": 2}
ALIGNED: Tree = {"align_tasks": 3, "align_examples": 2}
ADAPT: Tree = OPTIMISED | {"steps": 4, "evaluate_every": 2, "evaluate_unit": "steps", "beams": 1, "max_new_tokens": 8}
OF_SUPERNI: dict[str, Tree] = {"pretrain": {"validate_every": EVERY}, "adapt": {"shots": 4, "validation": 2}}
"""What the recipe has scaled down: the best step of pre-training is kept, and a held-out set chooses that of adaptation."""
EVALUATE: Tree = {"precision": "fp32", "beams": 1, "max_new_tokens": 8}
EXTRA_STEPS = {1000: 1, 5000: 2, 10_000: 3}
FASTER = 100
"""How much higher the rates of a search are."""
EVERY_STEPS = ("align_every", "validate_every")
"""Settings that are steps of pre-training between two of a kind."""


def script(path: Path) -> ModuleType:
    """Import a script that stands beside a study."""
    spec = spec_from_file_location(f"{path.parent.name}/{path.stem}", path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def split_names(study: Path, file: str) -> list[str]:
    """The tasks of a split file of a study that has chosen its own."""
    return (study / CHOSEN / "splits/default" / file).read_text().split()


def make_tiny(study: str, root: Path) -> None:
    """Write the project of a study, made tiny; its grid has fewer seeds and fewer extra steps, and is otherwise the study's.

    Args:
        study: a folder of `pipelines/`.
        root: the project's folder, which is made.
    """
    shutil.copytree(ROOT / "pipelines" / study, root, symlinks=True, ignore=shutil.ignore_patterns(*UNCOPIED))
    file, yaml = root / "params.yaml", YAML()
    params = yaml.load(file)
    seeds = list(params["grid"]["seeds"])[:SEEDS]
    source = params["prepare"]["source"]
    for place in ("path", "hub", "revision", "tokenizer_revision"):
        params["prepare"].pop(place, None)
    params["prepare"].update(TOKENS | SOURCES[source])
    if source == "t0":
        params["prepare"]["t0"].pop("evaluation", None)
        params["prepare"]["t0"].update(T0 | {"seeds": seeds})
        write_p3(root / "p3")
        write_few_shot(root / "t-few", [*seeds, EVALUATED])
    if (root / CHOSEN).is_dir():
        (root / "natural-instructions").symlink_to(DATA / "natural-instructions")
        params["prepare"]["path"] = CHOSEN
    architecture = {"architecture": "llama"} if params["prepare"].get("framing") == "causal" else {}
    scratch = SCRATCH | TRAINED | {"layers": LAYERS[source]} | architecture
    params["backbone"] = {"source": "scratch", "scratch": scratch}
    params["index"] = {"encoder": "tfidf", "examples": 4}
    params["pretrain"].update(PRETRAIN | ALIGNED)
    params["adapt"].update(ADAPT)
    if source == "superni":
        for section, settings in OF_SUPERNI.items():
            params[section].update(settings)
    params["evaluate"].update(EVALUATE)
    params["grid"]["seeds"] = seeds
    _scale(params)
    yaml.dump(params, file)
    (root / "dvc.yaml").write_text(dvc_yaml(load_params(file).params))  # which names other files of tasks


def _scale(tree: Any) -> None:
    """Scale numbers of steps down, wherever they stand."""
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        if key == "extra_steps":
            tree[key] = _scaled(value)
        elif key in EVERY_STEPS and value:
            tree[key] = EVERY
        elif key == "search":
            tree[key] = {name: [FASTER * rate for rate in rates] for name, rates in value.items()}
        else:
            _scale(value)


def _scaled(steps: Any) -> Any:
    """Extra steps, of every variant or of each."""
    if isinstance(steps, Mapping):
        return {variant: _scaled(of_variant) for variant, of_variant in steps.items()}
    return [EXTRA_STEPS[number] for number in steps]


def write_few_shot(folder: Path, seeds: Sequence[int]) -> None:
    """Write the first records of T-Few's sets of these seeds, as T-Few has them."""
    for path in sorted((DATA / "t-few/few_shot").glob("*/*_shot/*_seed.jsonl")):
        if int(path.stem.removesuffix("_seed")) in seeds:
            copy = folder / path.relative_to(DATA / "t-few")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("".join(path.read_text().splitlines(keepends=True)[:RECORDS]))


def write_p3(folder: Path) -> None:
    """Write training tasks in P3's form: names of T0's mixture, each of another data set, with texts of other tasks.

    P3 is not among the data for tests, and the test tasks' few-shot sets must not be trained on.
    """
    names = {template.data_set: template.name for template in reversed(p3_templates())}
    for name, rows in zip(islice(sorted(names.values()), TRAINING_TASKS), _texts(), strict=False):
        table = pa.table({"inputs_pretokenized": [row[0] for row in rows], "targets_pretokenized": [row[1] for row in rows]})
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "train-00000-of-00001.parquet")


def _texts() -> Iterator[list[tuple[str, str]]]:
    """Inputs and targets of training tasks of Super-NaturalInstructions."""
    home = DATA / "natural-instructions"
    for name in (home / "splits/default/train_tasks.txt").read_text().split():
        instances = json.loads((home / f"tasks/{name}.json").read_text())["Instances"][:ROWS]
        yield [(instance["input"], instance["output"][0]) for instance in instances]


def walk(study: str, root: Path, runner: Runner) -> None:
    """Run every stage of every cell of a study that is made tiny."""
    make_tiny(study, root)
    for words in (["grid", "sync"], ["check"]):
        ended = runner.run(*words, "-C", root)
        assert ended.code == 0, ended.text
        assert "warning" not in ended.text
    for jobs in commands(root):
        for place in range(0, len(jobs), AT_ONCE):
            batch = [Job(tuple(words), cwd=root) for words in jobs[place : place + AT_ONCE]]
            for ended in runner.together(*batch, limit=LIMIT):
                assert ended.code == 0, (ended.argv, ended.text)


def commands(root: Path) -> Iterator[list[list[str]]]:
    """Read from dvc.yaml, stage by stage, the commands of all its cells, which do not wait for each other."""
    yaml = YAML(typ="safe", pure=True)
    cells = yaml.load(root / "data/cells/index.yaml")["cells"]
    for stage in yaml.load(root / "dvc.yaml")["stages"].values():
        keys = cells[stage["foreach"].removeprefix("${cells.").removesuffix("}")] if "foreach" in stage else [""]
        command = stage.get("do", stage)["cmd"].split()[1:]
        yield [[word.replace("${key}", key) for word in command] for key in keys]
