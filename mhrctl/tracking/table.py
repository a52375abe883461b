"""`--track` names these trackers. Nothing here imports one, nor accelerate: a row does when it is opened."""

from __future__ import annotations

from collections.abc import Iterable

from mhrctl.errors import ParamsError, TrackingError, unknown
from mhrctl.tracking.accelerated import accelerated
from mhrctl.tracking.backend import Backend
from mhrctl.tracking.tensorboard import open_tensorboard

TRACKERS: dict[str, Backend] = {
    "tensorboard": Backend("tensorboard", "tensorboard", open_tensorboard),
    "wandb": Backend(
        "wandb",
        "wandb",
        accelerated("wandb", lambda of: {"run_name": of.project, "name": of.name, "dir": str(of.folder)}),
    ),
    "mlflow": Backend(
        "mlflow",
        "mlflow",
        accelerated("mlflow", lambda of: {"experiment_name": of.project, "run_name": of.name}),
    ),
    "comet_ml": Backend(
        "comet_ml",
        "comet_ml",
        # the name is that of Comet's project: an experiment gets its own from an object of Comet's alone
        accelerated("comet_ml", lambda of: {"run_name": f"{of.project}-{of.name}"}),
    ),
    "aim": Backend(
        "aim",
        "aim",
        accelerated("aim", lambda of: {"run_name": of.name, "logging_dir": str(of.folder), "experiment": of.project}),
    ),
    "clearml": Backend(
        "clearml",
        "clearml",
        accelerated("clearml", lambda of: {"project_name": of.project, "task_name": of.name}),
    ),
    "dvclive": Backend(
        "dvclive",
        "dvclive",
        # left alone, DVCLive commits an experiment to git and writes a dvc.yaml: here stages are DVC's already
        accelerated(
            "dvclive",
            lambda of: {
                "dir": str(of.folder / "dvclive" / of.name),
                "resume": True,
                "save_dvc_exp": False,
                "dvcyaml": None,
                "report": None,
            },
        ),
    ),
    "swanlab": Backend(
        "swanlab",
        "swanlab",
        accelerated("swanlab", lambda of: {"run_name": of.project, "experiment_name": of.name, "logdir": str(of.folder)}),
    ),
    "trackio": Backend(
        "trackio",
        "trackio",
        accelerated("trackio", lambda of: {"run_name": of.project, "name": of.name}),
    ),
}


def require_trackers(names: Iterable[str]) -> None:
    """See that trackers are known and installed, before anything is read or computed.

    Raises:
        ParamsError: if there is no such tracker.
        TrackingError: if its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise ParamsError(f"--track: {unknown('tracker', name, TRACKERS)}")
        try:
            TRACKERS[name].require()
        except TrackingError as error:
            raise TrackingError(f"--track {name}: {error}") from None
