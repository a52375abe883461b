"""Test tasks leave as tasks of lm-evaluation-harness: YAML, JSON Lines, and one file that scores answers as mhrctl does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mhrctl.artifacts.cards import Card, known_digest, read_card, require_replaceable, write_card
from mhrctl.artifacts.facts import HarnessTasksFacts
from mhrctl.artifacts.names import TEST_EXAMPLES, Project, folder_name
from mhrctl.artifacts.ownership import require_apart
from mhrctl.artifacts.writing import write_text, writing
from mhrctl.config.sections import EvaluateParams
from mhrctl.config.tasks import FramingName
from mhrctl.data.examples import Examples
from mhrctl.data.framing import GAP
from mhrctl.data.table import rouge_tokenizers, task_metrics
from mhrctl.errors import ArtifactError, DataError, unknown
from mhrctl.evaluation.metrics import choices_to_score
from mhrctl.evaluation.text_scores import DRAWN, ENGLISH, MERGES

TAG = "mhrctl"
"""Names all exported tasks at once, and begins the name of each."""
ORIGIN = "mhrctl"
"""Of a task's metadata: which task of which examples it is."""
SCORES = "scores.py"
_LICENSE = "gpt2_merges.LICENSE"
_README = """\
# Tasks for lm-evaluation-harness

The test tasks of {suite}, as `mhrctl export --to harness` has written them: a YAML and a JSONL each, and `{scores}`, which
scores answers as mhrctl does. All of them are the tag `{tag}`:

    mhrctl evaluate CELL --harness {tag} --harness-tasks {folder}
    lm_eval --model hf --model_args pretrained=MODEL --include_path {folder} --tasks {tag}

Scores are from 0 to 1. Those that end in `{drawn}` are against the reference that was drawn for an example, which counts
after adaptation; the others are against all of its references. `accuracy` is of the choice with the best log-likelihood a
token; the numbers of tokens are those of the project's tokenizer.
"""


@dataclass(frozen=True)
class Form:
    """This is what all tasks of a project have in common.

    Attributes:
        params: beams and lengths of generated answers, and the length norm of chosen ones.
        delimiter: between a prompt and a choice.
        examples: hash of the examples file.
    """

    params: EvaluateParams
    delimiter: str
    examples: str


