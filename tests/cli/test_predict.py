"""`mhrctl predict`: lines in and out, through files and pipes, and what it says beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Capture, complaint
from tests.conftest import Run

LINES: list[dict[str, Any]] = [
    {"task": "twice", "input": "ant bee", "id": "x", "more": [1, {"a": None}]},
    {"task": "swap", "input": "Stra\u00dfe \u2028 \U0001f41c", "target": "ant"},
    {"input": "ant", "task": "swap", "choices": ["ant", "bee"]},
    {"task": "copy", "input": "ant bee"},
]


def written(path: Path, lines: list[dict[str, Any]] = LINES) -> Path:
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def test_lines_come_out_in_their_order_with_answers(walked: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    file = written(tmp_path / "in.jsonl")
    capfd.readouterr()
    assert run("predict", file, "-m", "lora", "-C", walked) == 0
    shown = capfd.readouterr()
    said = records(shown.out)
    assert [{name: value for name, value in line.items() if name != "answer"} for line in said] == LINES
    assert all(isinstance(line["answer"], str) for line in said)
    assert said[2]["answer"] in ("ant", "bee")
    assert shown.err.splitlines() == [
        "note: answered zero-shot, as lora-s0 was not adapted to them: copy",
        "answered 4 lines with lora-s0",
    ]
    assert run("predict", file, file, "--cell", "lora-s0", "-o", tmp_path / "out", "-C", walked) == 0
    assert records((tmp_path / "out").read_text("utf-8")) == said * 2
    assert capfd.readouterr().out == ""


def test_scores_are_of_choices_and_name_them(copy: Path, run: Run, tmp_path: Path, capfd: Capture) -> None:
    file = written(tmp_path / "in.jsonl")
    capfd.readouterr()
    assert run("predict", file, "-m", "mhr", "--scores", "-C", copy) == 0
    said = records(capfd.readouterr().out)
    assert ["scores" in line for line in said] == [False, False, True, False]
    chosen = said[2]
    assert chosen["answer"] == max(zip(chosen["scores"], chosen["choices"], strict=True))[1]


def test_one_task_for_all_lines(walked: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    file = written(tmp_path / "in.jsonl", [{"input": "ant"}, {"input": "ant", "task": "twice"}])
    capfd.readouterr()
    assert run("predict", file, "--task", "swap", "-m", "lora", "-C", walked) == 0
    first, second = records(capfd.readouterr().out)
    assert "task" not in first
    assert second["task"] == "twice"
    assert first["answer"] == second["answer"]


def test_a_bad_line_of_a_file_is_named_before_anything_is_computed(
    walked: Path, tmp_path: Path, run: Run, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mhrctl.tools import predict

    monkeypatch.setattr(predict, "of_cell", lambda *_args, **_options: pytest.fail("a model was loaded"))
    file = written(tmp_path / "in.jsonl", [LINES[0], {"task": "swop", "input": "a"}])
    capfd.readouterr()
    assert run("predict", file, "-m", "lora", "-o", tmp_path / "out", "-C", walked) == 2
    assert f"{file}:3: unknown task 'swop'; did you mean 'swap'?" in complaint(capfd)
    assert not (tmp_path / "out").exists()


def test_a_file_is_not_written_over(walked: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    file = written(tmp_path / "in.jsonl")
    before = file.read_bytes()
    capfd.readouterr()
    assert run("predict", file, "-m", "lora", "-o", file, "-C", walked) == 2
    assert "there is such a file, which would be lost; remove it, or name another" in complaint(capfd)
    assert file.read_bytes() == before
    assert run("predict", file, "-m", "lora", "-o", tmp_path / "no/out", "-C", walked) == 2
    assert "no/out: cannot be written: No such file or directory" in complaint(capfd)


def test_exported_folders_answer_in_place_of_a_cell(copy: Path, tmp_path: Path, run: Run, capfd: Capture) -> None:
    assert run("export", "-m", "lora", "-C", copy) == 0
    file = written(tmp_path / "in.jsonl", LINES[:3])
    into = copy / "data/export/adapt/lora-s0"
    capfd.readouterr()
    outputs = []
    for options in (
        ["-m", "lora"],
        ["--adapter", into],
        ["--adapter", into / "swap", into / "twice"],
        ["--adapter", into / "swap", "--adapter", into / "twice"],
    ):
        assert run("predict", file, *options, "-C", copy) == 0
        outputs.append(capfd.readouterr().out)
    assert len(set(outputs)) == 1
    assert run("predict", written(tmp_path / "one.jsonl", [{"input": "a"}]), "--adapter", into / "swap", "-C", copy) == 0
    assert run("predict", file, "-m", "lora", "--adapter", into, "-C", copy) == 2


def process(project: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mhrctl", "predict", *options, "-C", str(project)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)


def test_a_pipe_is_answered_as_it_comes_and_a_bad_line_loses_nothing(walked: Path) -> None:
    with process(walked, "-m", "lora") as started:
        assert started.stdin
        assert started.stdout
        for line in LINES[:2]:
            started.stdin.write(json.dumps(line).encode() + b"\n")
            started.stdin.flush()
            assert json.loads(started.stdout.readline()).items() > line.items()
        started.stdin.write(json.dumps(LINES[2]).encode() + b"\n" + b'{"inputs": "a"}\n')
        rest, err = started.communicate()
    assert [line["input"] for line in records(rest.decode())] == ["ant"]
    assert started.returncode == 2
    assert err.decode().splitlines()[-1].startswith("error: stdin:4: input is missing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the cell, such as mhr-h8-s0, or its --method"),
        (["-m", "lora", "--extra-steps", 3], "--extra-steps: such a cell is not adapted; name --stage pretrain"),
        (["-m", "lora", "--stage", "average"], "--stage average: lora has no skills to average"),
        (["-m", "lora", "--seed", 9], "no finished pretrain output; run `mhrctl pretrain lora-s9`"),
    ],
)
def test_what_is_refused_is_one_line(
    walked: Path, tmp_path: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    capfd.readouterr()
    assert run("predict", written(tmp_path / "in.jsonl"), *options, "-C", walked) == 2
    assert message in complaint(capfd)
