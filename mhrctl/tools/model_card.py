"""The README.md of an export: what it is, how well it does, and code that loads and runs it, in the hub's form."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined] # it is documented, and not exported
from jinja2 import TemplateError
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.artifacts.cards import facts_in, read_card, require_made_from, try_card
from mhrctl.artifacts.facts import AdaptFacts, Base, ExportFacts
from mhrctl.artifacts.inputs import Places
from mhrctl.artifacts.names import SCORES, TASKS, TEST_EXAMPLES, TRAINING_EXAMPLES, Project
from mhrctl.artifacts.reading import read_json_of, read_text_of, reading
from mhrctl.config.cells import Cell
from mhrctl.config.generation import END
from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import FramingName
from mhrctl.data.chat import USER, Chat
from mhrctl.data.table import task_metrics
from mhrctl.errors import ArtifactError, DataError, counted
from mhrctl.evaluation.metrics import OVER_CHOICES, title_of
from mhrctl.interchange.peft import TaskType
from mhrctl.models.generation import stops

LOOKED_AT = 50
"""Examples of a task that are looked at for one whose prompt is whole, to be shown."""
IN_FOLDER = "Run this in the folder."
"""How the code of an export begins, which names its folder `.`."""
ANSWER_TOKENS = 32
"""Longest answer of the code where no evaluation or adaptation says another."""


@dataclass(frozen=True)
class Kind:
    """A kind of backbone has names in other libraries.

    Attributes:
        task_type: in peft.
        auto: the class of transformers that loads it.
        tag: what the hub calls its work.
    """

    task_type: TaskType
    auto: str
    tag: str


KINDS: Mapping[FramingName, Kind] = {
    "encoder_decoder": Kind("SEQ_2_SEQ_LM", "AutoModelForSeq2SeqLM", "text2text-generation"),
    "causal": Kind("CAUSAL_LM", "AutoModelForCausalLM", "text-generation"),
}


@dataclass(frozen=True)
class Call:
    """A call makes the tokens of a prompt, in Python that anybody can run.

    Attributes:
        in_turns: whether it goes through the tokenizer's chat template.
        is_ended: whether the end token must be put to the prompt.
        options: of the call.
    """

    in_turns: bool = False
    is_ended: bool = False
    options: Mapping[str, bool] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The call, of `tokenizer` and `prompt`."""
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        if self.in_turns:
            turns = f'[{{"role": "{USER}", "content": prompt}}]'
            how = 'add_generation_prompt=True, return_dict=True, return_tensors="pt"'
            return f"tokenizer.apply_chat_template({turns}, {how}{options})"
        return f'tokenizer(prompt{" + tokenizer.eos_token" if self.is_ended else ""}, return_tensors="pt"{options})'

    def tokens(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
        """Return the tokens that the code makes; none where it fails."""
        try:
            if self.in_turns:
                turns = [{"role": USER, "content": prompt}]
                options: dict[str, Any] = {"add_generation_prompt": True, "return_dict": True, **self.options}
                made: Any = tokenizer.apply_chat_template(turns, **options)
            else:
                made = tokenizer(f"{prompt}{tokenizer.eos_token}" if self.is_ended else prompt, verbose=False, **self.options)
        except (TemplateError, TypeError, ValueError):  # a template that refuses an option, for one
            return []
        ids: list[int] = made["input_ids"]
        return ids


@dataclass(frozen=True)
class Shape:
    """This is how a prompt is put to a model outside mhrctl.

    Attributes:
        prompt: of an example: what the user says, of a chat.
        right: its reference.
        call: makes the tokens that the prepare stage has made.
    """

    prompt: str
    right: str
    call: Call


@dataclass(frozen=True)
class Facts:
    """This is what a README says besides the settings.

    Attributes:
        shape: how it is asked; None where no example is at hand.
        shots: examples to train on, and to choose the best step; None where it was not adapted.
        scores: {metric: score of the test split, in percent}; none where it was not evaluated.
        metric: of the task; None of all tasks.
        tests: examples of the test split.
        options: of `generate`.
        recipe: {stage: its settings} that it was trained with.
        datasets: on the hub, that its tasks are from.
    """

    shape: Shape | None
    shots: tuple[int, int] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    metric: str | None = None
    tests: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    datasets: Sequence[str] = ()


def looked_up(
    cell: Cell,
    stage: str,
    task: str | None,
    project: Project,
    *,
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int] | None,
) -> Facts:
    """Look up what a README says of an export.

    Args:
        cell: whose adapter.
        stage: that it is from.
        task: that it is for; None is all.
        project: that it is from.
        tokenizer: of the project.
        ends: tokens that end an answer, where the model does not say so itself.
    """
    prepared, source = project.output("prepare"), project.output(stage, cell.name)
    options: dict[str, Any] = {"max_new_tokens": ANSWER_TOKENS}
    shots: tuple[int, int] | None = None
    scores: Mapping[str, float] = {}
    adapted = facts_in(source, AdaptFacts) if stage == "adapt" else None
    if adapted and task:
        shots = adapted.shots.get(task)
        scores, options = _evaluated(cell, task, project) or ({}, options)
    rows = {row["name"]: row for row in read_json_of(prepared / TASKS)["tasks"]}
    return Facts(
        shape=_shape(prepared, task, tokenizer),
        shots=shots,
        scores=scores,
        metric=task_metrics(prepared).get(task) if task else None,
        tests=rows[task]["splits"].get("test", 0) if task in rows else 0,
        options=options | ({END: list(ends)} if ends else {}),
        recipe=_recipe(cell, stage, project),
        datasets=_datasets(prepared),
    )


