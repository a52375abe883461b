"""A routed family is served as one LoRA a task; `routes.json` says which is whose, for a proxy or a resolver to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from mhrctl.adapters.adapter import Adapter
from mhrctl.artifacts.facts import Base
from mhrctl.artifacts.hashing import content_hash
from mhrctl.artifacts.names import Project
from mhrctl.artifacts.writing import read_json, write_json
from mhrctl.config.cells import Cell
from mhrctl.data.table import task_metrics
from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.evaluation.scores import read_metrics_of
from mhrctl.interchange.peft import CONFIG, TENSORS
from mhrctl.interchange.serving import max_lora_rank
from mhrctl.models.backbones import framing_of

ROUTES = "routes.json"
FORM = 1
"""Of routes.json: raised where a reader would have to change."""


def require_servable_backbone(config: PretrainedConfig, place: str, revision: str | None, *, transposed: bool) -> None:
    """Check that servers know a backbone's layers by the names that they have here.

    Args:
        config: of the language model.
        place: where the backbone is: a hub id or a folder.
        revision: on the hub.
        transposed: whether adapted layers keep their weights as [d_in, d_out].

    Raises:
        ParamsError: if they do not.
    """
    kind = config.model_type
    if framing_of(config) != "causal":
        raise ParamsError(
            f"--to serving: vLLM and SGLang serve no encoder-decoder, such as this {kind}; use --to peft and transformers, or"
            " `mhrctl predict` (docs/serving.md)"
        )
    if transposed:
        raise ParamsError(f"--to serving: the layers of {kind} have transposed weights, to which no server adds a LoRA")
    whole = PretrainedConfig.get_config_dict(place, revision=revision)[0].get("model_type")
    if whole not in (None, kind):
        raise ParamsError(
            f"--to serving: {place} is a {whole}, whose layers are called otherwise than those of its {kind}, which is adapted"
            " here, so that a server would pass over the adapter; use --merge"
        )


def write_routes(
    folder: Path,
    folders: Mapping[str, Path],
    *,
    cell: Cell,
    stage: str,
    base: Base,
    suite: str,
    adapter: Adapter,
    tasks: Sequence[str],
    project: Project,
) -> Path:
    """Write which adapter answers which task.

    Args:
        folder: to write into.
        folders: {task: its adapter}.
        cell: whose adapters they are.
        stage: that has made them.
        base: the backbone that they belong on.
        suite: of the tasks.
        adapter: before its routing was composed, a run for each of `tasks`.
        tasks: of the stage's output, in order.
        project: in which scores are looked up.

    Returns:
        The file.
    """
    metrics, scores = task_metrics(project.output("prepare")), _scores(project, cell)
    routes: dict[str, dict[str, Any]] = {}
    ranks = {task: int(read_json(path / CONFIG)["r"]) for task, path in folders.items()}
    for task, path in folders.items():
        weights = _routing(adapter, tasks.index(task))
        routes[task] = {
            "model": path.name,
            "adapter": path.relative_to(folder).as_posix(),
            "sha256": content_hash(path / TENSORS),
            "rank": ranks[task],
            "metric": metrics.get(task),
            "score": scores.get(task),
            **({"skills": weights} if weights else {}),
        }
    file = folder / ROUTES
    record = {
        "form": FORM,
        "base": base.model_dump(),
        "suite": suite,
        "cell": cell.name,
        "stage": stage,
        "max_lora_rank": max_lora_rank(max(ranks.values())),
        "routes": routes,
    }
    write_json(file, record)
    return file


def _scores(project: Project, cell: Cell) -> Mapping[str, float]:
    """{task: its score after adaptation}; nothing where the cell was not evaluated, or not as it is now."""
    file = project.scores(cell.name)
    if not file.exists():
        return {}
    try:
        return read_metrics_of(file).own_scores("adapted")
    except ArtifactError:
        return {}


@torch.no_grad()
def _routing(adapter: Adapter, run: int) -> list[float]:
    """How much each skill counts in a task's LoRA, the mean over layers and heads; nothing without a routing."""
    weights = adapter.select([run]).mixing(torch.tensor([[0]]))
    if not weights:
        return []
    mean = torch.stack([of_layer[0].mean(0) for of_layer in weights.values()]).mean(0)
    return [round(weight, 4) for weight in mean.tolist()]
