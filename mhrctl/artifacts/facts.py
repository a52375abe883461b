"""Each stage's card has facts of its output: results that a reader needs to see that things fit, and counts.

The fields stand in the order of `card.json`. A reader of an older mhrctl passes over a fact that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from mhrctl.config.tasks import FramingName


class Facts(BaseModel):
    """Facts say of an output what a reader needs, and are frozen."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class Parameters(Facts):
    """This says how many numbers are trained."""

    multi_task: int = Field(0, ge=0, description="in pre-training, on all tasks, but for the routing")
    routing: int = Field(0, ge=0, description="in pre-training, of the routing")
    adaptation: int = Field(0, ge=0, description="for each new task")


def _pretrained(parameters: Parameters) -> dict[str, int]:
    return {"multi_task": parameters.multi_task, "routing": parameters.routing}


def _adapted(value: Any) -> Any:  # noqa: ANN401 - whatever the card holds
    return {"adaptation": value} if isinstance(value, int) else value


class PrepareFacts(Facts):
    """These are the facts of prepared examples."""

    suite: str
    tokenizer: str = Field(description="hash of its files")
    vocab_size: int = Field(description="entries of the tokenizer")
    framing: FramingName = Field(
        "encoder_decoder",
        description="the kind of backbone that the tokens are for",
        exclude_if=lambda name: name == "encoder_decoder",
    )
    chat: str | None = Field(
        None,
        description="the token that ends an answer, where prompts went through the tokenizer's chat template",
        exclude_if=lambda end: end is None,
    )


class BackboneFacts(Facts):
    """These are the facts of a backbone."""

    source: Literal["hub", "local", "scratch"]
    name: str = Field(description="hub id, folder, or one made of its size")
    path: str | None = Field(description="of a local one, relative to the output folder")
    revision: str | None = Field(description="on the hub")
    parameters: int = Field(description="numbers in its weights")
    tied_output: bool = Field(description="whether the output layer is the input embedding")
    fingerprint: str = Field(
        description="hash of names, shapes and values of its weights, and of the settings of generation if it has any"
    )
    generation: dict[str, Any] = Field(
        {}, description="what shapes answers besides beams and length", exclude_if=lambda settings: not settings
    )
    config: str | None = Field(
        None, description="of a local one, hash of what its config.json says", exclude_if=lambda digest: digest is None
    )
    gguf: str | None = Field(None, description="the GGUF file that its weights are from", exclude_if=lambda file: file is None)
    quantisation: str | None = Field(
        None, description="of its linear layers, whose weights are in the output then", exclude_if=lambda name: name is None
    )
    packing: bool | None = Field(
        None,
        description="of a causal model, whether its sequences are packed, as the stage's test allows, or padded",
        exclude_if=lambda packs: packs is None,
    )
    padded_because: str | None = Field(None, description="why they are padded", exclude_if=lambda reason: reason is None)


class Kept(Facts):
    """This says which step of a training is kept, where it is the best."""

    step: int = Field(ge=0)
    validation_loss: float = Field(description="mean over training tasks")


class PoolMember(Facts):
    """This says where an adapter of a pool is from."""

    source: str = Field(description="hub id, or the folder as it was named")
    revision: str | None = Field(description="its commit on the hub")
    sha256: str = Field(description="of its folder")
    licence: str | None = Field(description="as its README says")
    rank: int
    alpha: float
    samples: int = Field(0, description="inputs that it was trained on, beside it", exclude_if=lambda count: not count)


class Lower(Facts):
    """This says which output is frozen under an adapter."""

    stage: str
    cell: str
    sha256: str = Field(description="of its adapters")