def _recipe(cell: Cell, stage: str, project: Project) -> dict[str, Any]:
    """The settings of the stages that have trained an adapter, but for those that are left open."""
    recipe: dict[str, Any] = {}
    for each, of in (("pretrain", cell.start[1]), (stage, cell)):
        card = try_card(project.output(each, of.name))
        settings = card.params.get(each) if card else None
        if isinstance(settings, Mapping):
            recipe[each] = {name: value for name, value in settings.items() if value is not None}
    return recipe


def _datasets(prepared: Path) -> list[str]:
    """The data sets of the hub that tasks are from, as the card of the prepare stage names them."""
    card = read_card(prepared, stage="prepare", command="mhrctl prepare")
    params = json.loads(json.dumps(card.params, default=dict), object_hook=lambda tree: SimpleNamespace(**tree))
    return sorted({name for name, _ in SOURCES[params.source].pins(params)})


def ends_beside(
    backbone: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, *, revision: str | None
) -> list[int] | None:
    """Return the tokens that end an answer where a model, loaded as its checkpoint is, does not stop at all of them.

    Args:
        backbone: hub id or folder.
        config: of it.
        tokenizer: of the project, whose end token ends an answer: of a chat, what ends a turn.
        revision: on the hub.
    """
    try:
        generation = GenerationConfig.from_pretrained(backbone, revision=revision or "main")
    except OSError:  # it has no such file, and transformers makes one of the config
        generation = GenerationConfig.from_model_config(config)
    model = cast("PreTrainedModel", SimpleNamespace(generation_config=generation))
    return stops(model, tokenizer).get(END)


def _evaluated(cell: Cell, task: str, project: Project) -> tuple[dict[str, float], dict[str, Any]] | None:
    """The scores of an adapted task, and the options of its answers; None if it was not evaluated as it is now."""
    folder = project.output("evaluate", cell.name)
    places: Places = {"prepare": project.output("prepare"), "adapted": project.output("adapt", cell.name)}
    try:
        card = read_card(folder, stage="evaluate", command="mhrctl evaluate", cell=cell)
        require_made_from(card, folder, places)
        table = csv.DictReader(io.StringIO(read_text_of(folder / SCORES)))
    except ArtifactError:
        return None
    row = next((row for row in table if (row["task"], row["phase"]) == (task, "adapted")), None)
    if row is None:
        return None
    settings = card.params["evaluate"]
    beams = {"num_beams": settings["beams"]} if settings["beams"] > 1 else {}
    scores = {name: float(value) for name, value in row.items() if name not in ("task", "phase") and value}
    return scores, {"max_new_tokens": settings["max_new_tokens"], **beams}


