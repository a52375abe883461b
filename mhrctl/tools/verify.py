"""`mhrctl check --deep` reads everything that stages have written, and says what cannot be relied on and what makes it again.

It computes nothing and imports no torch: cards prove outputs, and outputs prove each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from mhrctl.artifacts import inputs, provenance
from mhrctl.artifacts.cards import (
    Card,
    cell_in,
    cell_of,
    command_of,
    damaged_files,
    known_digest,
    read_card,
    try_card,
)
from mhrctl.artifacts.facts import FACTS
from mhrctl.artifacts.inputs import CASES, Places
from mhrctl.artifacts.names import CARD, Project
from mhrctl.artifacts.ownership import foreign_files
from mhrctl.artifacts.placing import PARTIAL, is_alive
from mhrctl.artifacts.reading import read_json_of, verify_metrics
from mhrctl.artifacts.sealing import opened
from mhrctl.config.cells import CellParams, grid_cells, local_loras
from mhrctl.config.methods import BACKBONE
from mhrctl.config.resolve import Settings, resolve_cell
from mhrctl.errors import ArtifactError, MhrctlError
from mhrctl.evaluation.scores import read_metrics_of
from mhrctl.progress import Track, silent
from mhrctl.report.logs import read_log
from mhrctl.tools.grid import differences, expand

SINGLE = ("prepare", "backbone", "index")
"""Stages with one output a project."""
BY_CELL = ("pretrain", "average", "adapt", "evaluate")
"""Stages with one a cell."""


class Fault(StrEnum):
    """What can be wrong with what a stage wrote."""

    ROTTEN = "rotten"
    FOREIGN = "foreign"
    STALE = "stale"
    UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Problem:
    """A problem is one thing that cannot be relied on.

    Attributes:
        fault: what kind of thing.
        path: the file or folder.
        line: the same in words, with what to do.
    """

    fault: Fault
    path: Path
    line: str


@dataclass
class Verified:
    """This is what was looked at.

    Attributes:
        outputs: output folders.
        files: files in them, each of which was hashed.
        metrics: scores, logs and alignments.
        problems: what is wrong, in the order of the stages.
    """

    outputs: int = 0
    files: int = 0
    metrics: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """All of it in a line."""
        counts = Counter(problem.fault for problem in self.problems)
        faults = ", ".join(f"{counts[fault]} {fault}" for fault in Fault if counts[fault]) or "all as they were written"
        return f"{self.outputs} outputs with {self.files} files, {self.metrics} scores and logs: {faults}"


def verify_project(settings: Settings, project: Project, *, track: Track = silent) -> Verified:
    """Look at everything that stages have written into a project.

    Args:
        settings: of params.yaml, by which outputs are stale or not.
        project: the project.
        track: shows progress.
    """
    verified = Verified()
    cells = _cell_params(settings)
    outputs, metrics = list(_outputs(project)), list(_metrics(project))
    with track("check", len(outputs) + len(metrics)) as bar:
        for stage, folder in outputs:
            verified.outputs += 1
            card = try_card(folder)
            verified.files += len(card.files or {}) if card else 0
            verified.problems += _Output(stage, folder, settings, cells, project).problems()
            bar.advance(note=str(folder.relative_to(project.root)))
        for file in metrics:
            verified.metrics += 1
            verified.problems += _of_metrics(file, project)
            bar.advance(note=file.name)
    verified.problems += [*_generated(settings, project), *_unfinished(project)]
    return verified


def _cell_params(settings: Settings) -> dict[str, CellParams]:
    """{cell: its resolved settings} of the grid, and of the pre-trainings that it starts from."""
    cells = grid_cells(settings.params)
    return {cell.name: resolve_cell(settings, cell) for cell in [*(cell.pretrain_cell for cell in cells), *cells]}


def _outputs(project: Project) -> Iterator[tuple[str, Path]]:
    """(stage, folder) of all output folders."""
    for stage in SINGLE:
        if project.output(stage).is_dir():
            yield stage, project.output(stage)
    for stage in BY_CELL:
        for folder in sorted(project.output(stage).glob("[!.]*")):
            if folder.is_dir():
                yield stage, folder
    for stage, pattern in (("inspect", "**"), ("export", "**"), ("pull", "*/*")):  # of a pool, the card of all lists all
        for card in sorted(project.output(stage).glob(f"{pattern}/{CARD}")):
            yield stage, card.parent


def _metrics(project: Project) -> Iterator[Path]:
    for pattern in ("evaluate/[!.]*.json", "pretrain/[!.]*.csv", "align/[!.]*.json"):
        yield from sorted(project.metrics.glob(pattern))


@dataclass(frozen=True)
class _Output:
    """One output folder, as it is looked at.

    Attributes:
        stage: the stage that should have written it.
        folder: the folder.
        settings: of params.yaml.
        cells: {cell of the grid: its settings}.
        project: whose it is.
    """

    stage: str
    folder: Path
    settings: Settings
    cells: Mapping[str, CellParams]
    project: Project

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with it: its card first, since nothing can be said without one."""
        command = self._command()
        try:
            card = self._card(command)
        except ArtifactError as error:
            fault = Fault.STALE if "has version" in str(error) else Fault.ROTTEN
            fault = Fault.FOREIGN if "written by stage" in str(error) else fault
            fault = Fault.UNFINISHED if "no finished" in str(error) else fault
            yield Problem(fault, self.folder, str(error))
            return
        again = f"run `{command_of(card)}`"
        for name, what in damaged_files(self.folder, card):
            yield Problem(Fault.ROTTEN, self.folder / name, f"{self.folder / name}: {what}; {again}")
        for file in self._beside(card):
            if not file.exists():
                yield Problem(Fault.ROTTEN, file, f"{file}: is missing; {again}")
        for file in foreign_files(self.folder):
            yield Problem(Fault.FOREIGN, file, f"{file}: not listed by the card of {self.folder}; move it away")
        if self.stage in BY_CELL and (cell := cell_of(card)) != self.folder.name:
            what = f"holds the {self.stage} output of {cell or 'no cell'}; remove it and run `{command}`"
            yield Problem(Fault.FOREIGN, self.folder, f"{self.folder}: {what}")
        elif reason := self._staleness(card):
            fault = Fault.FOREIGN if "another backbone" in reason else Fault.STALE
            yield Problem(fault, self.folder, f"{self.folder}: {reason}; {again}")

    def _beside(self, card: Card[Any]) -> list[Path]:
        """What a stage wrote elsewhere."""
        return [self.project.metrics / self.stage / name for name in card.beside]

    def _card(self, command: str) -> Card[Any]:
        if self.stage in (*SINGLE, *BY_CELL):
            return read_card(self.folder, stage=self.stage, command=command)  # type: ignore[call-overload,no-any-return]
        card = try_card(self.folder)
        if card is None or card.stage not in FACTS:
            raise ArtifactError(f"{self.folder / CARD}: not a card as it was written; run `{command}` again")
        return card

    def _command(self) -> str:
        """The command that makes it, by its name."""
        if self.stage in BY_CELL and self.folder.name in self.cells:
            return f"mhrctl {self.stage} {self.cells[self.folder.name].cell.name}"
        return f"mhrctl {self.stage}" if self.stage not in BY_CELL else f"mhrctl {self.stage} --cell {self.folder.name}"

    def _staleness(self, card: Card[Any]) -> str | None:
        """Why a card's output would be made anew; None if it would not, or if nothing here says so."""
        if self.stage not in (*SINGLE, *BY_CELL):
            return None
        backbone = try_card(self.project.output("backbone"))
        made_for = getattr(card.facts, "backbone", None)
        if made_for is not None and backbone is not None and made_for != backbone.facts.get("fingerprint"):
            return f"made for another backbone ({made_for[:12]})"
        places = self._places(card)
        for name, path in inputs.parents(self.stage, places, CASES).items():
            if name in card.parents and path.exists() and known_digest(path) != card.parents[name]:
                return f"{path} has changed since"
        wanted = self._params()
        if wanted is not None and "imported" not in card.parents and wanted != card.params:
            return "its settings have changed since"
        return None

    def _places(self, card: Card[Any]) -> Places:
        """Where its inputs are, in this project."""
        where = self.project
        places: Places = {"prepare": where.output("prepare"), "index": where.output("index")}
        if self.stage == "prepare":
            return provenance.of_prepare(self.settings.params.prepare, root=where.root).places
        if self.stage not in SINGLE and cell_of(card) == BACKBONE:
            return {"prepare": where.output("prepare")}
        cell = None if self.stage in SINGLE else cell_in(card)
        if cell is None:
            return places
        stage, origin = cell.origin if self.stage == "pretrain" else cell.start
        start = where.output(stage, origin.name)
        adapted = where.output("adapt", cell.name)
        if self.stage == "pretrain" and self.folder.name in self.cells:
            places = {
                **places,
                "loras": [where.root / each for each in local_loras(self.cells[self.folder.name].pretrain.loras)],
            }
        return {**places, "pretrain": where.output("pretrain", cell.name), "start": start, "adapted": adapted}

    def _params(self) -> Any:  # noqa: ANN401 - JSON
        """The settings that it would be made with now; None for a cell that is not in the grid, and for what has none."""
        params, where = self.settings.params, self.project
        prepared = where.output("prepare")
        if self.stage == "prepare":
            return _plain(provenance.of_prepare(params.prepare, root=where.root).params)
        if self.stage == "backbone":
            return _plain(provenance.of_backbone(params.backbone, prepared=prepared, root=where.root).params)
        if self.stage == "index":
            chosen = params.index
            made = provenance.of_index(chosen.encoder, chosen.revision, chosen.examples, prepared=prepared, root=where.root)
            return _plain(made.params)
        if self.stage == "average" or self.folder.name not in self.cells:
            return None
        resolved = self.cells[self.folder.name]
        return _plain({"cell": resolved.cell.model_dump(), self.stage: getattr(resolved, self.stage).model_dump()})