class PretrainFacts(Facts):
    """These are the facts of a pre-training, and of the average of its skills."""

    suite: str
    tasks: list[str] = Field(description="those of the routing's rows, or of the adapters if each task has its own")
    backbone: str = Field(description="its fingerprint")
    parameters: Annotated[Parameters, PlainSerializer(_pretrained)]
    kept: list[Kept] = Field(
        [],
        description="of each adapter that was trained alone, or of the one of all tasks; nothing where the last step is kept",
        exclude_if=lambda kept: not kept,
    )
    pool: list[PoolMember] = Field(
        [], description="of each adapter that was trained elsewhere, where it is from", exclude_if=lambda pool: not pool
    )
    under: Lower | None = Field(None, description="what is frozen under the adapters", exclude_if=lambda under: under is None)
    skills: list[str] = Field(
        [], description="of a pool, the adapters that the skills were at the beginning", exclude_if=lambda skills: not skills
    )


class IndexFacts(Facts):
    """These are the facts of the index of training tasks."""

    suite: str
    tasks: list[str]
    encoder: str = Field(description="what embedded the inputs")


class AdaptFacts(Facts):
    """These are the facts of an adaptation; a card has its parameters as one number."""

    suite: str
    tasks: list[str]
    shots: dict[str, tuple[int, int]] = Field(description="{task: examples to train on, and to validate on}")
    validation: dict[str, float] = Field(description="{task: its best validation score}")
    undecided: list[str] = Field([], description="tasks whose validation scores never differed, so that nothing chose the step")
    rouge_tokenizers: dict[str, str] = Field({}, description="{task: the tokenizer of its ROUGE-L}")
    evaluations: dict[str, tuple[int, int]] = Field(
        {},
        description="where losses chose from a pool, {task: evaluations of an adapter on an example, and of all on all}",
        exclude_if=lambda evaluations: not evaluations,
    )
    under: Lower | None = Field(None, description="what is frozen under the adapters", exclude_if=lambda under: under is None)
    backbone: str = Field(description="its fingerprint")
    parameters: Annotated[
        Parameters,
        BeforeValidator(_adapted),
        PlainSerializer(lambda parameters: parameters.adaptation, return_type=int),
    ]


class EvaluateFacts(Facts):
    """These are the facts of an evaluation."""

    tasks: list[str]
    rouge_tokenizers: dict[str, str] = Field({}, description="{task: the tokenizer of its ROUGE-L}")


class InspectFacts(Facts):
    """These are the facts of an inspection of a routing."""

    suite: str


class Base(Facts):
    """The base is the backbone that an exported adapter belongs on."""

    source: Literal["hub", "local", "scratch"]
    name: str = Field(description="hub id or folder")
    revision: str | None
    quantisation: str | None = Field(
        None, description="of its linear layers while the adapter was trained", exclude_if=lambda name: name is None
    )


class ExportFacts(Facts):
    """These are the facts of an exported adapter."""

    task: str | None = Field(description="that it was adapted to or trained for; None is all")
    base: Base
    suite: str
    backbone: str = Field(description="its fingerprint")
    stacked: bool = Field(
        False, description="whether it belongs on the adapter in the folder beside", exclude_if=lambda stacked: not stacked
    )


class HarnessTasksFacts(Facts):
    """These are the facts of tasks that were exported to lm-evaluation-harness."""

    suite: str
    tasks: list[str]


class PoolFacts(Facts):
    """These are the facts of several exports that are one repository of the hub."""

    base: Base
    backbone: str = Field(description="its fingerprint")
    tasks: dict[str, str | None] = Field(description="{folder of an export: its task; None is all}")


FACTS: Mapping[str, type[Facts]] = {
    "prepare": PrepareFacts,
    "backbone": BackboneFacts,
    "pretrain": PretrainFacts,
    "average": PretrainFacts,
    "index": IndexFacts,
    "adapt": AdaptFacts,
    "evaluate": EvaluateFacts,
    "inspect": InspectFacts,
    "export": ExportFacts,
    "pool": PoolFacts,
    "pull": Facts,
}
"""{stage, or command that writes a card: what its cards say}."""