def _shape(prepared: Path, task: str | None, tokenizer: PreTrainedTokenizerBase) -> Shape | None:
    """An example of the task, or the first training task, of which code makes the tokens that the prepare stage made."""
    wanted = [("task", "==", task)] if task else None
    for file in (TEST_EXAMPLES, TRAINING_EXAMPLES) if task else (TRAINING_EXAMPLES,):
        with reading(prepared / file):
            columns = ["prompt", "input_ids", "targets", "reference"]
            rows = pq.read_table(prepared / file, columns=columns, filters=wanted).slice(0, LOOKED_AT).to_pylist()
        for row in rows:
            for prompt, call in _calls(tokenizer, row["prompt"]):
                if call.tokens(tokenizer, prompt) == row["input_ids"]:
                    return Shape(prompt, row["targets"][row["reference"]], call)
    return None


def _calls(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Iterator[tuple[str, Call]]:
    """Ways to put a prompt to a tokenizer, the plainest first."""
    if tokenizer.chat_template:
        try:
            said = Chat.of(tokenizer).said(prompt)
        except DataError:
            said = None
        if said is not None:
            yield said, Call(in_turns=True)
            yield said, Call(in_turns=True, options={"enable_thinking": False})
    more = {"return_token_type_ids": False} if "token_type_ids" in tokenizer.model_input_names else {}
    for is_ended in (False, True):
        yield prompt, Call(is_ended=is_ended, options=more)
        yield prompt, Call(is_ended=is_ended, options={"add_special_tokens": False, **more})


def model_card(
    cell: Cell, stage: str, export: ExportFacts, known: Facts, *, kind: Kind, merged: bool, base: str, tokenizer: str
) -> str:
    """Return the README.md of an export, in the hub's form.

    Args:
        cell: whose adapter.
        stage: that it is from.
        export: facts of the export.
        known: what else there is to say.
        kind: of the backbone.
        merged: whether it is a whole model.
        base: the backbone as the code names it.
        tokenizer: as the code names it.
    """
    task, name = export.task, f"{cell.name}-{export.task}" if export.task else cell.name
    data = ModelCardData(
        model_name=name,
        base_model=export.base.name if export.base.source == "hub" else None,
        base_model_relation=relation_of(export.base, merged=merged),
        library_name="transformers" if merged else "peft",
        pipeline_tag=kind.tag,
        tags=["mhrctl", cell.method, kind.tag],
        eval_results=_results(export, known, kind) or None,
        datasets=list(known.datasets) or None,
    )
    revision, quantisation = export.base.revision, export.base.quantisation
    return f"""---
{data.to_yaml()}
---

# {cell.name}{f" on {task}" if task else ""}

{_says(cell, stage, task, known)}

{_code(export, known, kind=kind, merged=merged, base=base, tokenizer=tokenizer)}
- method: `{cell.method}`, {counted(cell.heads, "head")}, seed {cell.seed}; exported from the `{stage}` stage
- suite: {export.suite}{f"; adapted to the task `{task}`" if task and stage == "adapt" else ""}
- backbone: `{export.base.name if merged else base}`{f" at `{revision}`" if revision else ""}, fingerprint `{
        export.backbone[:12]
    }`{f"; its linear layers were quantised meanwhile (`{quantisation}`)" if quantisation else ""}

{_recipe_said(known.recipe)}`card.json` has the hashes of these files and of the one that they were made from. Made with mhrctl.
"""


def relation_of(base: Base, *, merged: bool) -> str | None:
    """Return what the hub calls an export's relation to its backbone; None where that is not on the hub."""
    if base.source != "hub":
        return None
    return "finetune" if merged else "adapter"


def addressed(text: str, repo: str, *, former: str = ".") -> str:
    """Return the README.md of an export for the hub, where its code names the repository.

    Args:
        text: as it is.
        repo: `OWNER/NAME`.
        former: what the code names: the folder, or the repository that it was pulled from.
    """
    for begin, end in (("from_pretrained(", ")"), (", ", ")"), ("load_adapter(", ",")):
        text = text.replace(f"{begin}{json.dumps(former)}{end}", f"{begin}{json.dumps(repo)}{end}")
    return text.replace(IN_FOLDER, "", 1)


def _recipe_said(recipe: Mapping[str, Any]) -> str:
    return f"## Recipe\n\n```yaml\n{yaml_dump(dict(recipe)).strip()}\n```\n\n" if recipe else ""


def _results(export: ExportFacts, known: Facts, kind: Kind) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=kind.tag,
            dataset_type=export.suite,
            dataset_name=str(export.task),
            dataset_config=export.task,  # by which results of several tasks are told apart
            dataset_split="test",
            metric_type=name,
            metric_name=title_of(name),
            metric_value=score,
        )
        for name, score in known.scores.items()
    ]


