"""The section `grid` of params.yaml says which cells there are, and what is set for some of them alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from mhrctl.config.fields import Closed, Once, Positive, Seed, SettingError, Width, is_variant, part_of
from mhrctl.config.methods import METHODS, reads
from mhrctl.config.sections import AdaptParams, EvaluateParams, PretrainParams
from mhrctl.errors import unknown

PLAIN = "plain"
"""The variant that sets nothing."""
MAX_VALUES = 10_000
"""Values of a list of the grid at most."""
MAX_CELLS = 100_000

if TYPE_CHECKING:
    PretrainPart: TypeAlias = dict[str, Any]
    AdaptPart: TypeAlias = dict[str, Any]
    EvaluatePart: TypeAlias = dict[str, Any]
    SearchPart: TypeAlias = dict[str, list[Any]]
else:
    PretrainPart, AdaptPart, EvaluatePart = (part_of(section) for section in (PretrainParams, AdaptParams, EvaluateParams))
    SearchPart = part_of(AdaptParams, lists=True)

_LIST, _MAPPING = "list[]", "dict[]"
"""Names of the two forms of `ByVariant`, which are no keys of params.yaml (`mhrctl.config.complaints`)."""
HeadsList = Annotated[list[Width], Once, Field(max_length=MAX_VALUES)]
ExtraStepsList = Annotated[list[Positive], Once, Field(max_length=MAX_VALUES)]
ByVariant = Discriminator(lambda values: _MAPPING if isinstance(values, Mapping) else _LIST)
"""Of values of an axis: a list for every variant, or {variant: list}."""
Heads: TypeAlias = Annotated[Annotated[HeadsList, Tag(_LIST)] | Annotated[dict[str, HeadsList], Tag(_MAPPING)], ByVariant]
ExtraSteps: TypeAlias = Annotated[
    Annotated[ExtraStepsList, Tag(_LIST)] | Annotated[dict[str, ExtraStepsList], Tag(_MAPPING)], ByVariant
]


class Variant(Closed):
    """A variant is another form of a method: other settings of its pre-training, of its adaptation, or of both.

    One that sets nothing of pre-training shares that of `plain`.
    """

    pretrain: PretrainPart = Field({}, description="settings over the `pretrain` section")
    adapt: AdaptPart = Field({}, description="settings over the `adapt` section")

    @model_validator(mode="after")
    def _sets_something(self) -> Variant:
        if not self.settings():
            raise ValueError("sets nothing; give it settings of `pretrain`, `adapt` or both")
        return self

    def settings(self) -> list[tuple[str, str]]:
        """Return the section and the key of what it sets."""
        return [("pretrain", key) for key in self.pretrain] + [("adapt", key) for key in self.adapt]


class MethodAxes(Closed):
    """A method of the grid has its own axes, and its own settings over the stages' sections."""

    heads: Heads = Field([], description="head counts, for mhr and its variants: a list, or {variant: list}")
    variants: Annotated[list[str], Once] = Field(
        [PLAIN], min_length=1, max_length=MAX_VALUES, description="of grid.variants; `plain` is the method as it is"
    )
    extra_steps: ExtraSteps = Field(
        [],
        description="further multi-task training of a single adapter (lora, the averages), evaluated zero-shot: a list,"
        " or {variant: list}",
    )
    pretrain: PretrainPart = Field({}, description="settings over the `pretrain` section")
    adapt: AdaptPart = Field({}, description="settings over the `adapt` section")
    search: SearchPart = Field(
        {}, description="{key: values} of the `adapt` section; each combination is a trial, the best in validation is reported"
    )

    def settings(self) -> Iterator[tuple[str, ...]]:
        """Go through what is set: its section and key, and the keys of the axes where it stands."""
        for section, part, at in (("pretrain", self.pretrain, "pretrain"), ("adapt", self.adapt, "adapt")):
            yield from ((section, key, at) for key in part)
        yield from (("adapt", key, "search") for key in self.search)

    def heads_of(self, variant: str) -> Sequence[int]:
        """Return the head counts of a variant; none for a method of one head, or a variant that is not named."""
        return _of(self.heads, variant)

    def extra_steps_of(self, variant: str) -> Sequence[int]:
        """Return the extra steps of a variant."""
        return _of(self.extra_steps, variant)

    def points(self) -> list[tuple[int, str]]:
        """Return each head count with each of its variants, in the order of params.yaml."""
        points = [(heads, variant) for variant in self.variants for heads in self.heads_of(variant) or [1]]
        places = {heads: place for place, heads in enumerate(dict.fromkeys(heads for heads, _ in points))}
        return sorted(points, key=lambda point: places[point[0]])

    def count(self) -> int:
        """Count the method's cells of one seed."""
        trials = math.prod(len(values) for values in self.search.values())
        return sum(
            len(self.heads_of(variant) or [1]) * (trials + len(self.extra_steps_of(variant))) for variant in self.variants
        )

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The settings of each trial of the search; a single trial without settings where nothing is searched."""
        return [dict(zip(self.search, values, strict=True)) for values in itertools.product(*self.search.values())]


class Override(Closed):
    """An override is what a single cell has for itself."""

    pretrain: PretrainPart = Field({}, description="settings over its `pretrain` section")
    adapt: AdaptPart = Field({}, description="settings over its `adapt` section")
    evaluate: EvaluatePart = Field({}, description="settings over its `evaluate` section")


class GridParams(Closed):
    """The grid has methods, heads and seeds."""

    seeds: Annotated[list[Seed], Once] = Field(
        min_length=1, max_length=MAX_VALUES, description="one cell of every method for each"
    )
    pretrain_seed: Seed | None = Field(
        None,
        description="pre-train once with this seed and adapt with each of `seeds`, as the paper did; empty pre-trains for each",
    )
    methods: dict[str, Annotated[MethodAxes, BeforeValidator(lambda axes: axes or {})]] = Field(
        min_length=1, description="rows of the methods table"
    )
    variants: dict[str, Variant] = Field({}, description="{name: settings} of other pre-trainings, as a further axis")
    overrides: dict[str, Override] = Field({}, description="{cell: {section: {key: value}}} for single cells")

    @field_validator("variants")
    @classmethod
    def _variants_make_names(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            if not is_variant(name) or name == PLAIN:
                said = "a name is lower-case letters, digits, _, at most 64, not `plain`, h8, s0, t1 or x100"
                raise SettingError(f"variant {name!r}: {said}", name)
        return variants

    def pretrain_variant(self, variant: str) -> str | None:
        """Return the variant whose pre-training another shares, since it sets nothing of its own; None if it does."""
        chosen = self.variants.get(variant)
        return PLAIN if chosen and not chosen.pretrain else None

    @model_validator(mode="after")
    def _methods_and_heads_fit(self) -> GridParams:
        for name, axes in self.methods.items():
            at = ("methods", name)
            if name not in METHODS:
                raise SettingError(unknown("method", name, METHODS), *at)
            row = METHODS[name]
            if row.multi_head != bool(axes.heads):
                said = "needs" if row.multi_head else "has no"
                raise SettingError(f"{name} {said} `heads`", *at, "heads")
            if row.pretrain != name and axes.pretrain:
                said = f"{name} shares the pre-training of {row.pretrain}: set `pretrain` there"
                raise SettingError(said, *at, "pretrain")
            if missing := [variant for variant in axes.variants if variant not in (PLAIN, *self.variants)]:
                said = f"methods.{name}.variants: {unknown('variant', missing[0], [PLAIN, *self.variants])}"
                raise SettingError(said, *at, "variants", axes.variants.index(missing[0]))
            if axes.extra_steps and not row.is_single:
                said = f"{name} has no `extra_steps`: they train a single adapter on, such as lora, poly_mu or mhr_mu"
                raise SettingError(said, *at, "extra_steps")
        return self

    @model_validator(mode="after")
    def _variants_are_the_methods(self) -> GridParams:
        for name, axes in self.methods.items():
            at = ("methods", name)
            for axis, values in (("heads", axes.heads), ("extra_steps", axes.extra_steps)):
                for variant in values if isinstance(values, dict) else ():
                    if variant not in axes.variants:
                        raise SettingError(unknown(f"variant of {name}", variant, axes.variants), *at, axis, variant)
            if axes.heads and (lacking := [variant for variant in axes.variants if not axes.heads_of(variant)]):
                raise SettingError(f"{name} needs `heads` of its variant {lacking[0]!r} too", *at, "heads", lacking[0])
        return self

    @model_validator(mode="after")
    def _methods_read_what_is_set(self) -> GridParams:
        for name, axes in self.methods.items():
            at, row = ("methods", name), METHODS[name]
            for section, key, *within in axes.settings():
                if not reads(row, section, key):
                    raise SettingError(f"{name} does not read {section}.{key}; leave it out", *at, *within, key)
            for index, variant in enumerate(axes.variants):
                settings = self.variants[variant].settings() if variant != PLAIN else ()
                if settings and not any(reads(row, section, key) for section, key in settings):
                    said = f"{name} reads nothing of what variant {variant!r} sets, so it would be the same twice"
                    raise SettingError(said, *at, "variants", index)
        return self

    @model_validator(mode="after")
    def _cells_can_be_counted(self) -> GridParams:
        cells = sum(axes.count() for axes in self.methods.values()) * len(self.seeds)
        if cells > MAX_CELLS:
            raise SettingError(f"{cells:,} cells; at most {MAX_CELLS:,} are made into files", "methods")
        return self


def _of(values: Sequence[int] | Mapping[str, Sequence[int]], variant: str) -> Sequence[int]:
    """What an axis has for a variant."""
    return values.get(variant, []) if isinstance(values, Mapping) else values
