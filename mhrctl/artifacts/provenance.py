"""What decides the output of each stage is said once, for the card that a stage writes and for the command that may skip it.

All of this is known before anything is computed and without importing torch, so that a stage whose output is up to date ends at
once. Which files these are is the table of `mhrctl.artifacts.inputs`; here are the settings, the places of a stage's call, and
whether anything else could have changed. Arguments are those of the stages' functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mhrctl.artifacts import cards, inputs
from mhrctl.artifacts.cards import Card, F, read_card
from mhrctl.artifacts.facts import Facts
from mhrctl.artifacts.inputs import Case, Place, Places
from mhrctl.artifacts.names import CARD, SAMPLES
from mhrctl.artifacts.ownership import require_apart
from mhrctl.config.cells import Cell, local_loras, reads_index
from mhrctl.config.methods import BACKBONE
from mhrctl.config.sections import AdaptParams, BackboneParams, EvaluateParams, PretrainParams
from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import TRAINED_TOKENIZERS, PrepareParams
from mhrctl.errors import ArtifactError, listed

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Provenance:
    """A provenance is what decides the output of a stage.

    Attributes:
        stage: the stage.
        params: its resolved parameters, as its card holds them.
        places: the folders and files that its inputs are in.
        cases: which of the cases of `mhrctl.artifacts.inputs` are its own.
        is_complete: whether nothing else decides; if not, it reads what may have changed unseen, such as a branch on the hub,
            or folders of the user's that take as long to hash as to read.
        rounds: whether its last bits depend on the number of CPU threads, which its card then holds.
    """

    stage: str
    params: Mapping[str, Any]
    places: Places
    cases: AbstractSet[str] = field(default_factory=frozenset)
    is_complete: bool = True
    rounds: bool = False

    @property
    def parents(self) -> dict[str, Path]:
        """{name: file or folder} of what the card has the hashes of."""
        return inputs.parents(self.stage, self.places, self.cases)

    @property
    def watched(self) -> list[Path]:
        """The files and folders that must not be edited while the stage runs."""
        return inputs.watched(self.stage, self.places, self.cases)

    def require_apart(self, out: Path) -> None:
        """Check that the output is none of the inputs, and neither in the other.

        Raises:
            ParamsError: if it is; names the input.
        """
        for path in (path for place in self.places for path in inputs.given(self.places, place)):
            require_apart(out, path)

    def require_inputs(self) -> None:
        """Check that the outputs that the stage reads are there, before anything heavy is imported.

        Raises:
            ArtifactError: names the last that is missing, and the commands that make all of them.
        """
        places: tuple[Place, ...] = ("prepare", "backbone", "index", "under", "pool", "pretrain", "start", "adapted")
        missing = [
            (place, folder)
            for place in places
            for folder in inputs.given(self.places, place)
            if (place != "index" or "index" in self.cases) and not (folder / CARD).exists()
        ]
        if missing:
            commands = [f"`{command}`" for each in missing for command in self._commands(*each)]
            stages = list(dict.fromkeys(command.split()[1].rstrip("`") for command in commands))
            how = f"run {listed(commands)}"
            if target := self._target():
                how = f"`mhrctl run {target}` does it with all that comes before ({listed(stages)})"
            raise ArtifactError(f"{missing[-1][1]}: no finished {stages[-1]} output; {how}")

    def _commands(self, place: Place, folder: Path) -> list[str]:
        """The commands that make one of the outputs that the stage reads."""
        cell = self._cell()
        if place in ("prepare", "backbone", "index") or cell is None:
            return [f"mhrctl {place}"]
        if place == "adapted":
            return [f"mhrctl adapt {cell.name}"]
        if place in ("under", "pool"):
            return [f"mhrctl {folder.parent.name} {folder.name}"]
        stage, origin = cell.start if folder.name == cell.start[1].name else cell.origin
        if stage == "average" and place == "start":
            is_pretrained = (folder.parents[1] / "pretrain" / folder.name / CARD).exists()
            return [f"mhrctl {each} {origin.name}" for each in (["average"] if is_pretrained else ["pretrain", "average"])]
        return [f"mhrctl pretrain {origin.name}"]

    def _target(self) -> str | None:
        """The stage of dvc.yaml that this is; None for a cell that is not in the grid."""
        cell = self._cell()
        if cell is None:
            return self.stage if self.stage == "backbone" else None
        names = {"pretrain": "pretrain", "average": "average", "adapt": "adapt", "evaluate": "evaluate"}
        if cell.extra_steps:
            names |= {"pretrain": "pretrain-extra", "evaluate": "evaluate-zero-shot"}
        if "index" in self.cases:
            names |= {"adapt": "adapt-soup"}
        if inputs.given(self.places, "under") or inputs.given(self.places, "pool"):  # which `--set` may say
            return None
        places: tuple[Place, ...] = ("backbone", "pretrain", "start")
        folders = [folder for place in places for folder in inputs.given(self.places, place)]
        file = f"cells/{cell.name}.json"
        in_grid = any((above / file).exists() for folder in folders for above in list(folder.parents)[:2])
        return f"{names[self.stage]}@{cell.name}" if in_grid and self.stage in names else None

    def _cell(self) -> Cell | None:
        tree = self.params.get("cell")
        return Cell.model_validate(tree) if isinstance(tree, Mapping) and tree != {"method": BACKBONE} else None

    def card(self, facts: F, *, threads: int | None = None) -> Card[F]:
        """Return the card of an output, with the hashes of the parents as they are now.

        Args:
            facts: of the output.
            threads: CPU threads that it was computed with; None for a GPU.
        """
        card = Card.of(self.stage, self.params, self.parents, facts)
        return replace(card, threads=threads) if self.rounds else card

    def key(self, *, threads: int | None = None) -> str:
        """Return what identifies the work on an output, whose card may not be known before its end.

        Args:
            threads: CPU threads that it is computed with; None for a GPU.
        """
        return json.dumps(self.card(Facts(), threads=threads).record, sort_keys=True)

    def is_up_to_date(self, folder: Path, *beside: Path, threads: int | None = None) -> bool:
        """Return whether an output is there already, whole: the folder, and what the stage writes beside it.

        Args:
            folder: of the output.
            beside: what the stage writes elsewhere.
            threads: CPU threads that it would be computed with; None for any number, and for a GPU.
        """
        return self.is_complete and cards.is_up_to_date(
            folder, self.stage, self.params, self.parents, beside=beside, threads=threads if self.rounds else None
        )


def of_prepare(params: PrepareParams, *, root: Path) -> Provenance:
    """Return the provenance of prepared examples: hashed files, and commits of the hub, as the row of the source says."""
    source = SOURCES[params.source]
    files = {name: root / path for name, path in source.files(params).items()}
    tokenizer = [] if params.tokenizer in TRAINED_TOKENIZERS else [(params.tokenizer, params.tokenizer_revision)]
    is_complete = (source.hashed or not files) and not source.reads_elsewhere
    is_complete &= all(_is_pinned(name, revision, root) for name, revision in [*source.pins(params), *tokenizer])
    hashed = files if source.hashed else {}
    places: Places = {
        "sources": list(files.values()),
        "tasks": hashed.get("tasks"),
        "test_tasks": hashed.get("test_tasks"),
        "tokenizer": root / params.tokenizer / (params.tokenizer_gguf or ""),
    }
    return Provenance("prepare", params.model_dump(), places, is_complete=is_complete)


def of_backbone(params: BackboneParams, *, prepared: Path, root: Path) -> Provenance:
    """Return the provenance of a backbone: trained here, or on the hub by commit; a folder is read again, which verifies it."""
    weights = root / str(params.name) if params.source == "local" else None
    is_complete = params.source == "scratch"
    if params.source == "hub":
        is_complete = _is_pinned(str(params.name), params.revision, root)
    places: Places = {"weights": weights, "prepare": prepared}
    return Provenance("backbone", params.model_dump(), places, {params.source}, is_complete, rounds=params.source == "scratch")


def of_pretrain(
    cell: Cell,
    params: PretrainParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None,
    under: Path | None = None,
    pool: Path | None = None,
    root: Path = Path(),
    processes: int = 1,
) -> Provenance:
    """Return the provenance of a pre-training, in which each of several processes adds its micro-batches to a step.

    LoRAs that are imported, where they are relative in `root`, take the place of what is trained on.

    Raises:
        ArtifactError: if one of these is not there.
    """
    of_tests = prepared if params.test_tasks else None
    places: Places = {"prepare": prepared, "backbone": backbone, "start": start, "under": under, "pool": pool, "own": of_tests}
    many = {"processes": processes} if processes > 1 else {}
    settings = {"cell": cell.model_dump(), "pretrain": params.model_dump(), **many}
    if not params.loras:
        return Provenance("pretrain", settings, places, _cases(cell), rounds=True)
    local, pinned = local_loras(params.loras), [each for each in params.loras if COMMIT.fullmatch(each.rpartition("@")[2])]
    if missing := [name for name in local if not (root / name).exists()]:
        said = "no such file or folder, and an id of the hub has its revision, as in owner/name@main"
        raise ArtifactError(f"pretrain.loras {missing[0]}: {said}")
    imported: Places = {**places, "loras": [root / name for name in local]}
    return Provenance("pretrain", settings, imported, is_complete=len(local) + len(pinned) == len(params.loras))


def of_average(pretrained: Path, card: Card[Facts]) -> Provenance:
    """Return the provenance of an average of skills, which has the parameters and facts of their pre-training's card."""
    return Provenance("average", card.params, {"pretrain": pretrained})


