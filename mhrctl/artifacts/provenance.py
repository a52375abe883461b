"""What decides the output of each stage: said once, for the card that a stage writes and for the command that may skip it.

All of this is known before anything is computed and without importing torch, so that a stage whose output stands ends at once.
Arguments are those of the stages' functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhrctl.artifacts import cards
from mhrctl.artifacts.cards import Card, read_card
from mhrctl.artifacts.names import ADAPTERS, BACKBONE_EXAMPLES, CARD, TASKS, TEST_EXAMPLES, TOKENIZER, TRAINING_EXAMPLES
from mhrctl.config.cells import Cell
from mhrctl.config.methods import BACKBONE
from mhrctl.config.params import (
    TRAINED_TOKENIZERS,
    AdaptParams,
    BackboneParams,
    EvaluateParams,
    PrepareParams,
    PretrainParams,
)
from mhrctl.config.sources import SOURCES

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Provenance:
    """What decides the output of a stage.

    Attributes:
        stage: the stage.
        params: its resolved parameters, as its card holds them.
        parents: {name: file or folder} of what it reads.
        is_complete: whether nothing else decides; if not, it reads what may have changed unseen, such as a branch on the hub,
            or folders of the user's that take as long to hash as to read.
    """

    stage: str
    params: Mapping[str, Any]
    parents: Mapping[str, Path]
    is_complete: bool = True

    def card(self, **facts: Any) -> Card:  # noqa: ANN401
        """The card of an output, with the hashes of the parents as they are now."""
        return Card.of(self.stage, self.params, self.parents, **facts)

    def is_up_to_date(self, folder: Path, *beside: Path) -> bool:
        """Whether an output is there already, whole: the folder, and what the stage writes beside it."""
        return self.is_complete and cards.is_up_to_date(folder, self.stage, self.params, self.parents, beside=beside)


def of_prepare(params: PrepareParams, *, root: Path) -> Provenance:
    """Of prepared examples: files that are hashed, and commits of the hub, as the row of the source says."""
    source = SOURCES[params.source]
    files = {name: root / path for name, path in source.files(params).items()}
    tokenizer = [] if params.tokenizer in TRAINED_TOKENIZERS else [(params.tokenizer, params.tokenizer_revision)]
    is_complete = (source.hashed or not files) and not source.reads_elsewhere
    is_complete &= all(_is_pinned(name, revision, root) for name, revision in [*source.pins(params), *tokenizer])
    return Provenance("prepare", params.model_dump(), files if source.hashed else {}, is_complete)


def of_backbone(params: BackboneParams, *, prepared: Path, root: Path) -> Provenance:
    """Of a backbone: trained here, or on the hub by its commit; a folder is read again, which verifies it."""
    parents = {"tokenizer": prepared / TOKENIZER}
    if params.source == "scratch":
        parents["examples"] = prepared / TRAINING_EXAMPLES
        parents["backbone_examples"] = prepared / BACKBONE_EXAMPLES
        return Provenance("backbone", params.model_dump(), parents)
    is_complete = params.source == "hub" and _is_pinned(str(params.name), params.revision, root)
    return Provenance("backbone", params.model_dump(), parents, is_complete)


def of_pretrain(
    cell: Cell, params: PretrainParams, *, prepared: Path, backbone: Path, start: Path | None, processes: int = 1
) -> Provenance:
    """Of a pre-training, in which each of several processes adds its micro-batches to a step."""
    parents = {"prepare": prepared / TRAINING_EXAMPLES, "backbone": backbone / CARD}
    if cell.row.routing == "private":  # an adapter for each data set, which the table of tasks names
        parents["tasks"] = prepared / TASKS
    if start is not None:
        parents["start"] = start / ADAPTERS
    many = {"processes": processes} if processes > 1 else {}
    return Provenance("pretrain", {"cell": cell.model_dump(), "pretrain": params.model_dump(), **many}, parents)


def of_average(pretrained: Path, card: Card) -> Provenance:
    """Of an average of skills, which has the parameters and facts of their pre-training's card."""
    return Provenance("average", card.params, _with_card("pretrain", pretrained))


def of_index(encoder: str, revision: str, examples: int, *, prepared: Path, root: Path) -> Provenance:
    """Of the index of training tasks."""
    params = {"encoder": encoder, "revision": revision, "examples": examples}
    parents = {"examples": prepared / TRAINING_EXAMPLES, "tasks": prepared / TASKS}
    return Provenance("index", params, parents, _is_fixed(encoder, revision, root))


def of_adapt(
    cell: Cell, params: AdaptParams, *, prepared: Path, backbone: Path, start: Path, index: Path | None, root: Path
) -> Provenance:
    """Of an adaptation: AdapterSoup asks the index, and a new LoRA has the settings of the pre-training's card.

    Raises:
        ArtifactError: if AdapterSoup's index is missing.
    """
    parents = _test_tasks(prepared) | {"backbone": backbone / CARD, "start": start / ADAPTERS}
    is_complete = True
    if cell.row.start == "new_lora":
        parents |= _with_card("start", start)
    if cell.row.start == "soup" and index is not None:
        parents["index"] = index
        encoder = read_card(index, stage="index", command="mhrctl index").params
        is_complete = _is_fixed(encoder["encoder"], encoder["revision"], root)
    return Provenance("adapt", {"cell": cell.model_dump(), "adapt": params.model_dump()}, parents, is_complete)


def of_evaluate(
    cell: Cell | None, params: EvaluateParams, *, prepared: Path, backbone: Path, start: Path | None, adapted: Path | None
) -> Provenance:
    """Of an evaluation; of the bare backbone if `cell` is None, and zero-shot only if `adapted` is."""
    identity = cell.model_dump() if cell else {"method": BACKBONE}
    parents = _test_tasks(prepared) | {"backbone": backbone / CARD}
    parents |= _with_card("start", start) if start else {}
    parents |= _with_card("adapted", adapted) if adapted else {}
    return Provenance("evaluate", {"cell": identity, "evaluate": params.model_dump()}, parents)


def _test_tasks(prepared: Path) -> dict[str, Path]:
    """What is read of the test tasks: their examples, their metrics, and the tokenizer that decodes answers."""
    names = {"examples": TEST_EXAMPLES, "tasks": TASKS, "tokenizer": TOKENIZER}
    return {name: prepared / file for name, file in names.items()}


def _with_card(name: str, folder: Path) -> dict[str, Path]:
    """Adapters, and the card that says more of them."""
    return {name: folder / ADAPTERS, f"{name}_card": folder / CARD}


def _is_pinned(name: str, revision: str | None, root: Path) -> bool:
    """Whether what is named is on the hub, by its commit: a branch or a tag may move, and so may a folder of that name."""
    return COMMIT.fullmatch(revision or "") is not None and not (root / name).is_dir()


def _is_fixed(encoder: str, revision: str, root: Path) -> bool:
    """Whether the encoder of an index cannot have changed."""
    return encoder == "tfidf" or _is_pinned(encoder, revision, root)
