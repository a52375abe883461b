"""The section `prepare` of params.yaml says where tasks come from, and how they become examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, GetPydanticSchema, model_validator
from pydantic_core.core_schema import literal_schema

from mhrctl.config.fields import Closed, NonNegative, Once, Positive, Seed, SettingError, Tokens, Vocabulary, added
from mhrctl.config.sources import SOURCES, complaint
from mhrctl.errors import nearest, unknown

TRAINED_TOKENIZERS = ("word", "bpe")
"""Values of `prepare.tokenizer` that ask for a tokenizer of the suite's own, trained on its training tasks."""


WORDINGS = ("original", "tk_instruct")
"""Values of `prepare.prompt` that are no template; the first is each source's own wording."""
PROMPT_FIELDS = ("definition", "input")
"""What a template of `prepare.prompt` may name in braces: all that the task says, and the input."""

SourceName = Annotated[str, GetPydanticSchema(lambda _source, _handler: literal_schema([*SOURCES]))]
"""One of the sources of tasks."""


FramingName = Literal["encoder_decoder", "causal"]
"""A kind of backbone, for which prompts and answers become tokens (`mhrctl.data.framing`)."""
BACKBONE_KINDS: Mapping[FramingName, str] = {"encoder_decoder": "an encoder-decoder", "causal": "a causal language model"}
"""{`prepare.framing`: the backbones that it is for, in words}."""
SCRATCH_FRAMINGS: Mapping[str, FramingName] = {"t5": "encoder_decoder", "llama": "causal"}
"""{`backbone.scratch.architecture`: the framing that it needs}."""
ANSWER_CUE = "\nOutput:"


class T0Params(Closed):
    """The section sets the T0 benchmark; it is read only where `prepare.source` is `t0`."""

    by: Literal["template", "dataset"] = Field("template", description="a training task is a template (313) or a data set (38)")
    max_rows: Positive = Field(500_000, description="rows of a data set, shared among its templates; each takes its first")
    train: Positive | None = Field(None, description="rows of a training task to keep, drawn at random; null keeps all")
    validation: Positive = Field(100, description="rows of a training task held out at random")
    few_shot: str | None = Field(
        None, description="folder of few-shot sets, T-Few's or rendered ones; null draws them from the hub's training splits"
    )
    seeds: Annotated[list[Seed], Once] = Field([], description="whose few-shot sets to read; empty reads all that there are")
    anli_shots: Literal[32, 50] = Field(50, description="examples of ANLI's sets: 50 in T-Few's files, 32 in the paper's code")
    promptsource: str | None = Field(None, description="a checkout of promptsource, whose templates word raw records")
    templates: Literal["one", "all"] = Field("one", description="of a scored record: one, drawn once, or each of them")
    evaluation: str = Field("hub", description="`hub`, or a folder with <task>.jsonl or <task>.parquet of scored records")
    evaluation_seeds: Annotated[list[Seed], Once] = Field(
        [], description="for trials: score the few-shot sets of these seeds in their place"
    )
    training_few_shot: Annotated[list[str], Once] = Field(
        [], description="for trials: train on the few-shot sets of these tasks, not on P3"
    )


class CompositionalParams(Closed):
    """The section makes the embedded suite harder; it is read only where `prepare.source` is `compositional`."""

    operations: Literal[2, 3] = Field(2, description="operations that a task is composed of")
    unseen: int = Field(0, ge=0, le=12, description="operations that the backbone is not trained on")


class ColumnsParams(Closed):
    """The section says which columns of a data set say what; a name such as `answers.text` is of a field within a column."""

    input: str | None = Field(None, description="of inputs; null, without a target too, looks for a form that is known")
    target: str | None = Field(None, description="of targets: a text, a class label, or the number of one of the choices")
    targets: str | None = Field(None, description="of targets in place of `target`: a text, or a list of right answers")
    choices: str | None = Field(None, description="of answer choices, a list of texts")
    task: str | None = Field(
        None, description="of tasks' names, by which the data set falls into tasks; null makes it one task"
    )

    @model_validator(mode="after")
    def _input_has_a_target(self) -> ColumnsParams:
        if self.target and self.targets:
            raise ValueError("`target` and `targets` both name the targets; leave one out")
        if bool(self.input) != bool(self.target or self.targets):
            raise ValueError("`input` goes with `target` or `targets`; name both, or neither for a form that is known")
        return self