def of_index(encoder: str, revision: str, examples: int, *, prepared: Path, root: Path) -> Provenance:
    """Return the provenance of the index of training tasks."""
    params = {"encoder": encoder, "revision": revision, "examples": examples}
    places: Places = {"prepare": prepared, "encoder": root / encoder}
    is_fixed = _is_fixed(encoder, revision, root)
    return Provenance("index", params, places, is_complete=is_fixed, rounds=encoder != "tfidf")


def of_adapt(
    cell: Cell,
    params: AdaptParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path,
    index: Path | None,
    root: Path,
    under: Path | None = None,
) -> Provenance:
    """Return the provenance of an adaptation: some ask the index, a new LoRA has settings of the pre-training's card.

    Raises:
        ArtifactError: if the index is needed, and missing.
    """
    is_complete, cases = True, _cases(cell)
    if cell.row.needs_index:
        holds: dict[Case, bool] = {
            "index": reads_index(cell.row, params),
            "sampled": reads_index(cell.row, params) and (start / SAMPLES).exists(),
            "named": cell.row.routes_queries or params.soup_by == "name" or params.leave_out != "nothing",
        }
        cases |= {case for case, is_held in holds.items() if is_held}
    if "index" in cases and index is not None:
        encoder = read_card(index, stage="index", command="mhrctl index").params
        is_complete = _is_fixed(encoder["encoder"], encoder["revision"], root)
    places: Places = {"prepare": prepared, "backbone": backbone, "index": index, "start": start, "under": under}
    settings = {"cell": cell.model_dump(), "adapt": params.model_dump()}
    return Provenance("adapt", settings, places, cases, is_complete, rounds=True)


