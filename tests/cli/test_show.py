"""`mhrctl show`: examples as lines, as tokens and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Capture, complaint
from tests.conftest import Run
from tests.data.kinds import CHATS, llama_3

WORDED = '  prompt: "{definition}: {input}"\n'


@pytest.fixture
def causal(project: Path, run: Run) -> Path:
    """A project that is prepared for a decoder-only model."""
    llama_3().save_pretrained(str(project / "theirs"))
    return framed(project, run)


def framed(project: Path, run: Run, more: str = "") -> Path:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(
        text.replace("  tokenizer: word\n", f"  tokenizer: theirs\n  framing: causal\n{more or WORDED}")
    )
    assert run("prepare", "-C", project) == 0
    return project


def seen(run: Run, capfd: Capture, *options: object) -> list[str]:
    capfd.readouterr()
    assert run("show", *options) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert "\x1b" not in shown.out
    return shown.out.splitlines()


def test_an_example_is_its_texts_with_how_many_tokens_they_are(causal: Path, run: Run, capfd: Capture) -> None:
    assert seen(run, capfd, "--task", "swap", "-n", 1, "-C", causal) == [
        "swap, test task: test 1 of 4, id swap-0",
        "prompt, 11 tokens",
        "  swap: ant ant",
        "  Output:",
        "target, 5 tokens",
        "  dog",
    ]


def test_tokens_are_shown_with_boundaries_spaces_special_ones_and_numbers(causal: Path, run: Run, capfd: Capture) -> None:
    *_, prompt, cue, _, target = seen(run, capfd, "--task", "swap", "-n", 1, "--tokens", "-C", causal)
    assert prompt.startswith("  \u00ab<|begin|>\u00bb\u2502sw\u2502ap\u2502:\u2502")
    assert prompt.endswith("\\n\u2502")
    assert prompt.count("\u00b7") == 2
    assert cue.replace("\u2502", "").strip() == "Output:"
    assert target.replace("\u2502", "").strip() == "\u00b7dog\u00ab<|end|>\u00bb"
    tokenizer = llama_3()
    *_, target = seen(run, capfd, "--task", "swap", "-n", 1, "--ids", "-C", causal)
    ids = [int(piece.rpartition(" ")[2]) for piece in target.split("\u2502")]
    assert ids == [*tokenizer(" dog", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def test_what_was_cut_is_said_where_it_stood(project: Path, run: Run, capfd: Capture) -> None:
    CHATS["marked"]().save_pretrained(str(project / "theirs"))
    framed(project, run, "  chat: true\n  max_input_tokens: 20\n")
    lines = seen(run, capfd, "--task", "swap", "-n", 1, "-C", project)
    assert lines[1:5] == [
        "prompt, 18 tokens (6 cut)",
        "  <|im_start|>user",
        "  swap[... 6 tokens cut ...]<|im_end|>",
        "  <|im_start|>assistant",
    ]
    lines = seen(run, capfd, "--task", "swap", "-n", 1, "--tokens", "-C", project)
    assert "\u2502[... 6 tokens cut ...]\u2502\u00ab<|im_end|>\u00bb\u2502" in lines[3]


def test_choices_and_targets_stand_below_each_other(project: Path, run: Run, capfd: Capture) -> None:
    lines = [
        {"input": f"{number} a", "targets": ["ant", "bee"], "choices": ["ant", "bee", "cat"], "id": str(number)}
        for number in range(12)
    ]
    (project / "tasks/test/swap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("prepare", "-C", project) == 0
    lines_seen = seen(run, capfd, "--task", "swap", "-n", 1, "-C", project)
    assert lines_seen[3] == "targets, 2 + 2 tokens"
    assert sorted(lines_seen[4:6]) in (["  ant", "  bee  (scored)"], ["  ant  (scored)", "  bee"])
    assert lines_seen[6:] == ["choices, 2 + 2 + 2 tokens", "  ant  (right)", "  bee  (right)", "  cat"]


def test_without_a_task_it_says_how_many_more_there_are(project: Path, run: Run, capfd: Capture) -> None:
    for name in ("more", "most"):
        text = (project / "tasks/training/copy.jsonl").read_text().replace("ant", name)
        (project / f"tasks/training/{name}.jsonl").write_text(text)
    assert run("prepare", "-C", project) == 0
    capfd.readouterr()
    assert run("show", "-C", project) == 0
    shown = capfd.readouterr()
    assert shown.err == "5 of 7 tasks; `--task NAME` shows one, `--all` every one\n"
    assert shown.out.count("\nprompt, ") == 5
    assert sum(" task: " in line for line in seen(run, capfd, "--all", "-n", 2, "-C", project)) == 14


def test_json_is_an_example_a_line(causal: Path, run: Run, capfd: Capture) -> None:
    first, *others = map(json.loads, seen(run, capfd, "--task", "twice", "--json", "-C", causal))
    assert len(others) == 2
    assert first["prompt"] == {"text": "twice: ant ant\nOutput:", "tokens": first["prompt"]["tokens"], "cut": 0}
    assert [first[key] for key in ("task", "role", "split", "number", "of", "choices", "reference")] == [
        "twice", "test", "test", 1, 4, [], 0
    ]  # fmt: skip
    (first,) = map(json.loads, seen(run, capfd, "--task", "twice", "-n", 1, "--json", "--tokens", "-C", causal))
    assert "".join(first["prompt"]["pieces"]) == f"<|begin|>{first['prompt']['text']}"
    assert first["prompt"]["special"] == [1, *[0] * (first["prompt"]["tokens"] - 1)]
    assert len(first["prompt"]["ids"]) == first["prompt"]["tokens"]


def test_what_a_terminal_would_obey_is_shown_as_it_is(project: Path, run: Run, capfd: Capture) -> None:
    lines = [{"input": f"[red]\x1b[2J {number}", "target": "[/red] ant", "id": f"[b]{number}"} for number in range(12)]
    (project / "tasks/test/swap.jsonl").write_text("\n".join(map(json.dumps, lines)))
    llama_3().save_pretrained(str(project / "theirs"))
    framed(project, run)
    _, _, prompt, _, _, target = seen(run, capfd, "--task", "swap", "-n", 1, "-C", project)
    assert prompt.startswith("  [red]\\x1b[2J ")
    assert target == "  [/red] ant"
    assert seen(run, capfd, "--task", "swap", "-n", 1, "-C", project)[0].endswith("id [b]0")
    tokens = "".join(seen(run, capfd, "--task", "swap", "-n", 1, "--tokens", "-C", project)).replace("\u2502", "")
    assert "[red]\\x1b[2J\u00b7" in tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "swop"], "--task: unknown task 'swop'; did you mean 'swap'?"),
        (["--task", "swap", "--split", "train"], "--split train: task swap has none; it has test, pool"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    walked: Path, run: Run, capfd: Capture, options: list[object], message: str
) -> None:
    capfd.readouterr()
    assert run("show", *options, "-C", walked) == 2
    assert message in complaint(capfd)


def test_before_prepare_it_says_what_to_run(project: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("show", "-C", project) == 2
    assert "no finished prepare output; run `mhrctl prepare`" in complaint(capfd)


@pytest.mark.parametrize("options", [["--split", "dev"], ["-n", 0]])
def test_options_out_of_range_are_exit_code_2(project: Path, run: Run, options: list[object]) -> None:
    assert run("show", *options, "-C", project) == 2


def test_answers_of_a_cell_are_shown_with_their_scores(walked: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("show", "--task", "swap", "--cell", "lora-s0", "-n", 1, "-C", walked) == 0
    shown = capfd.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "swap: test 1 of 4, id swap-0"
    assert lines[1:5] == ["prompt", "  swap", "  ", "  ant ant"]
    assert lines[5] == "expected   dog"
    assert [line.partition(" ")[0] for line in lines[6:]] == ["zero-shot", "adapted"]
    assert all("(ROUGE-L " in line for line in lines[6:])
    assert shown.err == "1 of 2 test tasks, 1 of 4 answers; `-n N` shows more, `--wrong` mistakes\n"


def test_wrong_answers_are_counted_and_answers_are_json_too(walked: Path, run: Run, capfd: Capture) -> None:
    capfd.readouterr()
    assert run("show", "--cell", "lora-s0", "--wrong", "-n", 9, "-C", walked) == 0
    shown = capfd.readouterr()
    count = sum(line.startswith("prompt") for line in shown.out.splitlines())
    assert f"{count} of 8 answers are wrong, in 2 of 2 test tasks; {count} shown" in shown.err
    assert run("show", "--cell", "lora-s0", "-n", 9, "--json", "-C", walked) == 0
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(records) == 8
    assert set(records[0]["answers"]) == {"zero_shot", "adapted"}
    assert sum(record["answers"]["adapted"]["score"] < 100 for record in records) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--wrong"], "--wrong: is of answers; name the cell with --cell"),
        (["--against", "lora-s0"], "--against: is of answers; name the cell with --cell"),
        (["--cell", "lora-s0", "--tokens"], "--cell: answers are texts, to the test split; leave out --tokens"),
        (["--cell", "lora-s9"], "unknown evaluated cell 'lora-s9'; did you mean 'lora-s0'?"),
    ],
)
def test_options_of_answers_go_with_a_cell(walked: Path, run: Run, capfd: Capture, options: list[object], message: str) -> None:
    capfd.readouterr()
    assert run("show", *options, "-C", walked) == 2
    assert message in complaint(capfd)
