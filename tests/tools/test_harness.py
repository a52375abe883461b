"""The harness and `mhrctl evaluate` score the same tasks alike, and a cell answers other people's tasks as `hf` models do."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest
from accelerate import Accelerator

from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.config.resolve import load_params
from mhrctl.errors import ArtifactError, DataError, DivergedError, ParamsError
from mhrctl.evaluation.harness_scores import HarnessScore, read_harness
from mhrctl.models import backbones
from mhrctl.tools import harness
from mhrctl.tools.harness_export import export_tasks
from mhrctl.training.execution import Execution
from tests.conftest import PARAMS, mhrctl
from tests.tools.test_model_card import causal_project
from tests.tools.test_predict import enliven

pytest.importorskip("lm_eval", reason="needs lm_eval (pip install 'mhrctl[harness]')")
from mhrctl.tools.harness import Result, Subject, evaluate
from mhrctl.tools.harness_tasks import Asked

TASKS = ["greek", "sign", "twice", "two"]
METHODS_OF_ALL = {"lora": 1, "mhr": 4}
CELLS = {name: Cell(method=name, heads=heads) for name, heads in METHODS_OF_ALL.items()}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_all(folder: Path) -> None:
    """Test tasks of every kind: several references, choices, F1, another script."""
    words, greek, signs = ["ant", "bee", "cat", "dog"], ["άλφα", "βήτα", "γάμμα", "δέλτα"], ["<", "=", ">"]
    pairs = list(product(range(4), range(4)))
    both = [f"{words[first]} {greek[second]}" for first, second in pairs]
    write(folder / "training/copy.jsonl", ({"input": text, "target": text} for text in both))
    write(folder / "training/signs.jsonl", ({"input": f"{i} {j}", "target": signs[(i * j) % 3]} for i, j in pairs))
    turned = [[" ".join(each[place:] + each[:place]) for place in range(4)] for each in (words, greek)]
    twice = [{"input": f"{words[i]} {words[j]}", "target": turned[0][i], "metric": "f1"} for i, j in pairs]
    write(folder / "test/twice.jsonl", twice)
    write(folder / "test/greek.jsonl", ({"input": f"{greek[i]} {words[j]}", "target": turned[1][i]} for i, j in pairs))
    several = [{"input": f"{words[i]} {j}", "targets": [turned[0][i], turned[1][j]]} for i, j in pairs]
    write(folder / "test/two.jsonl", several)
    asked = [{"input": f"{i} ? {j}", "target": signs[(i >= j) + (i > j)], "choices": signs} for i, j in pairs]
    write(folder / "test/sign.jsonl", asked)


@pytest.fixture(scope="module", params=["encoder_decoder", "causal"])
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with lively adapters, whose cells were evaluated."""
    folder = tmp_path_factory.mktemp(request.param)
    framing = f"  tokenizer: word\n  framing: {request.param}\n"
    text = PARAMS.replace("examples: 4", "examples: 12").replace("  tokenizer: word\n", framing)
    if request.param == "causal":
        text = text.replace("scratch: {", "scratch: {architecture: llama, ")
    (folder / "params.yaml").write_text(text)
    write_all(folder / "tasks")
    steps = [["prepare"], ["backbone"], *([stage, "-m", name] for name in CELLS for stage in ("pretrain", "adapt"))]
    for step in steps:
        assert mhrctl(*step, "-C", folder) == 0, step
    for number, (name, cell) in enumerate(CELLS.items()):
        enliven(folder, "adapt", cell.name, seed=number)
        assert mhrctl("evaluate", "-m", name, "-C", folder) == 0
    export_tasks(Project(folder), load_params(folder / "params.yaml").params.evaluate)
    return folder


