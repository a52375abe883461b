"""The module of a source is found by its row in the table of sources, and imported only when it is wanted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from mhrctl.config.params import Params
from mhrctl.config.sources import SOURCES
from mhrctl.config.tasks import PrepareParams
from mhrctl.progress import Track
from mhrctl.suites.task import Metrics, Seen, Suite


class SourceModule(Protocol):
    """The module of every source has these functions."""

    def read(self, params: PrepareParams, root: Path, *, metrics: Metrics, track: Track) -> Suite:
        """Read the tasks.

        Args:
            params: the section of params.yaml.
            root: what relative paths in it are relative to.
            metrics: those that a task may name.
            track: shows progress.

        Raises:
            DataError: naming what is missing or malformed, and where.
        """

    def check(self, params: Params, root: Path, *, metrics: Metrics) -> Seen:
        """Look whether what params.yaml names is there and looks right. Nothing is fetched, and nothing large is read.

        Args:
            params: the whole of params.yaml, since other sections may ask something of the tasks.
            root: what relative paths in it are relative to.
            metrics: those that a task may name.

        Raises:
            DataError: naming what is missing or malformed, and the setting.
        """


def source_module(name: str) -> SourceModule:
    """Import the module of a source."""
    return cast("SourceModule", import_module(SOURCES[name].module))
