"""A method may have settings of its own: these are their types, a class for each method or for all of a kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mhrctl.config.fields import Closed


class NoOptions(Closed):
    """These are the settings of a method that has none of its own."""


class MosaOptions(NoOptions):
    """These are the settings of MoSA, the mixture of sparse adapters (arXiv 2312.02923)."""

    copies: int = Field(4, ge=2, description="copies of the LoRA, each of which may change its own entries alone")
    sparse: Literal["hierarchical", "full"] = Field(
        "hierarchical", description="what is divided among the copies: B alone, with a shared dense A, or both matrices"
    )
    consistency: float = Field(1.0, ge=0, description="weight of the divergence between two draws of copies for a batch")


class AdamixOptions(NoOptions):
    """These are the settings of AdaMix, the mixture of adaptations (arXiv 2205.12410)."""

    copies: int = Field(4, ge=2, description="copies of the LoRA, one of which a step draws for each layer")
    shared: Literal["B", "A", "none"] = Field("B", description="the matrix that all copies have in common")
    consistency: float = Field(1.0, ge=0, description="weight of the divergence between two draws of copies for a batch")


class AlignOptions(NoOptions):
    """These are the settings of Align-LoRA (arXiv 2508.05078)."""

    weight: float = Field(0.01, ge=0, description="of the distance between the tasks of a batch, which is added to the loss")
    distance: Literal["mmd", "kl"] = Field(
        "mmd",
        description="between tasks: maximum mean discrepancy, or KL divergences both ways, to which a task of one row in a"
        " batch does not count",
    )


class MTLOptions(NoOptions):
    """These are the settings of MTL-LoRA (arXiv 2410.09437)."""

    ups: int = Field(3, ge=1, description="matrices B, which each task mixes for itself")
    temperature: float = Field(0.1, gt=0, description="of the softmax of a task's weights over them")


class CPolyOptions(NoOptions):
    """These are the settings of C-Poly (arXiv 2312.03248)."""

    private_skills: int = Field(1, ge=1, description="skills of each task alone, beside the `pretrain.skills` of all")


class SmearOptions(NoOptions):
    """These are the settings of SMEAR, the soft merging of experts (arXiv 2306.03745)."""

    expert_dropout: float = Field(
        0.1, ge=0, lt=1, description="part of the LoRAs that an example does without in a layer, while training"
    )


class SumOptions(NoOptions):
    """These are the settings of a merge that adds updates up."""

    scale: float | None = Field(
        None, gt=0, description="factor of each update; null for that by which equal updates become one of them"
    )
    form: Literal["product", "factors"] = Field(
        "product", description="what is merged: the products of B and A, or all A and all B for themselves"
    )


class DropOptions(SumOptions):
    """These are the settings of a merge that leaves out entries."""

    density: float = Field(0.2, gt=0, le=1, description="part of the entries of each update that stays")


class ElectOptions(DropOptions):
    """These are the settings of a merge that elects signs."""

    election: Literal["total", "frequency"] = Field(
        "total", description="an entry's sign: that of the sum, or the one that more of the updates have"
    )


class AlignedOptions(ElectOptions):
    """These are the settings of a merge in a common basis, which products alone have."""

    form: Literal["product"] = Field("product", description="what is merged: the products of B and A")


class HubOptions(NoOptions):
    """These are the settings of LoraHub's search for weights (arXiv 2307.13269)."""

    evaluations: int = Field(40, ge=1, description="mixtures that are tried for a task")
    bound: float = Field(1.5, gt=0, description="weights lie between it and its negative")
    penalty: float = Field(0.05, ge=0, description="of the mean absolute weight, which is added to the loss")


class ArrowOptions(NoOptions):
    """These are the settings of Arrow, which routes over a pool (arXiv 2405.11157), and of GenKnowSub."""

    top_k: int = Field(3, ge=1, description="adapters of the pool that count for a token, those of the largest scores")
    temperature: float = Field(1.0, gt=0, description="of the softmax over their scores")
    general: list[str] = Field(
        [], description="adapters of the pool whose mean A and B are subtracted from all others, which alone are routed to"
    )


class RouteOptions(NoOptions):
    """These are the settings of a router over the adapters of a pool (LoraRetriever, arXiv 2402.09997)."""

    top_k: int = Field(3, ge=1, description="nearest of what a query is compared with, whose adapters answer it together")
    similarity: Literal["cosine", "product"] = Field(
        "cosine", description="of a query and a mean of inputs: with lengths divided out, or with the mean's as it is"
    )


class TaskRouteOptions(RouteOptions):
    """These are the settings of a router over tasks, for each of which an adapter is chosen (LORAUTER, arXiv 2601.21795)."""

    temperature: float = Field(0.2, gt=0, description="similarities are divided by it before their softmax")
    softmax: Literal["nearest", "all"] = Field(
        "nearest", description="over the nearest tasks, or over all, of whose weights those of the nearest are kept"
    )
    examples: int = Field(200, ge=1, description="validation examples of a training task at most")
    first: int | None = Field(
        None, ge=1, description="examples that all adapters are tried on; null for few enough that one is left in the end"
    )