@pytest.fixture
def ask(accelerator: Accelerator) -> Callable[..., list[Result]]:
    """Runs tasks on cells."""

    def ask(folder: Path, names: Iterable[str | None] = CELLS, **more: Any) -> list[Result]:
        params = load_params(folder / "params.yaml").params.evaluate
        subjects = [Subject(CELLS[name] if name else None, params) for name in names]
        asked = Asked(**{"tasks": ["mhrctl"], "folders": [folder / "data/export/harness"], **more})
        return list(evaluate(subjects, asked, project=Project(folder), execution=Execution(accelerator)))

    return ask


def of_predictions(folder: Path, cell: str, phase: str) -> dict[str, dict[str, float]]:
    """{task: {metric: mean}} as `mhrctl evaluate` has recorded it, from 0 to 1."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in pq.read_table(folder / "data/evaluate" / cell / "predictions.parquet").to_pylist():
        if row["phase"] == phase:
            for metric in ("rouge_l", "exact_match", "accuracy", "f1"):
                if row.get(metric) is not None:
                    values[row["task"]][metric].append(row[metric] / 100)
    return {task: {metric: fmean(each) for metric, each in of_task.items()} for task, of_task in values.items()}


@pytest.mark.parametrize("phase", ["adapted", "zero_shot"])
def test_scores_of_our_tasks_are_equal_by_both_ways(scored: Path, ask: Callable[..., list[Result]], phase: str) -> None:
    results = ask(scored, adapter=None if phase == "adapted" else "zero_shot")
    assert [result.name for result in results] == ["lora-s0", "mhr-h4-s0"]
    for result in results:
        expected = of_predictions(scored, result.name, phase)
        assert sorted(expected) == TASKS
        said = {score.task.removeprefix("mhrctl_"): score for score in result.scores}
        assert sorted(said) == TASKS
        for task, score in said.items():
            assert score.adapter == (task if phase == "adapted" else "zero_shot")
            assert score.examples == 5
            for metric, value in expected[task].items():
                # An adapted answer counts by the reference that was drawn for its example.
                name = f"{metric}_drawn" if phase == "adapted" and task == "two" else metric
                assert score.metrics[name] == pytest.approx(value), (result.name, task, name)


def test_the_scores_that_are_compared_differ(scored: Path) -> None:
    """Else the test above would say little: between tasks, metrics and phases."""
    values = {
        value
        for phase in ("adapted", "zero_shot")
        for of_task in of_predictions(scored, "mhr-h4-s0", phase).values()
        for value in of_task.values()
    }
    assert len(values) > 3
    assert max(values) > 0


def test_one_backbone_answers_for_all_cells(
    scored: Path, ask: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    real = backbones.load_pretrained

    def counted(*args: Any, **more: Any) -> Any:
        loads.append(1)
        return real(*args, **more)

    monkeypatch.setattr(backbones, "load_pretrained", counted)
    results = ask(scored, [*CELLS, None], limit=2)
    assert loads == [1]
    assert [result.name for result in results] == ["lora-s0", "mhr-h4-s0", "backbone"]
    assert {score.adapter for score in results[2].scores} == {"zero_shot"}
    assert {score.examples for result in results for score in result.scores} == {2}
    alone = ask(scored, ["mhr"], limit=2)
    assert alone[0].scores == results[1].scores  # whichever cells are beside it


def test_what_is_kept_says_what_it_was_made_from(scored: Path, ask: Callable[..., list[Result]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored, tmp_path / "project"))
    file = Project(folder).harness("lora-s0")
    before = {path: path.read_bytes() for path in (folder / "data/metrics/evaluate").iterdir()}
    file.unlink(missing_ok=True)
    (first,) = ask(folder, ["lora"], tasks=["mhrctl_two"])
    assert first.file == file
    (second,) = ask(folder, ["lora"], tasks=["mhrctl_two"], adapter="zero_shot", limit=2)
    kept = read_harness(file)
    assert kept.cell == "lora-s0"
    assert [(score.task, score.adapter, score.limit) for score in kept.scores] == [
        ("mhrctl_two", "two", None),
        ("mhrctl_two", "zero_shot", 2),
    ]
    assert kept.scores == [*first.scores, *second.scores]
    score = kept.scores[0]
    assert set(score.made_from) == {"test_tasks", "backbone", "start", "adapted"}
    assert (score.version, score.fewshot) == ("1", 0)
    assert len(score.hash or "") == 64
    assert score.harness.startswith("0.")
    assert score.higher_is_better["rouge_l"] is True
    # The same again replaces, and scores of older adapters go.
    (again,) = ask(folder, ["lora"], tasks=["mhrctl_two"])
    assert (len(read_harness(file).scores), again.outdated) == (2, 0)
    enliven(folder, "adapt", "lora-s0", seed=9)
    (third,) = ask(folder, ["lora"], tasks=["mhrctl_two"])
    assert [(each.adapter, third.outdated) for each in read_harness(file).scores] == [("zero_shot", 1), ("two", 1)]
    assert before == {path: path.read_bytes() for path in (folder / "data/metrics/evaluate").iterdir()}


def test_tasks_of_another_projects_examples_are_other_peoples(
    scored: Path, ask: Callable[..., list[Result]], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(scored / "data/export/harness", tmp_path / "tasks"))
    for file in copy.glob("*.yaml"):
        digest = json.loads((copy / "card.json").read_text())["parents"]["prepare"]
        assert digest in file.read_text()
        file.write_text(file.read_text().replace(digest, "0" * 64))
    (result,) = ask(scored, ["lora"], folders=[copy], limit=1)
    assert {score.adapter for score in result.scores} == {"zero_shot"}


FOREIGN: dict[str, dict[str, Any]] = {
    "choose": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{input}} : ",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
    },
    "write": {
        "output_type": "generate_until",
        "doc_to_text": "{{input}} :",
        "doc_to_target": "target",
        "generation_kwargs": {"until": ["dog", "\n"], "max_gen_toks": 5, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "input",
        "doc_to_target": "{{' ' + target}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "whole": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{input + ' ' + target}}",
        "metric_list": [{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}],
    },
}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of tasks that know nothing of mhrctl."""
    words = ["ant", "bee", "cat", "dog"]
    rows = [
        {"input": f"{one} {other}", "choices": [one, f"{other} {one}", "dog"], "gold": place % 3, "target": other}
        for place, (one, other) in enumerate(product(words, words))
    ]
    write(tmp_path / "foreign/rows.jsonl", rows)
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "foreign/rows.jsonl")}}}
    for name, task in FOREIGN.items():
        named: dict[str, Any] = {
            "task": f"foreign_{name}",
            "tag": "foreign",
            "test_split": "test",
            "metadata": {"version": 2.5},
        }
        content = named | data | task
        (tmp_path / f"foreign/{name}.yaml").write_text(json.dumps(content))
    (tmp_path / "foreign/group.yaml").write_text(
        json.dumps(
            {
                "group": "foreign_group",
                "task": ["foreign_choose", "foreign_last_word"],
                "aggregate_metric_list": [{"metric": "acc"}],
                "metadata": {"version": 1},
            }
        )
    )
    return tmp_path / "foreign"