def export_tasks(project: Project, params: EvaluateParams, *, tasks: Sequence[str] = (), out: Path | None = None) -> Path:
    """Write the test splits of test tasks as tasks of the harness.

    Args:
        project: in which the prepare stage has run.
        params: beams and lengths.
        tasks: of these only; empty for all.
        out: the folder; None is one of the project.

    Returns:
        The folder.

    Raises:
        DataError: if there is no such task, or two have one name there.
        ArtifactError: if the prepare stage has not run, a task has no test examples, or the folder holds other things.
    """
    prepared, folder = project.output("prepare"), (out or project.output("export", "harness")).resolve()
    facts = read_card(prepared, stage="prepare", command="mhrctl prepare").facts
    examples = Examples.read(prepared / TEST_EXAMPLES).of(split="test")
    if missing := [task for task in tasks if task not in examples.tasks]:
        raise DataError(f"--task {missing[0]}: {unknown('test task', missing[0], examples.tasks)}")
    names = {task: folder_name(task) for task in tasks or examples.tasks}
    if twice := [task for task, name in names.items() if list(names.values()).count(name) > 1]:
        raise DataError(f"--task {twice[0]}: another task has the name {names[twice[0]]} too; export one at a time with --out")
    require_replaceable(folder, "export")
    for each in (prepared, project.params):
        require_apart(folder, each)
    digest = known_digest(prepared / TEST_EXAMPLES)
    form = Form(params, _delimiter(facts.framing, in_turns=facts.chat is not None), digest)
    metrics, tokenizers = task_metrics(prepared), rouge_tokenizers(prepared)
    with writing(folder) as aside:
        for task, name in names.items():
            rows = list(_rows(examples.of(tasks=[task]), metrics[task], tokenizers[task], params))
            if not rows:
                raise ArtifactError(f"{prepared / TEST_EXAMPLES}: no test examples: {task}; run `mhrctl prepare`")
            scored = _metrics(rows, metrics[task])
            lines = [json.dumps(row | {"metrics": scored}, ensure_ascii=False) for row in rows]
            write_text(aside / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
            write_text(aside / f"{name}.yaml", _yaml(task, name, scored, form, chosen="choices" in rows[0]))
        _write_scores(aside, needs_merges=any(tokenizers[task] != ENGLISH for task in names))
        write_text(aside / "README.md", _README.format(suite=facts.suite, scores=SCORES, tag=TAG, folder=folder, drawn=DRAWN))
        what = {"to": "harness", "tasks": list(names), "evaluate": params.model_dump()}
        made = HarnessTasksFacts(suite=facts.suite, tasks=list(names))
        write_card(aside, Card.of("export", what, {"prepare": prepared / TEST_EXAMPLES}, made))
    return folder


def _delimiter(framing: FramingName, *, in_turns: bool) -> str:
    """What stands between a prompt and a choice: the space of a text that goes on, or nothing."""
    return GAP if framing == "causal" and not in_turns else ""


def _rows(examples: Examples, metric: str, tokenizer: str, params: EvaluateParams) -> Iterator[dict[str, Any]]:
    """The examples of a task, with all that `scores.py` reads of them."""
    columns = ("id", "prompt", "targets", "reference", "choices", "choice_ids")
    chosen = bool(choices_to_score(metric, examples.column("choices")))
    for values in zip(*map(examples.column, columns), strict=True):
        row = dict(zip(columns, values, strict=True))
        choices, tokens = row.pop("choices"), row.pop("choice_ids")
        row |= {"target": row["targets"][row["reference"]], "rouge_tokenizer": tokenizer}
        if chosen:
            row |= {"choices": choices, "gold": choices.index(row["target"])}
            row |= {"lengths": [len(ids) for ids in tokens], "length_norm": params.length_norm}
        yield row


def _yaml(task: str, name: str, metrics: Sequence[str], form: Form, *, chosen: bool) -> str:
    """A task in the harness's words; a value in JSON is one in YAML."""
    kind: dict[str, Any]
    if chosen:
        kind = {"output_type": "multiple_choice", "doc_to_choice": "choices", "target_delimiter": form.delimiter}
    else:
        options = {"until": [], "do_sample": False, "max_gen_toks": form.params.max_new_tokens}
        if form.params.beams > 1:
            options["num_beams"] = form.params.beams
        kind = {"output_type": "generate_until", "generation_kwargs": options}
    fields = {
        "task": f"{TAG}_{name}",
        "tag": TAG,
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        **kind,
        "doc_to_text": "prompt",
        "doc_to_target": "gold" if chosen else "target",
        "num_fewshot": 0,
        "metric_list": [{"metric": each, "aggregation": "mean", "higher_is_better": True} for each in metrics],
        "metadata": {"version": 1, ORIGIN: {"task": task, "examples": form.examples}},
    }
    functions = {"custom_dataset": "dataset", "process_results": "of_chosen" if chosen else "of_generated"}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    lines += [f"{key}: !function {Path(SCORES).stem}.{function}" for key, function in functions.items()]
    return "".join(f"{line}\n" for line in lines)


def _metrics(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What a task is scored by, its own metric first; by the drawn reference too where that is another score."""
    names = dict.fromkeys([metric, "rouge_l", "exact_match"])
    drawn = [f"{name}{DRAWN}" for name in names] if any(len(row["targets"]) > 1 for row in rows) else []
    return [*names, *drawn, *(["acc", "acc_norm"] if "choices" in rows[0] else [])]


def _write_scores(folder: Path, *, needs_merges: bool) -> None:
    """Put what scores answers beside the tasks, and what GPT-2's tokens come from, if any task's ROUGE-L is of them."""
    home = files("mhrctl.evaluation")
    write_text(folder / SCORES, (home / "text_scores.py").read_text(encoding="utf-8"))
    for name in (MERGES, _LICENSE) if needs_merges else ():
        with (home / name).open("rb") as source, (folder / name).open("wb") as sink:
            shutil.copyfileobj(source, sink)
