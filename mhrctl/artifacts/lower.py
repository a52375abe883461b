"""An output says which other one was frozen under its adapter, and by that it is found again, as it was."""

from __future__ import annotations

from pathlib import Path

from mhrctl.artifacts.cards import Card, command_of, known_digest, try_card
from mhrctl.artifacts.facts import AdaptFacts, Lower, PretrainFacts
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.errors import ArtifactError


def lower_of(folder: Path | None) -> Lower | None:
    """Return what the facts of an output say of the output that lies under its adapter.

    Args:
        folder: of the lower one, `data/<stage>/<cell>`; None if there is none.
    """
    if folder is None:
        return None
    return Lower(stage=folder.parent.name, cell=folder.name, sha256=known_digest(folder / ADAPTERS))


def lower_folder(card: Card[PretrainFacts] | Card[AdaptFacts], folder: Path) -> Path | None:
    """Return the output that lies under the adapter of another, as it was then; None if none does.

    Args:
        card: of the upper one.
        folder: of the upper one, `data/<stage>/<cell>`.

    Raises:
        ArtifactError: if it has been moved, or is another now.
    """
    under = card.facts.under
    if under is None:
        return None
    lower = folder.parents[1] / under.stage / under.cell
    if not (lower / ADAPTERS).exists():
        raise ArtifactError(f"{folder}: was trained on {lower}, which is not there; run `{_command(lower, under)}`")
    if known_digest(lower / ADAPTERS) != under.sha256:
        raise ArtifactError(f"{folder}: was trained on {lower}, which is another now; run `{command_of(card)}`")
    return lower


def require_lower(
    card: Card[PretrainFacts] | Card[AdaptFacts], folder: Path, under: Path | None, *, swapped: bool = False
) -> None:
    """Check that what settings put under an adapter is what it was trained on.

    Args:
        card: of the upper output.
        folder: of the upper output.
        under: of the lower one; None if there is to be none.
        swapped: whether another than that is meant to be there.

    Raises:
        ArtifactError: if it is not, though nothing is meant to be swapped.
    """
    if swapped:
        return
    lower = lower_folder(card, folder)
    if lower != under:
        trained, set_to = (str(each) if each else "nothing" for each in (lower, under))
        raise ArtifactError(f"{folder}: has {trained} under it, and settings say {set_to}; run `{command_of(card)}`")


def _command(folder: Path, under: Lower) -> str:
    card = try_card(folder)
    return command_of(card) if card else f"mhrctl {under.stage} {under.cell}"
