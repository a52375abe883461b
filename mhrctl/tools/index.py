"""The index is asked which training tasks have inputs like those of a task."""

from __future__ import annotations

from mhrctl.artifacts.cards import read_card, require_made_from
from mhrctl.artifacts.names import Project
from mhrctl.data.index import load_index
from mhrctl.data.shots import draw_shots
from mhrctl.errors import DataError, unknown


def query(
    task: str, *, project: Project, shots: int | None, validation: int, seed: int, device: str = "cpu"
) -> list[tuple[str, float]]:
    """Rank the training tasks by how similar their inputs are to those of a task.

    Args:
        task: a training task, or a test task, whose inputs are the shots that adaptation would see.
        project: with the outputs of prepare and index.
        shots: of a test task, as adaptation draws them.
        validation: likewise, of its validation examples.
        seed: of the cell whose shots they are.
        device: where to run the index's encoder.

    Returns:
        (training task, cosine), the most similar first; without the task itself.

    Raises:
        ArtifactError: if an output is missing or does not fit.
        DataError: if there is no such task.
    """
    known = load_index(project.output("index"), root=project.root, device=device)
    read_card(project.output("prepare"), stage="prepare", command="mhrctl prepare")
    card = read_card(project.output("index"), stage="index", command="mhrctl index")
    require_made_from(card, project.output("index"), {"prepare": project.output("prepare")})
    if task in known.tasks:
        return known.nearest_to(task)
    drawn = draw_shots(project.output("prepare"), shots=shots, validation=validation, seed=seed)
    prompts = {each.name: each.prompts for each in drawn}
    if task not in prompts:
        raise DataError(f"--task: {unknown('task', task, [*known.tasks, *prompts])}")
    return known.nearest(prompts[task])