class SplitsParams(Closed):
    """The section says which splits of a data set are read."""

    train: str | None = Field(
        None, description="to train on, or to adapt to a test task with; null takes `train`, or the only one"
    )
    test: str | None = Field(
        None, description="to score test tasks on; null takes `test`; without one, a part of the other split"
    )


class DataSetParams(Closed):
    """The section names a data set of test tasks beside that of training tasks."""

    path: str | None = Field(None, description="file or folder")
    hub: str | None = Field(None, description="hub id in place of `path`")
    revision: str = Field("main", description="revision of `hub`")
    config: str | Annotated[list[str], Field(min_length=1), Once] | None = Field(None, description="as prepare.config")
    columns: ColumnsParams | None = Field(None, description="as prepare.columns, which it takes if it is null")
    splits: SplitsParams | None = Field(None, description="as prepare.splits, which it takes if it is null")

    @model_validator(mode="after")
    def _is_one_place(self) -> DataSetParams:
        if bool(self.path) == bool(self.hub):
            raise ValueError("give one of `path` and `hub`, the data set of the test tasks")
        return self


class PrepareParams(Closed):
    """The section says how tasks come from a source, are split, put into prompts and tokenised."""

    source: SourceName = Field(description="where the tasks come from")
    path: str | None = Field(
        None, description="folder of the source's tasks (superni, jsonl; t0: of P3's training tasks; hub: or a file)"
    )
    hub: str | None = Field(
        None, description="hub id in place of `path`: a mirror of Super-NaturalInstructions, P3, a data set"
    )
    revision: str = Field("main", description="revision of `hub`")
    test_tasks: Annotated[list[str], Once] = Field(
        [],
        description="test tasks to use, or a named list of them; empty uses all (hub: which of the data set's tasks they are)",
    )
    seed: Seed = Field(42, description="of the training tasks' shuffle and of the reference drawn for scoring")
    examples: Positive = Field(100, description="examples of a task in each of its train, validation and test splits")
    definition: bool = Field(True, description="put the task's definition into the prompt")
    task_name: bool = Field(False, description="put the task's name into the prompt")
    positive_examples: NonNegative = Field(0, description="worked examples in the prompt, as far as they fit")
    prompt: str = Field(
        "original",
        description="a template with `{definition}` and `{input}`; `original` is the source's (jsonl, hub: the definition, an"
        " empty line, the input), and `tk_instruct` another of superni's",
    )
    tokenizer: str = Field(description="`word` or `bpe` (trained on the training tasks), a hub id, or a folder")
    tokenizer_revision: str = Field("main", description="revision of a tokenizer from the hub")
    vocab_size: Vocabulary = Field(8000, description="entries at most of a tokenizer trained here")
    max_input_tokens: Tokens = Field(1024, description="longer inputs are cut")
    max_target_tokens: Tokens = Field(128, description="longer targets are cut")
    t0: T0Params = Field(T0Params(), description="of source t0")
    compositional: CompositionalParams = added(CompositionalParams(), description="of source compositional")
    config: str | Annotated[list[str], Field(min_length=1), Once] | None = added(
        None, description="source hub: configuration of the data set; of a list, each is a task or tasks"
    )
    columns: ColumnsParams = added(ColumnsParams(), description="source hub: what the data set's columns are")
    splits: SplitsParams = added(SplitsParams(), description="source hub: which splits to read")
    test: DataSetParams | None = added(None, description="source hub: a data set whose tasks are the test tasks")
    metric: str | None = added(
        None, description="source hub: of all tasks; null takes accuracy for tasks with choices, else rouge_l"
    )
    max_rows: Positive | None = added(None, description="source hub: rows of a split to read, its first; null reads all")
    strict: bool = added(
        False,
        description="superni, hub: reject the first record that cannot be read; false leaves such records out and counts them",
    )
    rouge_tokenizer: Literal["auto", "english", "gpt2", "by_reference"] = added(
        "auto", description="of the test tasks' ROUGE-L; auto takes what reads each task's answers"
    )

    framing: FramingName = added(
        "encoder_decoder", description="how prompts and answers become tokens; causal is for decoder-only models"
    )
    answer_cue: str = added(
        ANSWER_CUE, description="framing causal: what ends a prompt that does not end in a colon; empty adds nothing"
    )
    chat: bool = added(
        False, description="framing causal: put prompts through the tokenizer's chat template, as a turn of the user's"
    )
    tokenizer_gguf: str | None = added(
        None, description="a GGUF file in the folder or repository `tokenizer`, which has the tokenizer in it"
    )

    @model_validator(mode="after")
    def _settings_fit_the_source(self) -> PrepareParams:
        if problem := complaint(self, {name: field.default for name, field in type(self).model_fields.items()}):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _prompt_is_a_template_or_a_wording(self) -> PrepareParams:
        if self.prompt in WORDINGS:
            if self.prompt != WORDINGS[0] and self.source != "superni":
                raise SettingError(f"{self.prompt} is a wording of source superni; leave it out, or give a template", "prompt")
            return self
        fields = re.findall(r"\{(\w+)\}", self.prompt)
        if odd := next((field for field in fields if field not in PROMPT_FIELDS), None):
            raise SettingError(unknown("field of a prompt", odd, PROMPT_FIELDS), "prompt")
        if "input" not in fields:
            near = nearest(self.prompt, WORDINGS)
            hint = f"; did you mean {near!r}?" if near else ", such as '{definition}\\n\\n{input}'"
            raise SettingError(f"is neither {' nor '.join(WORDINGS)}, and no template with {{input}}{hint}", "prompt")
        return self

    @model_validator(mode="after")
    def _size_is_of_a_trained_tokenizer(self) -> PrepareParams:
        if "vocab_size" in self.model_fields_set and self.tokenizer not in TRAINED_TOKENIZERS:
            said = f"tokenizer {self.tokenizer} has the entries that it has; leave `vocab_size` out"
            raise SettingError(said, "vocab_size")
        return self

    @model_validator(mode="after")
    def _cue_is_of_causal_framing(self) -> PrepareParams:
        if "answer_cue" in self.model_fields_set and self.framing != "causal":
            raise SettingError("an encoder-decoder needs no cue for its answer; leave `answer_cue` out", "answer_cue")
        return self

    @model_validator(mode="after")
    def _chat_is_of_a_causal_framing_and_a_template(self) -> PrepareParams:
        if self.chat and self.framing != "causal":
            raise SettingError("chat templates are of decoder-only models; set `framing: causal`, or leave `chat` out", "chat")
        if self.chat and self.tokenizer in TRAINED_TOKENIZERS:
            said = f"tokenizer {self.tokenizer} is trained here and has no chat template; name another, or leave `chat` out"
            raise SettingError(said, "chat")
        if self.chat and "answer_cue" in self.model_fields_set:
            raise SettingError("the chat template asks for the answer; leave `answer_cue` out", "answer_cue")
        return self

    @model_validator(mode="after")
    def _file_is_of_a_tokenizer_that_is_loaded(self) -> PrepareParams:
        if self.tokenizer_gguf is not None and self.tokenizer in TRAINED_TOKENIZERS:
            said = f"tokenizer {self.tokenizer} is trained here; name the folder or repository of the file as `tokenizer`"
            raise SettingError(said, "tokenizer_gguf")
        return self