@pytest.mark.filterwarnings("ignore")  # of the harness's own model
@pytest.mark.parametrize("adapter", [None, "twice"])
def test_other_peoples_tasks_are_answered_as_by_the_harness_own_models(
    scored: Path, foreign: Path, tmp_path: Path, ask: Callable[..., list[Result]], adapter: str | None
) -> None:
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    causal = "architecture: llama" in (scored / "params.yaml").read_text()
    names = [f"foreign_{name}" for name in FOREIGN if causal or name != "whole"]
    (result,) = ask(scored, ["mhr"], tasks=names, folders=[foreign], adapter=adapter)
    where = ["--stage", "average"] if adapter is None else ["--task", adapter]
    if adapter is None:
        assert mhrctl("average", "-m", "mhr", "-C", scored) == 0
    assert mhrctl("export", "-m", "mhr", "--merge", *where, "--out", tmp_path / "merged", "-C", scored) == 0
    merged = tmp_path / "merged" / (adapter or "")
    kind = AutoModelForCausalLM if causal else AutoModelForSeq2SeqLM
    model = HFLM(kind.from_pretrained(merged), tokenizer=AutoTokenizer.from_pretrained(merged), batch_size=1)
    manager = TaskManager(include_path=str(foreign), include_defaults=False)
    loaded = manager.load(names)
    for task in loaded["tasks"].values():
        task.set_config("num_fewshot", 0)
        if not causal and task.config.generation_kwargs:  # its `hf` model counts the context among an encoder-decoder's tokens
            task.set_config("generation_kwargs", {"max_length": 6}, update=True)
    theirs = evaluator.evaluate(model, loaded, bootstrap_iters=0)["results"]
    assert {score.task for score in result.scores} == set(theirs)
    choose = next(score for score in result.scores if score.task == "foreign_choose")
    share = choose.metrics["acc"]
    assert choose.stderr["acc"] == pytest.approx(math.sqrt(share * (1 - share) / 15))  # of a mean of 16 zeros and ones
    for score in result.scores:
        assert score.adapter == (adapter or "zero_shot")
        assert (score.examples, score.version) == (16, "2.5")
        for metric, value in score.metrics.items():
            assert value == pytest.approx(theirs[score.task][f"{metric},none"], rel=1e-3), (score.task, metric)


