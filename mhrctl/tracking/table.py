"""`--track` names these trackers. Nothing here imports one, nor accelerate: a row does when it is opened."""

from __future__ import annotations

from collections.abc import Iterable

from mhrctl.errors import ParamsError, TrackingError, unknown
from mhrctl.tracking.accelerated import accelerated
from mhrctl.tracking.backend import Backend
from mhrctl.tracking.mlflow import open_mlflow
from mhrctl.tracking.tensorboard import open_tensorboard
from mhrctl.tracking.trackio import open_trackio
from mhrctl.tracking.wandb import open_wandb

TRACKERS: dict[str, Backend] = {
    "tensorboard": Backend("tensorboard", "tensorboard", open_tensorboard),
    "trackio": Backend("trackio", "trackio", open_trackio, lambda of: {"TRACKIO_DIR": str(of.folder / "trackio")}),
    "wandb": Backend(
        "wandb",
        "wandb",
        open_wandb,
        lambda _: {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off", "WANDB_SILENT": "true"},
    ),
    "mlflow": Backend(
        "mlflow",
        "mlflow",
        open_mlflow,
        # files and no data base: its light package, mlflow-skinny, has none, and stages of a grid write at the same time
        lambda of: {
            "MLFLOW_TRACKING_URI": (of.folder / "mlflow").absolute().as_uri(),
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    ),
    "dvclive": Backend(
        "dvclive",
        "dvclive",
        # left alone, DVCLive commits an experiment to git and writes a dvc.yaml: here stages are DVC's already
        accelerated(
            "dvclive",
            lambda of: {
                "dir": str(of.folder / "dvclive" / of.name),
                "resume": of.is_continued,
                "save_dvc_exp": False,
                "dvcyaml": None,
                "report": None,
            },
        ),
        lambda _: {"DVC_STUDIO_OFFLINE": "true"},
    ),
    "comet_ml": Backend(
        "comet_ml",
        "comet_ml",
        # the name is that of Comet's project: an experiment gets its own from an object of Comet's alone
        accelerated("comet_ml", lambda of: {"run_name": f"{of.project}-{of.name}"}),
        lambda of: {"COMET_START_ONLINE": "false", "COMET_OFFLINE_DIRECTORY": str(of.folder / "comet_ml")},
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
        lambda _: {"CLEARML_OFFLINE_MODE": "1"},
    ),
    "swanlab": Backend(
        "swanlab",
        "swanlab",
        accelerated(
            "swanlab",
            lambda of: {"run_name": of.project, "name": of.name, "group": of.group, "logdir": str(of.folder / "swanlab")},
        ),
        lambda _: {"SWANLAB_MODE": "offline"},
    ),
}


def named(texts: Iterable[str]) -> list[str]:
    """Return the trackers that are named, with commas between those of a text."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


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
