"""What lm-evaluation-harness said of a cell is kept in `data/metrics/harness/<cell>.json`, beside the scores of our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mhrctl.artifacts.cards import known_digest, read_card
from mhrctl.artifacts.names import ADAPTERS, TEST_EXAMPLES, Project
from mhrctl.artifacts.reading import reading
from mhrctl.artifacts.writing import write_json
from mhrctl.config.cells import Cell
from mhrctl.errors import ArtifactError

ZERO_SHOT = "zero_shot"
"""Names the adapter that a new task gets."""


class HarnessScore(BaseModel):
    """This is what the harness said of a task, or of a group of tasks, in the harness's own numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    adapter: str = Field(description="the task that it was adapted to, or zero_shot")
    metrics: dict[str, float] = Field(description="by name, with the harness's filter where it is not none")
    stderr: dict[str, float] = Field({}, description="standard errors, of those that have one")
    higher_is_better: dict[str, bool] = {}
    examples: int | None = Field(None, description="scored; none of a group")
    limit: int | None = Field(None, description="of --limit: the first examples alone")
    fewshot: int = Field(0, description="examples in each prompt")
    version: str | None = Field(None, description="of the task, as its author counts")
    hash: str | None = Field(None, description="of examples, prompts and answers, as the harness hashes them; none of a group")
    harness: str = Field(description="version of lm_eval")
    made_from: dict[str, str] = Field(description="{input: sha256} of the cell's adapters and examples, and the backbone's")

    @property
    def place(self) -> tuple[str, str, int | None, int]:
        """What another run of the same replaces."""
        return self.task, self.adapter, self.limit, self.fewshot


class HarnessScores(BaseModel):
    """These are all scores of a cell by the harness."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str
    scores: list[HarnessScore]


def inputs_of(project: Project, cell: Cell | None) -> dict[str, str]:
    """Return what there is now of all that decides a cell's scores, {input: sha256}; None is the bare backbone.

    Raises:
        ArtifactError: if there is no backbone.
    """
    backbone = read_card(project.output("backbone"), stage="backbone", command="mhrctl backbone").facts.fingerprint
    files = {"test_tasks": project.output("prepare") / TEST_EXAMPLES}
    if cell is not None:
        stage, origin = cell.start
        files["start"] = project.output(stage, origin.name) / ADAPTERS
        files["adapted"] = project.output("adapt", cell.name) / ADAPTERS
    return {"backbone": backbone} | {name: known_digest(file) for name, file in files.items() if file.exists()}


def read_harness(file: Path) -> HarnessScores:
    """Read the scores of a cell by the harness.

    Raises:
        ArtifactError: if they are malformed.
    """
    with reading(file, again="mhrctl evaluate --harness"):
        content = file.read_bytes()
    try:
        return HarnessScores.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{file}: {where}: {first['msg']}; remove it and run `mhrctl evaluate --harness` again") from None


def record(file: Path, cell: str, scores: Iterable[HarnessScore], inputs: Mapping[str, str]) -> int:
    """Add scores to those of a cell, in place of older ones of the same; what was made from other inputs goes.

    Args:
        file: of the cell; made if need be.
        cell: its name.
        scores: to add.
        inputs: {name: sha256} of what there is of the cell now.

    Returns:
        How many scores of other inputs went.
    """
    before = read_harness(file).scores if file.exists() else []
    current = [score for score in before if all(inputs.get(name, mark) == mark for name, mark in score.made_from.items())]
    merged = {score.place: score for score in (*current, *scores)}
    write_json(file, HarnessScores(cell=cell, scores=list(merged.values())).model_dump())
    return len(before) - len(current)
