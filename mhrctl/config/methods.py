"""The methods table says what is pre-trained, what adaptation starts from, and what it trains.

A method is a row of data, and a variant of it another row. The names of the paper's methods are those of
`mhrctl/report/tables.json`; further methods stand beside them. `mhrctl.adapters.build` makes the adapter of a row; everything
else asks a row by its properties, and an adapter by what its class can do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mhrctl.config.colours import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY
from mhrctl.config.options import (
    AdamixOptions,
    AlignedOptions,
    AlignOptions,
    ArrowOptions,
    CPolyOptions,
    DropOptions,
    ElectOptions,
    HubOptions,
    MosaOptions,
    MTLOptions,
    NoOptions,
    RouteOptions,
    SmearOptions,
    SumOptions,
    TaskRouteOptions,
)
from mhrctl.errors import ParamsError, unknown

Routing = Literal["none", "learned", "random", "task", "token", "input", "private"]


@dataclass(frozen=True)
class Method:
    """A method is one row of the methods table.

    Attributes:
        name: the row's name.
        summary: what it is for, in one line for tables and help.
        pretrain: the method whose pre-training cell this row adapts from (itself, or the one it shares).
        adapter: the class in `mhrctl.adapters` that pre-training trains, as `module:Class`; by name, since nothing here loads
            torch.
        routing: over the skills of the inventory: `none` (one skill), `learned`, `random` (a draw for each example), `task`
            (no skills, but numbers of each training task's own in each layer), `token` (in each layer, by what it reads),
            `input` (in each layer, by the mean of what it reads of an example's prompt), or `private` (an adapter of its own
            for each).
        multi_head: whether the number of heads is the user's; otherwise it is one.
        is_matched: whether its one LoRA has the rank of all skills of an inventory together, and so as many numbers.
        start: what adaptation starts from: `pretrain` (what was pre-trained), `average` (the mean of its skills or copies),
            `soup` (one adapter made of those of the most similar training tasks), `pool` (all adapters, and a router over
            them), `route` (nothing: each query is answered by adapters of its own choice), or `new_lora` (a new LoRA on the
            tuned weights).
        router: the class in `mhrctl.adapters` that routes over a pool, if it starts from that; named as `adapter` is.
        compares: what a query that is routed is compared with: the validation inputs of `tasks`, or the training inputs of
            `adapters`.
        merge: how a soup is made: `mean` of all A and of all B, `search` for weights of their sums, or a name of
            `mhrctl.adapters.merging.RULES`.
        trains: what adaptation trains: everything it starts from, only the routing of the new task, or nothing.
        settings: {section: settings} that make the row what it is; params.yaml may set them at the method.
        options: the type of the method's own settings of pre-training, `pretrain.options` in params.yaml.
        adapt_options: likewise of adaptation, `adapt.options`.
        look: its colour in figures, one for a family of methods, and its marker, one for what adaptation trains: all (o), the
            routing (^), an average (s); another where its colour would look like that of another method to the colour-blind.
    """

    name: str
    summary: str
    pretrain: str
    adapter: str = "inventory:Inventory"
    routing: Routing = "none"
    multi_head: bool = False
    is_matched: bool = False
    start: Literal["pretrain", "average", "soup", "pool", "route", "new_lora"] = "pretrain"
    router: str | None = None
    compares: Literal["tasks", "adapters"] = "tasks"
    merge: str = "mean"
    trains: Literal["adapter", "routing", "nothing"] = "adapter"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: type[NoOptions] = NoOptions
    adapt_options: type[NoOptions] = NoOptions
    look: tuple[str, str] = (INK, "o")

    @property
    def is_single(self) -> bool:
        """Whether adaptation starts from one adapter without a routing of tasks, which can be trained on."""
        return self.start == "average" or (self.start == "pretrain" and self.routing in ("none", "token", "input"))

    @property
    def start_stage(self) -> Literal["pretrain", "average"]:
        """The stage whose output adaptation reads."""
        return "average" if self.start == "average" else "pretrain"

    @property
    def mixes_skills(self) -> bool:
        """Whether pre-training mixes several skills, by a learned or a random routing."""
        return self.routing in ("learned", "random")

    @property
    def routes_tasks(self) -> bool:
        """Whether a row of a batch gets the adapter of its task, made of what all tasks share."""
        return self.mixes_skills or self.routing == "task"

    @property
    def routes_tokens(self) -> bool:
        """Whether pre-training trains several experts, between which each layer chooses by what it reads."""
        return self.routing == "token"

    @property
    def routes_inputs(self) -> bool:
        """Whether pre-training trains several experts, which each layer mixes for an example by what it reads of the prompt."""
        return self.routing == "input"

    @property
    def has_experts(self) -> bool:
        """Whether pre-training trains several adapters and in each layer a router, and knows no tasks."""
        return self.routes_tokens or self.routes_inputs

    @property
    def learns_routing(self) -> bool:
        """Whether pre-training learns a routing for each task."""
        return self.routing == "learned"

    @property
    def adapts_routing(self) -> bool:
        """Whether adaptation learns a routing for the new task."""
        return self.learns_routing and self.start == "pretrain"

    @property
    def has_average(self) -> bool:
        """Whether pre-training leaves skills, copies or what tasks have of their own, whose mean is one LoRA."""
        return self.routes_tasks or self.start == "average"

    @property
    def is_private(self) -> bool:
        """Whether pre-training trains an adapter of its own for each data set."""
        return self.routing == "private"

    @property
    def needs_index(self) -> bool:
        """Whether adaptation chooses from a pool, by the index or by the shots, and so there is nothing before it."""
        return self.makes_soup or self.routes_queries

    @property
    def makes_soup(self) -> bool:
        """Whether adaptation starts from one adapter that is made of several of a pool."""
        return self.start == "soup"

    @property
    def routes_queries(self) -> bool:
        """Whether each query is answered by adapters of a pool that are chosen for it, and nothing is trained."""
        return self.start == "route"

    @property
    def adds_lora(self) -> bool:
        """Whether adaptation trains a new LoRA on top of weights that pre-training has tuned."""
        return self.start == "new_lora"

    @property
    def can_be_stacked(self) -> bool:
        """Whether an adapter can be frozen under what it trains: under LoRAs, unless they come of a pool."""
        return self.adapter not in _OTHER_THAN_LORAS and not self.is_private

    @property
    def takes_pool(self) -> bool:
        """Whether its skills can be LoRAs of a pool at the beginning."""
        return self.mixes_skills and self.adapter == "inventory:Inventory"

    @property
    def trains_routing_alone(self) -> bool:
        """Whether adaptation leaves the skills as they are."""
        return self.trains == "routing"

    @property
    def trains_nothing(self) -> bool:
        """Whether adaptation makes the adapter of all test tasks, and leaves it as it is."""
        return self.trains == "nothing"


_OTHER_THAN_LORAS = ("scales:Scales", "weights:Weights", "experts:HydraLoRA", "smear:SMEAR")

POOLED = "adapter_soup"
"""The method whose pre-training is a pool: an adapter for each training task, or those that others trained."""

_LIGHT: dict[str, dict[str, Any]] = {"pretrain": {"targets": "light"}}
_CHOICE_LOSSES: dict[str, dict[str, Any]] = {"adapt": {"mc_weight": 1.0, "unlikelihood_weight": 1.0}}
_RANK_16 = {"pretrain": {"rank": 16}}


def _merge(name: str, summary: str, options: type[NoOptions], marker: str) -> Method:
    """A row that merges what AdapterSoup averages."""
    return Method(
        name,
        summary,
        POOLED,
        routing="private",
        start="soup",
        merge=name,
        adapt_options=options,
        look=(PURPLE, marker),
    )


def _router(
    name: str, summary: str, compares: Literal["tasks", "adapters"], options: type[NoOptions], look: tuple[str, str]
) -> Method:
    """A row that routes queries over what AdapterSoup averages."""
    return Method(
        name,
        summary,
        POOLED,
        routing="private",
        start="route",
        compares=compares,
        trains="nothing",
        adapt_options=options,
        look=look,
    )


_ROWS = (
    Method("lora", "one LoRA shared by all tasks, then tuned on each: the plain baseline", "lora", look=(BLUE, "o")),
    Method(
        "lora_big",
        "LoRA of rank 16: twice the parameters of eight skills of rank 1",
        "lora_big",
        settings=_RANK_16,
        look=(BLUE, "D"),
    ),
    Method(
        "lora_matched",
        "one LoRA with as many parameters as all skills of an inventory",
        "lora_matched",
        is_matched=True,
        look=(BLUE, "X"),
    ),
    Method(
        "ia3",
        "vectors that scale k, v and wi_1: the fewest parameters",
        "ia3",
        "scales:Scales",
        settings=_LIGHT,
        look=(INK, "v"),
    ),
    Method(
        "tfew",
        "(IA)3 tuned with T-Few's losses over answer choices",
        "ia3",
        "scales:Scales",
        settings=_LIGHT | _CHOICE_LOSSES,
        look=(INK, "X"),
    ),
    Method(
        "adapter_soup",
        "a LoRA a training task; the most similar tasks' averaged",
        "adapter_soup",
        routing="private",
        start="soup",
        look=(PURPLE, "P"),
    ),
    Method("poly", "whole skills mixed by task; routing and skills tuned", "poly", routing="learned", look=(ORANGE, "o")),
    Method(
        "poly_z", "Poly, only the new task's routing tuned", "poly", routing="learned", trains="routing", look=(ORANGE, "^")
    ),
    Method(
        "poly_mu",
        "Poly's skills averaged into one LoRA, which is tuned",
        "poly",
        routing="learned",
        start="average",
        look=(ORANGE, "s"),
    ),
    Method(
        "mhr",
        "blocks of skills mixed, one routing a head; all tuned",
        "mhr",
        routing="learned",
        multi_head=True,
        look=(GREEN, "o"),
    ),
    Method(
        "mhr_z",
        "MHR, only the new task's routing tuned",
        "mhr",
        routing="learned",
        multi_head=True,
        trains="routing",
        look=(GREEN, "^"),
    ),
    Method(
        "mhr_mu",
        "MHR's skills averaged into one LoRA, which is tuned",
        "mhr",
        routing="learned",
        multi_head=True,
        start="average",
        look=(GREEN, "s"),
    ),
    Method(
        "random_mu",
        "skills mixed at random for each example, then averaged",
        "random_mu",
        routing="random",
        start="average",
        look=(SKY, "s"),
    ),
    Method("full_ft", "all weights tuned, on all tasks and then on each", "full_ft", "weights:Weights", look=(RED, "o")),
    Method(
        "full_ft_then_lora",
        "all weights tuned on all tasks, then a new LoRA on each",
        "full_ft",
        "weights:Weights",
        start="new_lora",
        look=(RED, "D"),
    ),
    Method(
        "mosa",
        "copies of one LoRA, each trained in its own entries; their mean is tuned",
        "mosa",
        "mosa:MoSA",
        start="average",
        settings={"pretrain": {"rank": 16, "alpha": 16.0, "targets": ["q", "v"]}},
        options=MosaOptions,
        look=(INK, "s"),
    ),
    Method(
        "adamix",
        "copies of one LoRA, of which each step draws one a layer; their mean is tuned",
        "adamix",
        "adamix:AdaMix",
        start="average",
        settings={"pretrain": {"rank": 16, "alpha": 16.0, "targets": ["q", "v"]}},
        options=AdamixOptions,
        look=(INK, "P"),
    ),
    Method(
        "align_lora",
        "lora_matched, and the tasks of a batch drawn together in the LoRA's low rank",
        "align_lora",
        "align_lora:AlignLoRA",
        is_matched=True,
        options=AlignOptions,
        look=(BLUE, "v"),
    ),
    Method(
        "mtl_lora",
        "one A for all tasks, and several B that each task mixes and turns for itself; all tuned",
        "mtl_lora",
        "mtl_lora:MTLLoRA",
        routing="task",
        settings={"pretrain": {"rank": 8, "alpha": 16.0}},
        options=MTLOptions,
        look=(SKY, "D"),
    ),
    Method(
        "c_poly",
        "Poly's skills, and skills of each task alone beside them; all tuned",
        "c_poly",
        "c_poly:CPoly",
        routing="learned",
        options=CPolyOptions,
        look=(ORANGE, "D"),
    ),
    Method(
        "hydra_lora",
        "LoRAs that share A, mixed for each token by a router; all tuned",
        "hydra_lora",
        "experts:HydraLoRA",
        routing="token",
        settings={"pretrain": {"skills": 4, "rank": 8, "alpha": 8.0}},
        look=(SKY, "P"),
    ),
    Method(
        "smear",
        "LoRAs averaged for each example by a router that reads its prompt; all tuned",
        "smear",
        "smear:SMEAR",
        routing="input",
        options=SmearOptions,
        look=(SKY, "v"),
    ),
    Method(
        "lora_hub",
        "as adapter_soup, by weights that are searched for without gradients",
        POOLED,
        routing="private",
        start="soup",
        merge="search",
        settings={"adapt": {"soup_size": 20}},
        adapt_options=HubOptions,
        look=(PURPLE, "s"),
    ),
    _merge("task_arithmetic", "as adapter_soup, the updates added up instead", SumOptions, "o"),
    _merge("ties", "as adapter_soup, large entries of the elected sign averaged", ElectOptions, "D"),
    _merge("dare_linear", "as adapter_soup, entries dropped at random, then added up", DropOptions, "v"),
    _merge("dare_ties", "as adapter_soup, entries dropped at random, then signs elected", ElectOptions, "X"),
    _merge("knots_ties", "as ties, in the basis that all updates share", AlignedOptions, "^"),
    Method(
        "arrow",
        "each layer routes each token over the whole pool; nothing is trained",
        POOLED,
        routing="private",
        start="pool",
        router="experts:Arrow",
        trains="nothing",
        settings={"adapt": {"steps": 0}},
        adapt_options=ArrowOptions,
        look=(SKY, "^"),
    ),
    _router(
        "lorauter", "a pool's adapters mixed for each query, by the tasks nearest to it", "tasks", TaskRouteOptions, (SKY, "o")
    ),
    _router(
        "lora_retriever", "a pool's adapters mixed for each query, the nearest alike", "adapters", RouteOptions, (SKY, "X")
    ),
)
METHODS = {row.name: row for row in _ROWS}

AVERAGED = [row.name for row in _ROWS if row.pretrain == row.name and row.has_average]
"""The methods whose pre-training can be averaged."""

BACKBONE = "backbone"
"""The bare backbone: not a method that trains anything, but evaluated beside them."""


READERS: Mapping[tuple[str, str], Callable[[Method], bool]] = {
    ("pretrain", "skills"): lambda row: row.mixes_skills or row.has_experts or row.is_matched,
    ("pretrain", "granularity"): lambda row: row.mixes_skills,
    ("pretrain", "routing_blocks"): lambda row: row.mixes_skills,
    ("pretrain", "routing_lr"): lambda row: row.learns_routing,
    ("pretrain", "relaxed_bernoulli"): lambda row: row.learns_routing,
    ("pretrain", "temperature"): lambda row: row.learns_routing,
    ("pretrain", "straight_through"): lambda row: row.learns_routing,
    ("pretrain", "uniform_steps"): lambda row: row.learns_routing,
    ("pretrain", "under"): lambda row: row.can_be_stacked,
    ("pretrain", "pool"): lambda row: row.takes_pool,
    ("pretrain", "pool_by"): lambda row: row.takes_pool,
    ("adapt", "under"): lambda row: row.can_be_stacked,
    ("evaluate", "under"): lambda row: row.can_be_stacked,
    ("pretrain", "test_tasks"): lambda row: row.is_private,
    ("adapt", "routing_lr"): lambda row: row.adapts_routing,
    ("adapt", "lr"): lambda row: row.trains == "adapter",
    ("adapt", "soup_size"): lambda row: row.makes_soup,
    ("adapt", "soup_min_cosine"): lambda row: row.makes_soup,
    ("adapt", "soup_by"): lambda row: row.makes_soup,
    ("adapt", "leave_out"): lambda row: row.needs_index or row.router is not None,
}
"""{(section, setting): whether a method reads it}, of those that not every method reads. The sections themselves are shared by
all methods; what is set for one method, one cell or by `--set` must be read by it."""


CHOOSING = frozenset(
    {
        "shots",
        "validation",
        "validate_on",
        "leave_out",
        "options",
        "precision",
        "loss",
        "mc_weight",
        "unlikelihood_weight",
        "length_norm",
        "label_smoothing",
    }
)
"""The settings of adaptation that methods read which only choose: whose examples, and their loss."""
VALIDATING = CHOOSING | {"select", "beams", "max_new_tokens"}
"""Those that methods read which make one adapter without training it, and validate it."""


def reads(row: Method, section: str, key: str) -> bool:
    """Whether a setting of a section can change anything of a method."""
    reader = READERS.get((section, key))
    if row.trains_nothing and section == "adapt" and key not in (VALIDATING if row.router else CHOOSING):
        return False
    return reader is None or reader(row)


def method(name: str) -> Method:
    """Look up a row of the methods table.

    Raises:
        ParamsError: if there is no such method; names the known ones.
    """
    if name not in METHODS:
        raise ParamsError(unknown("method", name, METHODS))
    return METHODS[name]
