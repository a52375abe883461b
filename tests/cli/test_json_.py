"""With `--json` commands print one document: the numbers of their tables, typed and unrounded, and nothing else on stdout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import typer

from mhrctl.cli import display, json_
from mhrctl.cli.json_ import key_of, print_json, table_record
from mhrctl.evaluation.scores import read_metrics
from mhrctl.report.table import Table, Value
from tests.cli.conftest import Capture, complaint
from tests.conftest import Run


def printed(run: Run, capfd: Capture, *command: object, code: int = 0) -> Any:
    """The document that a command prints; its errors and messages are on stderr."""
    capfd.readouterr()
    assert run(*command, "--json") == code
    out = capfd.readouterr().out
    assert "\x1b" not in out
    return json.loads(out)


class Word(StrEnum):
    """A word of a list."""

    ONE = "one"


@dataclass
class Thing:
    """What a document may hold."""

    name: str
    path: Path
    word: Word
    numbers: tuple[float, ...]


def test_what_python_has_becomes_what_json_has(capfd: Capture) -> None:
    numbers = (0.1 + 0.2, float("nan"), float("inf"), -0.0)
    print_json({"thing": Thing("Ü\x1b[31m", Path("a/b"), Word.ONE, numbers), "none": None})
    out = capfd.readouterr().out
    assert "\x1b" not in out
    thing = {"name": "Ü\x1b[31m", "path": "a/b", "word": "one", "numbers": [0.30000000000000004, None, None, -0.0]}
    assert json.loads(out) == {"thing": thing, "none": None}


def test_half_a_character_is_an_escape(capfd: Capture) -> None:
    print_json({"name": "a\ud800"})
    assert json.loads(capfd.readouterr().out) == {"name": "a\ud800"}


def test_a_document_is_printed_when_what_shows_that_something_loads_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(display, "loaded", lambda: order.append("loaded"))
    monkeypatch.setattr(typer, "echo", lambda text, **rest: order.append("printed"))  # noqa: ARG005
    print_json({})
    assert order == ["loaded", "printed"]


def test_cells_of_a_table_are_numbers_texts_or_nothing() -> None:
    row = [
        "lora",
        "1,234",
        Value("62.5±1.0", {"": 62.51, "deviation": 1.04}),
        Value("4.1%", {"": 0.041}),
        "-",
        "too few",
        "1.5M",
    ]
    columns = ["method", "trained\nper task", "adapted\nROUGE-L", "chance of\nno gain", "95%\ninterval", "verdict", "paper"]
    record = table_record(Table("A title", columns, [row], ["A note."]))
    assert record["rows"] == [
        {
            "method": "lora",
            "trained_per_task": 1234,
            "adapted_rouge_l": {"value": 62.51, "deviation": 1.04},
            "chance_of_no_gain": 0.041,
            "95_percent_interval": None,
            "verdict": "too few",
            "paper": "1.5M",
        }
    ]
    assert (record["title"], record["notes"]) == ("A title", ["A note."])
    assert key_of("cross-\nattention") == "crossattention"


@pytest.mark.parametrize("text", ["1,23", "12,3456", "1.5", "+4", "٣", "1_000"])
def test_a_text_that_is_no_whole_number_stays_one(text: str) -> None:
    assert json_._cell(text) == text


def test_the_results_are_those_of_the_scores(walked: Path, run: Run, capfd: Capture) -> None:
    document = printed(run, capfd, "report", "-C", walked)
    scores = read_metrics(walked / "data/metrics/evaluate")
    methods = {each["label"]: each for each in document["methods"]}
    assert set(methods) == {"backbone", "lora", "poly", "mhr-h4", "mhr_z-h4", "mhr_mu-h4"}
    assert methods["lora"]["adapted"]["rouge_l"] == {"mean": scores["lora-s0"].means("adapted")["rouge_l"], "deviation": None}
    assert methods["lora"]["heads"] is methods["lora"]["difference"] is methods["backbone"]["adapted"] is None
    assert (methods["mhr-h4"]["heads"], methods["mhr-h4"]["cells"][0]["seed"]) == (4, 0)
    assert methods["poly"]["difference"].keys() == {"mean", "low", "high", "chance_of_no_gain", "verdict", "tasks", "seeds"}
    assert (document["baseline"], document["test_tasks"], document["without_scores"]) == ("lora", ["swap", "twice"], [])
    assert "Too few to say" in document["notes"][0]


def test_tables_and_comparisons(walked: Path, run: Run, capfd: Capture) -> None:
    tables = printed(run, capfd, "report", "--table", 2, "--compare", "poly", "-C", walked)["tables"]
    assert [table["title"] for table in tables] == ["Table 2: few-shot adaptation", "Differences to lora"]
    assert [row["method"] for row in tables[1]["rows"]] == ["poly"]
    assert isinstance(tables[1]["rows"][0]["tasks"], int)


def test_another_form_beside_json_is_refused(run: Run, walked: Path, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("report", "--json", "--format", "csv", "-C", walked) == 2
    assert complaint(capfd) == "error: --format csv: --json is a form of its own; leave one out\n"
    assert run("count", "--json", "--format", "latex", "--backbone", "t5-small") == 2
    assert "--format latex: --json" in complaint(capfd)


def test_counts_are_whole_numbers(run: Run, capfd: Capture) -> None:
    document = printed(run, capfd, "count", "--backbone", "t5-small", "--layout", "full", "--heads", 8)
    row = next(row for row in document["tables"][0]["rows"] if row["method"] == "mhr-h8")
    assert all(isinstance(row[key], int) for key in ("trained_on_all", "routing_on_all", "trained_on_new"))
    assert row["paper_on_all"] is None


def test_a_check_has_cells_sizes_and_times(walked: Path, run: Run, capfd: Capture) -> None:
    document = printed(run, capfd, "check", "-C", walked)
    assert document["ok"] is True
    assert document["problems"] == []
    assert [cell["cell"] for cell in document["cells"]] == ["lora-s0", "poly-s0", "mhr-h4-s0", "mhr_z-h4-s0", "mhr_mu-h4-s0"]
    assert document["cells"][4]["starts_from"] == "average"
    assert all(cell["scored"] and cell["disk"] > 0 and cell["memory"] > 0 for cell in document["cells"])
    assert document["cells"][0]["pretrain"] == {"steps": 4, "examples_a_step": 4}
    assert document["tasks"] == {"training": 3, "test": 2}
    assert document["time"]["seconds"] == pytest.approx(sum(document["time"]["stages"].values()))


def test_problems_of_a_check_are_in_the_document_too(project: Path, run: Run, capfd: Capture) -> None:
    assert run("check", "-C", project, "--json") == 2
    shown = capfd.readouterr()
    document = json.loads(shown.out)
    assert document["ok"] is False
    assert document["time"] is None
    assert [f"error: {problem}" for problem in document["problems"]] == shown.err.splitlines()


def test_a_cells_settings_have_their_types(walked: Path, run: Run, capfd: Capture) -> None:
    document = printed(run, capfd, "check", "mhr-h4-s0", "-C", walked)
    settings = {(each["section"], each["key"]): (each["value"], each["from"]) for each in document["settings"]}
    assert document["cell"] == "mhr-h4-s0"
    assert settings["pretrain", "steps"] == (4, "params.yaml")
    assert settings["pretrain", "accumulation"] == (1, "default")


def test_a_deep_check_lists_what_is_wrong(copy: Path, run: Run, capfd: Capture) -> None:
    before = printed(run, capfd, "check", "--deep", "-C", copy)
    assert (before["ok"], before["problems"], before["outputs"]) == (True, [], 17)
    with (copy / "data/pretrain/lora-s0/adapters.safetensors").open("ab") as stream:
        stream.write(b"x")
    after = printed(run, capfd, "check", "--deep", "-C", copy, code=2)
    assert after["ok"] is False
    assert after["problems"][0]["fault"] == "rotten"
    assert "pretrain/lora-s0" in after["problems"][0]["path"]


def test_a_synced_grid(project: Path, run: Run, capfd: Capture) -> None:
    document = printed(run, capfd, "grid", "sync", "--check", "-C", project, code=2)
    assert document["cells"][0] == "lora-s0"
    assert (len(document["changes"]), document["written"]) == (9, False)
    assert printed(run, capfd, "grid", "sync", "-C", project)["written"] is True


def test_pruning_lists_and_asks_nobody(copy: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("    poly:\n", ""))
    assert run("grid", "sync", "-C", copy) == 0
    monkeypatch.setattr(display, "can_ask", lambda: pytest.fail("there is nobody to ask"))
    kept = printed(run, capfd, "grid", "prune", "-C", copy)
    assert (kept["cells"], kept["kept"], kept["removed"]) == ([], ["poly-s0"], False)
    listed = printed(run, capfd, "grid", "prune", "--also-by-hand", "-C", copy)
    assert [each["cell"] for each in listed["cells"]] == ["poly-s0"]
    assert "pretrain/poly-s0" in listed["cells"][0]["paths"]
    assert (copy / "data/pretrain/poly-s0").exists()
    assert printed(run, capfd, "grid", "prune", "--also-by-hand", "--yes", "-C", copy)["removed"] is True
    assert not (copy / "data/pretrain/poly-s0").exists()


def test_a_routing_and_an_alignment(copy: Path, run: Run, capfd: Capture) -> None:
    routed = printed(run, capfd, "inspect", "mhr-h4-s0", "--top", 2, "--device", "cpu", "-C", copy)
    assert (routed["routing"], routed["stage"], routed["skills"]) == ("mhr-h4-s0", "pretrain", 2)
    assert routed["measures"]["all"].keys() == {"sparsity", "discreteness", "efficiency", "effective_skills"}
    assert len(routed["pairs"]) == 2
    assert routed["comparison"] is routed["training_measures"] is None
    aligned = printed(run, capfd, "align", "mhr-h4-s0", "--device", "cpu", "-C", copy)
    written = json.loads(Path(aligned["written"]).read_text())
    assert aligned["alignment"]["shared"]["overall"] == pytest.approx(written["shared"]["overall"], abs=1e-4)


def test_similar_tasks(copy: Path, run: Run, capfd: Capture) -> None:
    assert run("index", "-C", copy, "--device", "cpu") == 0
    document = printed(run, capfd, "index", "query", "--task", "swap", "--top", 2, "--device", "cpu", "-C", copy)
    assert document["task"] == "swap"
    cosines = [each["cosine"] for each in document["most_similar"]]
    assert len(cosines) == 2
    assert cosines == sorted(cosines, reverse=True)
