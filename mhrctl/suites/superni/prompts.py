"""Super-NaturalInstructions has two prompts: docs/recipe.md, section 2.4."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

from mhrctl.suites.task import Task

NEAR = 16
"""Tokens from the limit within which a sum of lengths decides nothing: more than white space between two parts can change."""


@dataclass(frozen=True)
class Prompt:
    """A prompt is the words that a prompt puts around a task and an instance.

    Attributes:
        definition: around the task's definition.
        positive: around a worked example.
        instance: around the instance's input, last.
        ending: what a prompt that is too long ends with, in place of what is cut; empty leaves cutting to the caller.
    """

    definition: str
    positive: str
    instance: str
    ending: str = ""


PROMPTS: dict[str, Prompt] = {
    "original": Prompt(
        definition="Definition: {}\n\n",
        positive=" Positive Example {number} -\nInput: {input}\n Output: {output}\n",
        instance="Now complete the following example -\nInput: {}\nOutput: ",
    ),
    "tk_instruct": Prompt(
        definition="Task definition: {}\n",
        positive=" Positive Example {number} -\nInput: {input}\n Output: {output} </s>\n\n",
        instance="Now complete the following example -\nInput: {}\nOutput:",
        ending="\nOutput:",
    ),
}
"""`original` is prompt A of docs/recipe.md, section 2.4, of the paper's period; `tk_instruct` is B, of the authors' later code.

That section names where B differs from A, and leaves its other words open: they are A's here. The authors' runs with B show no
task name. For inputs of A that are too long no rule is known: prepare cuts their last tokens, the end token kept, as
a tokenizer's own truncation does."""


def prompter(
    prompt: Prompt,
    task: Task,
    *,
    task_name: bool,
    definition: bool,
    positives: int,
    longest: int,
    count: Callable[[str], int],
    cut: Callable[[str, int], str],
) -> Callable[[str], str]:
    """Make the function that puts a task's prompt around the input of any of its instances.

    Worked examples are added in order as long as the whole input fits; the first that does not fit ends them. The length of the
    whole is the sum of its parts', each counted once for all instances. The parts meet at white space, so the sum is exact for
    tokenizers that, like T5's, split there first, and a token or two off for those that, like GPT-2's, join white space to what
    follows it: where the sum is near the limit, the whole is counted.

    Args:
        prompt: one of `PROMPTS`.
        task: gives name, definition and worked examples.
        task_name: begin with the task's name.
        definition: state the task's definition, if it has one.
        positives: the most worked examples to show.
        longest: tokens of the whole input, end token included.
        count: the tokens of a text, end token included.
        cut: a text's beginning of so many tokens; used by a prompt with an `ending`.
    """
    head = f"{task.name}. " if task_name else ""
    if definition and task.definition:
        head += prompt.definition.format(_ended(task.definition))
    heads = [head]
    for number, (text, answer) in enumerate(task.positives[:positives], 1):
        heads.append(heads[-1] + prompt.positive.format(number=number, input=_ended(text), output=_ended(answer)))
    must_fit = len(heads) > 1 or bool(prompt.ending)
    room = [longest - count(text) + count("") for text in heads] if must_fit else []

    def fits(shown: int, body: str, tokens: int) -> bool:
        spare = room[shown] - tokens
        return spare >= 0 if abs(spare) > NEAR else count(heads[shown] + body) <= longest

    def put(example_input: str) -> str:
        body = prompt.instance.format(_ended(example_input))
        if not must_fit:
            return head + body
        tokens = count(body)
        fitting = next((shown for shown in range(len(heads)) if not fits(shown, body, tokens)), len(heads))
        text = heads[max(fitting - 1, 0)] + body
        if fitting or not prompt.ending:
            return text
        return cut(text, max(longest - count(prompt.ending), 0)) + prompt.ending

    return put


def _ended(text: str) -> str:
    """The text with a full stop, unless it ends in punctuation."""
    text = text.strip()
    return text if text.endswith(tuple(string.punctuation)) else f"{text}."