def _says(cell: Cell, stage: str, task: str | None, known: Facts) -> str:
    """What it is, what it has learned from, and how well it does."""
    summary = f"{cell.row.summary[0].upper()}{cell.row.summary[1:]}."
    if stage != "adapt" or not task:
        return f"{summary} Pre-trained, and adapted to no task yet."
    shots, validated = known.shots or (0, 0)
    best = f", with {validated:,} more to choose the best step" if validated else ""
    learned = f"Learned from {shots:,} examples of `{task}`{best}; " if known.shots else ""
    if not known.scores:
        return f"{summary} {learned}not evaluated when it was exported (seed {cell.seed})."
    ordered = sorted(known.scores, key=lambda name: name != known.metric)
    scores = ", ".join(f"{title_of(name)} {known.scores[name]:.1f}" for name in ordered)
    chosen = known.metric is not None and OVER_CHOICES[known.metric]
    how = " The score is of choosing among the task's answers; what is generated may be none of them." if chosen else ""
    return f"{summary} {learned}{scores} on its {known.tests:,} test examples (seed {cell.seed}).{how}"


def _code(export: ExportFacts, known: Facts, *, kind: Kind, merged: bool, base: str, tokenizer: str) -> str:
    """The code that loads it, from within its folder, and asks it."""
    at = f", revision={json.dumps(export.base.revision)}" if export.base.revision and base == export.base.name else ""
    model = f'{kind.auto}.from_pretrained(".")'
    lines = [f"from transformers import {kind.auto}, AutoTokenizer", ""]
    if not merged:
        model = f'PeftModel.from_pretrained({kind.auto}.from_pretrained({json.dumps(base)}{at}), ".")'
        lines = ["from peft import PeftModel", *lines]
    lines += [f"model = {model}.eval()"]
    if known.shape is None:
        return "\n".join(["```python", *lines, "```", ""])
    lines += [f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(tokenizer)}{at if tokenizer == base else ''})"]
    options = ", ".join(f"{name}={value!r}" for name, value in known.options.items())
    answer = "answer" if kind.task_type == "SEQ_2_SEQ_LM" else 'answer[inputs["input_ids"].shape[1] :]'
    right = " ".join(known.shape.right.split())
    lines += [
        f"prompt = {json.dumps(known.shape.prompt, ensure_ascii=False)}  # an example, to be answered {json.dumps(right)}",
        f"inputs = {known.shape.call.code}",
        f"answer = model.generate(**inputs, {options})[0]",
        f"print(tokenizer.decode({answer}, skip_special_tokens=True))",
    ]
    is_local = not merged and export.base.source != "hub"
    where = IN_FOLDER + (" The backbone lies in the project that this was exported from." if is_local else "")
    return "\n".join([where, "", "```python", *lines, "```", ""])
