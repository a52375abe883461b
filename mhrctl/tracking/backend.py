"""A backend is what the table of trackers knows of a tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from mhrctl.errors import TrackingError
from mhrctl.progress import Recorder


@dataclass(frozen=True)
class Subject:
    """A subject says whose numbers are recorded.

    Attributes:
        project: the name of the project's folder.
        name: the stage, and the cell where it has one, such as `pretrain-mhr-h8-s0`.
        folder: where a tracker that keeps files may keep them, for all stages and cells.
    """

    project: str
    name: str
    folder: Path


class OpenRecorder(Recorder, Protocol):
    """An open recorder holds files or a connection."""

    def close(self) -> None:
        """Write what is left, and let go."""


@dataclass(frozen=True)
class Backend:
    """A backend is a row of the table of trackers.

    Attributes:
        package: what `pip install` must be given.
        module: what is then importable.
        opens: makes the recorder; called only where the package is installed.
    """

    package: str
    module: str
    opens: Callable[[Subject], OpenRecorder]

    def require(self) -> None:
        """Look for the package, without importing it.

        Raises:
            TrackingError: if it is not installed.
        """
        if find_spec(self.module) is None:
            raise TrackingError(f"the package {self.package} is not installed; run `pip install {self.package}`")
