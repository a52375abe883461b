"""This is the public interface of mhrctl for Python, which keeps to semantic versioning: what is listed here, and nothing else.

`import mhrctl` gives all of it by name, such as `mhrctl.Project`, and imports torch only when a cell is loaded or a stage runs.
"""

from mhrctl.api.cell import Cell, FallbackWarning, Row, Scores
from mhrctl.api.commands import DeviceOptions, EvaluateOptions, LoadOptions, StageOptions, TrainOptions
from mhrctl.api.project import Project, init
from mhrctl.api.records import CellState, Output, Result, Routing
from mhrctl.api.stages import RunError
from mhrctl.errors import ArtifactError, DataError, DivergedError, MhrctlError, ParamsError, TrackingError

__all__ = [
    "ArtifactError",
    "Cell",
    "CellState",
    "DataError",
    "DeviceOptions",
    "DivergedError",
    "EvaluateOptions",
    "FallbackWarning",
    "LoadOptions",
    "MhrctlError",
    "Output",
    "ParamsError",
    "Project",
    "Result",
    "Routing",
    "Row",
    "RunError",
    "Scores",
    "StageOptions",
    "TrackingError",
    "TrainOptions",
    "init",
]