def test_a_chat_is_asked_in_turns(
    tmp_path: Path, foreign: Path, ask: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mhrctl.tools.harness_model import HarnessModel

    folder = causal_project(tmp_path / "chat", "marked", chat=True)
    enliven(folder, "adapt", "lora-s0", seed=2)
    assert mhrctl("evaluate", "-m", "lora", "-C", folder) == 0
    export_tasks(Project(folder), load_params(folder / "params.yaml").params.evaluate)
    (result,) = ask(folder, ["lora"])
    expected = of_predictions(folder, "lora-s0", "adapted")
    for score in result.scores:
        for metric, value in expected[score.task.removeprefix("mhrctl_")].items():
            assert score.metrics[metric] == pytest.approx(value), (score.task, metric)
    asked: list[str] = []
    real = HarnessModel.loglikelihood

    def heard(model: HarnessModel, requests: Any) -> Any:
        asked.extend(request.args[0] for request in requests)
        return real(model, requests)

    monkeypatch.setattr(HarnessModel, "loglikelihood", heard)
    (result,) = ask(folder, ["lora"], tasks=["foreign_choose"], folders=[foreign], fewshot=1, limit=2)
    assert result.scores[0].examples == 2
    for prompt in asked:
        assert prompt.count("<|im_start|>user") == 2  # an example, and what is asked
        assert prompt.endswith("<|im_start|>assistant\n")


def test_groups_and_examples_in_prompts(scored: Path, foreign: Path, ask: Callable[..., list[Result]]) -> None:
    (result,) = ask(scored, ["lora"], tasks=["foreign_group"], folders=[foreign], fewshot=2, limit=3)
    by_name: dict[str, HarnessScore] = {score.task: score for score in result.scores}
    assert set(by_name) == {"foreign_group", "foreign_choose", "foreign_last_word"}
    assert by_name["foreign_group"].metrics["acc"] == pytest.approx(
        fmean(by_name[name].metrics["acc"] for name in ("foreign_choose", "foreign_last_word"))
    )
    assert by_name["foreign_group"].examples is None
    assert by_name["foreign_choose"].fewshot == 2


def test_how_likely_a_whole_text_is_an_encoder_decoder_cannot_say(
    scored: Path, foreign: Path, ask: Callable[..., list[Result]]
) -> None:
    if "architecture: llama" in (scored / "params.yaml").read_text():
        pytest.skip("of encoder-decoders")
    with pytest.raises(ParamsError, match="asks how likely a whole text is, which an encoder-decoder cannot say"):
        ask(scored, ["lora"], tasks=["foreign_whole"], folders=[foreign])


def test_what_cannot_be_run_is_one_line(scored: Path, foreign: Path, ask: Callable[..., list[Result]]) -> None:
    with pytest.raises(ParamsError, match=r"--adapter: unknown task 'swap' \(known: zero_shot, greek, sign, twice, two\)"):
        ask(scored, ["lora"], adapter="swap")
    with pytest.raises(ParamsError, match="--adapter two: backbone is not adapted to any task; name zero_shot"):
        ask(scored, [None], adapter="two")
    options = json.loads((foreign / "write.yaml").read_text())
    options["generation_kwargs"]["no_such_option"] = 1
    (foreign / "write.yaml").write_text(json.dumps(options))
    with pytest.raises(DataError, match=r"--harness foreign_write: generation_kwargs: .*no_such_option"):
        ask(scored, ["lora"], tasks=["foreign_write"], folders=[foreign])


def test_answers_that_are_not_finite_are_no_scores(scored: Path, tmp_path: Path, ask: Callable[..., list[Result]]) -> None:
    folder = Path(shutil.copytree(scored, tmp_path / "project"))
    Project(folder).harness("lora-s0").unlink(missing_ok=True)
    from tests.tools import test_predict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_predict, "NOISE", 1e25)
        enliven(folder, "adapt", "lora-s0")
    with pytest.raises((DivergedError, ArtifactError), match="finite"):
        ask(folder, ["lora"], tasks=["mhrctl_sign"])
    assert not Project(folder).harness("lora-s0").exists()


