"""LoRAs that others trained become the output of a pre-training, as `adapter_soup` would have trained them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mhrctl.adapters.adapter import Shapes
from mhrctl.adapters.files import save_runs
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import Parameters, PoolMember, PretrainFacts
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.artifacts.writing import replacing, write_csv, writing
from mhrctl.data.samples import write_samples
from mhrctl.interchange.pool import Member, form_of, samples_of, stacked
from mhrctl.models.attach import linear_shapes
from mhrctl.models.backbones import location, pretrained_config, require_prepared, shape_model
from mhrctl.training.log import LOG_COLUMNS


@dataclass(frozen=True)
class Target:
    """This is what adapters are imported for.

    Attributes:
        suite: that was prepared.
        backbone: its fingerprint.
        shapes: {layer: (d_in, d_out)} of all its linear layers.
    """

    suite: str
    backbone: str
    shapes: Shapes

    @classmethod
    def of(cls, prepared: Path, backbone: Path) -> Target:
        """Read what was prepared, and the backbone's sizes.

        Args:
            prepared: output of the prepare stage.
            backbone: output of the backbone stage.

        Raises:
            ArtifactError: if one is missing, or the backbone was made for another tokenizer.
        """
        require_prepared(prepared, backbone)
        suite = read_card(prepared, stage="prepare", command="mhrctl prepare").facts.suite
        card = read_card(backbone, stage="backbone", command="mhrctl backbone")
        shapes = linear_shapes(shape_model(pretrained_config(location(backbone, card), revision=card.facts.revision)))
        return cls(suite, card.facts.fingerprint, shapes)

    def facts(self, *, tasks: list[str], parameters: Parameters, pool: list[PoolMember] | None = None) -> PretrainFacts:
        """Return the facts of a pre-training that is imported."""
        return PretrainFacts(suite=self.suite, tasks=tasks, backbone=self.backbone, parameters=parameters, pool=pool or [])


def write_pool(
    members: Sequence[Member],
    target: Target,
    *,
    out: Path,
    log: Path,
    card_of: Callable[[PretrainFacts], Card[PretrainFacts]],
) -> Card[PretrainFacts]:
    """Write the adapters of a pool where `adapter_soup`'s pre-training writes those that it trains.

    Args:
        members: of the pool.
        target: what they are imported for.
        out: the output folder.
        log: of the training, which has no line.
        card_of: makes the card of the facts.

    Raises:
        DataError: if an adapter cannot be used; names it, and those that can.
    """
    form, samples = form_of(members, target.shapes), {member.name: samples_of(member) for member in members}
    numbers = form.rank * sum(map(sum, form.shapes.values()))
    pool = [
        PoolMember(
            source=member.source,
            revision=member.revision,
            sha256=digest(member.folder),
            licence=member.licence,
            rank=rank,
            alpha=alpha,
            samples=len(samples[member.name]),
        )
        for member, rank, alpha in zip(members, form.ranks, form.alphas, strict=True)
    ]
    parameters = Parameters(multi_task=len(members) * numbers)
    card = card_of(target.facts(tasks=[member.name for member in members], parameters=parameters, pool=pool))
    with replacing(log) as table, writing(out) as folder:
        write_csv(table, LOG_COLUMNS, [])
        with TemporaryDirectory(dir=folder) as scratch:
            save_runs(stacked(members, form, target.shapes, Path(scratch)), form.shapes, form.config, folder / ADAPTERS)
        if any(samples.values()):
            write_samples(samples, folder)
        write_card(folder, card, beside={log.name: table})
    return card
