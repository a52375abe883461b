# What type checkers see of the package, whose names are imported when they are first asked for.
from mhrctl.api.cell import Cell as Cell
from mhrctl.api.cell import FallbackWarning as FallbackWarning
from mhrctl.api.cell import Row as Row
from mhrctl.api.cell import Scores as Scores
from mhrctl.api.commands import DeviceOptions as DeviceOptions
from mhrctl.api.commands import EvaluateOptions as EvaluateOptions
from mhrctl.api.commands import LoadOptions as LoadOptions
from mhrctl.api.commands import StageOptions as StageOptions
from mhrctl.api.commands import TrainOptions as TrainOptions
from mhrctl.api.project import Project as Project
from mhrctl.api.project import init as init
from mhrctl.api.records import CellState as CellState
from mhrctl.api.records import Output as Output
from mhrctl.api.records import Result as Result
from mhrctl.api.records import Routing as Routing
from mhrctl.api.stages import RunError as RunError
from mhrctl.errors import ArtifactError as ArtifactError
from mhrctl.errors import DataError as DataError
from mhrctl.errors import DivergedError as DivergedError
from mhrctl.errors import MhrctlError as MhrctlError
from mhrctl.errors import ParamsError as ParamsError
from mhrctl.errors import TrackingError as TrackingError

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
    "__version__",
    "init",
]
__version__: str
