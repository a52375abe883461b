"""What lies under an adapter is found by the card of the upper one, as it was, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.artifacts.cards import Card
from mhrctl.artifacts.facts import Parameters, PretrainFacts
from mhrctl.artifacts.lower import lower_folder, lower_of, require_lower
from mhrctl.artifacts.names import ADAPTERS
from mhrctl.errors import ArtifactError


def lower(root: Path, content: str = "weights") -> Path:
    folder = root / "average/poly-s0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTERS).write_text(content)
    return folder


def upper(root: Path, under: Path | None) -> tuple[Card[PretrainFacts], Path]:
    facts = PretrainFacts(suite="made", tasks=[], backbone="1" * 64, parameters=Parameters(), under=lower_of(under))
    return Card.of("pretrain", {"cell": {"method": "lora"}}, {}, facts), root / "pretrain/lora-s0"


def test_it_is_found_as_it_was(tmp_path: Path) -> None:
    under = lower(tmp_path)
    assert lower_folder(*upper(tmp_path, under)) == under
    require_lower(*upper(tmp_path, under), under)
    assert lower_folder(*upper(tmp_path, None)) is None
    require_lower(*upper(tmp_path, None), None)


def test_facts_without_it_stay_as_they_were(tmp_path: Path) -> None:
    card, _ = upper(tmp_path, None)
    assert {"under", "skills"}.isdisjoint(card.record["facts"])


def test_what_moved_or_changed_is_refused(tmp_path: Path) -> None:
    under = lower(tmp_path)
    card, folder = upper(tmp_path, under)
    lower(tmp_path, "other weights")
    with pytest.raises(ArtifactError, match=r"average/poly-s0, which is another now; run `mhrctl pretrain lora-s0`$"):
        lower_folder(card, folder)
    (under / ADAPTERS).unlink()
    with pytest.raises(ArtifactError, match=r"average/poly-s0, which is not there; run `mhrctl average poly-s0`$"):
        lower_folder(card, folder)


def test_settings_must_say_what_it_was_trained_on_unless_it_is_swapped(tmp_path: Path) -> None:
    under = lower(tmp_path)
    for trained, said in ((under, None), (None, under)):
        card, folder = upper(tmp_path, trained)
        with pytest.raises(ArtifactError, match=r"under it, and settings say (nothing|\S+poly-s0); run `mhrctl pretrain lora"):
            require_lower(card, folder, said)
        require_lower(card, folder, said, swapped=True)