def _json(value: Any) -> str:  # noqa: ANN401
    return json.dumps(value, default=dict)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A tree as JSON has it."""
    return json.loads(_json(value))


def _of_metrics(file: Path, project: Project) -> Iterator[Problem]:
    """What is wrong with scores, a log or an alignment."""
    try:
        if file.parent.name == "evaluate":
            read_metrics_of(file)
        elif file.parent.name == "pretrain":
            read_log(file)
        else:
            verify_metrics(file)
            record = opened(read_json_of(file), required=False)
            backbone = try_card(project.output("backbone"))
            if backbone and record.get("backbone") != backbone.facts.get("fingerprint"):
                yield Problem(Fault.STALE, file, f"{file}: made for another backbone; run `mhrctl align` for this cell again")
    except MhrctlError as error:
        fault = Fault.FOREIGN if "holds the scores of" in str(error) else Fault.ROTTEN
        yield Problem(fault, file, str(error))
    except ValueError as error:
        yield Problem(Fault.ROTTEN, file, f"{file}: {error}; run `mhrctl align` for this cell again")


def _generated(settings: Settings, project: Project) -> Iterator[Problem]:
    """What of data/cells is not as params.yaml and this mhrctl make it; nothing in a project whose grid was never synced."""
    if project.cell_index.exists():
        for line in differences(expand(settings, project), project):
            state, _, name = line.partition(" ")
            path = project.root / name.strip()
            what = f"{path}: {state}, not as params.yaml and this mhrctl make it; run `mhrctl grid sync`"
            yield Problem(Fault.STALE, path, what)


def _unfinished(project: Project) -> Iterator[Problem]:
    """What killed processes have left, at the next start of whose stage it would be removed."""
    for path in sorted(project.data.glob("**/.*")):
        match = PARTIAL.fullmatch(path.name)
        if (match and not is_alive(path)) or (path.name.endswith((".old", ".partial")) and not match):
            yield Problem(
                Fault.UNFINISHED, path, f"{path}: left by a killed command; the same command removes it, or do so yourself"
            )
