"""A backend is what the table of trackers knows of a tracker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mhrctl.errors import TrackingError
from mhrctl.progress import Recorder

Scalar = bool | int | float | str
"""Trackers take settings of these types alone."""


@dataclass(frozen=True)
class Subject:
    """A subject says whose numbers are recorded.

    Attributes:
        project: the name of the project's folder.
        stage: the stage.
        folder: where a tracker that keeps files may keep them, for all stages and cells.
        cell: the name of the cell; None for a stage without cells.
        group: what the cells of all seeds are called, such as `mhr-h8`; None for a stage without cells.
        settings: what decides the output, as its card has it.
        key: a hash of all that decides the output: settings, inputs, versions.
        lock: the hash of dvc.lock; None where there is none.
        entry: an identifier of what a tracker has of this output.
        is_continued: whether a killed command has begun the entry.
    """

    project: str
    stage: str
    folder: Path
    cell: str | None = None
    group: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    lock: str | None = None
    entry: str = ""
    is_continued: bool = False

    @property
    def name(self) -> str:
        """The stage, and the cell where it has one, such as `pretrain-mhr-h8-s0`."""
        return f"{self.stage}-{self.cell}" if self.cell else self.stage

    @property
    def config(self) -> dict[str, Scalar]:
        """What a tracker keeps beside the numbers: whose they are, and the settings, one name each; null ones are left out."""
        whose = {"stage": self.stage, "group": self.group, "key": self.key, "dvc_lock": self.lock}
        return _flat(whose | dict(self.settings))


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Scalar]:
    """Settings by their whole names, such as `pretrain.lr`; a list is its JSON."""
    flat: dict[str, Scalar] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        elif value is not None:
            flat[f"{above}{name}"] = value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
    return flat


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
        local: returns {variable of the environment: value} by which the package keeps to this machine. A variable that is set
            is left as it is: so whoever wants a server says so, in the package's own way.
    """

    package: str
    module: str
    opens: Callable[[Subject], OpenRecorder]
    local: Callable[[Subject], Mapping[str, str]] = lambda _: {}

    def require(self) -> None:
        """Look for the package, without importing it.

        Raises:
            TrackingError: if it is not installed.
        """
        if find_spec(self.module) is None:
            raise TrackingError(f"the package {self.package} is not installed; run `pip install {self.package}`")
