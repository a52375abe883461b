"""MLflow chooses the identifiers of runs itself, so a run is known again by a tag."""

from __future__ import annotations

from mhrctl.tracking.accelerated import Accelerated, tracker_class
from mhrctl.tracking.backend import Subject

ENTRY = "mhrctl.entry"
"""The tag with the identifier of the entry."""


def open_mlflow(subject: Subject) -> Accelerated:
    """Open a run of the project's experiment, or go on in that of a killed command."""
    import mlflow

    run = None
    if subject.is_continued and mlflow.get_experiment_by_name(subject.project):
        matches = mlflow.search_runs(
            experiment_names=[subject.project],
            filter_string=f"tags.`{ENTRY}` = '{subject.entry}'",
            max_results=1,
            output_format="list",
        )
        run = matches[0].info.run_id if matches else None
    tracker = tracker_class("mlflow")(experiment_name=subject.project, run_id=run, run_name=subject.name)
    recorder = Accelerated(tracker, subject.config)
    # not by accelerate's `tags`: those become the experiment's too, when it is new
    mlflow.set_tags({ENTRY: subject.entry, "group": subject.group or subject.stage, "stage": subject.stage})
    return recorder