def test_a_router_is_refused(walked_all: Path, accelerator: Accelerator) -> None:
    params = load_params(walked_all / "params.yaml").params.evaluate
    asked = Asked([], [], adapter=None)
    subject = Subject(Cell(method="lorauter"), params)
    with pytest.raises(ParamsError, match="--harness: lorauter-s0 answers each query by a mixture of its own"):
        list(evaluate([subject], asked, project=Project(walked_all), execution=Execution(accelerator)))


@pytest.mark.parametrize("method", ["adapter_soup", "full_ft", "full_ft_lora", "ia3"])
def test_every_kind_of_adapter_answers(walked_all: Path, tmp_path: Path, accelerator: Accelerator, method: str) -> None:
    if method not in METHODS:
        pytest.skip(f"no such method: {method}")
    folder = Path(shutil.copytree(walked_all, tmp_path / "project"))
    cell = Cell(method=method, heads=1)
    params = load_params(folder / "params.yaml").params.evaluate
    out = export_tasks(Project(folder), params)
    for phase in ("adapted", "zero_shot"):
        asked = Asked(["mhrctl"], [out], adapter=None if phase == "adapted" else "zero_shot")
        (result,) = evaluate([Subject(cell, params)], asked, project=Project(folder), execution=Execution(accelerator))
        expected = of_predictions(folder, cell.name, phase)
        for score in result.scores:
            for metric, value in expected[score.task.removeprefix("mhrctl_")].items():
                assert score.metrics[metric] == pytest.approx(value), (phase, score.task, metric)


def test_cells_that_share_no_backbone_get_one_each(accelerator: Accelerator) -> None:
    assert accelerator.device.type == "cpu"
    params = load_params(Path("params.yaml")).params.evaluate
    half = params.model_copy(update={"precision": "bf16"})
    tuned = next(name for name, row in METHODS.items() if row.adds_lora)
    subjects = [
        Subject(CELLS["lora"], params),
        Subject(Cell(method=tuned, heads=1), params),
        Subject(None, params),
        Subject(CELLS["mhr"], half),
    ]
    assert [len(group) for group in harness._sharing(subjects)] == [2, 1, 1]