def of_evaluate(
    cell: Cell | None,
    params: EvaluateParams,
    *,
    prepared: Path,
    backbone: Path,
    start: Path | None,
    adapted: Path | None,
    under: Path | None = None,
) -> Provenance:
    """Return the provenance of an evaluation; of the bare backbone if `cell` is None, and zero-shot only if `adapted` is."""
    identity = cell.model_dump() if cell else {"method": BACKBONE}
    places: Places = {"prepare": prepared, "backbone": backbone, "start": start, "adapted": adapted, "under": under}
    return Provenance("evaluate", {"cell": identity, "evaluate": params.model_dump()}, places, rounds=True)


def _cases(cell: Cell) -> set[Case]:
    """The cases that hold for a cell's method."""
    row = cell.row
    holds: dict[Case, bool] = {
        "private": row.is_private,
        "new_lora": row.adds_lora,
        "named": row.router is not None,
    }
    return {case for case, is_held in holds.items() if is_held}


def _is_pinned(name: str, revision: str | None, root: Path) -> bool:
    """Whether what is named is on the hub, by its commit: a branch or a tag may move, and so may a folder of that name."""
    return COMMIT.fullmatch(revision or "") is not None and not (root / name).is_dir()


def _is_fixed(encoder: str, revision: str, root: Path) -> bool:
    """Whether the encoder of an index cannot have changed."""
    return encoder == "tfidf" or _is_pinned(encoder, revision, root)
