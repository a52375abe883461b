"""mhrctl trains routed adapters, shared by tasks, for cross-task generalisation.

What is listed here is its public interface for Python (docs/api.md); it is imported when it is first asked for.
"""

from importlib import import_module

__version__ = "0.1.0"
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


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mhrctl' has no attribute {name!r}")
    return getattr(import_module("mhrctl.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
