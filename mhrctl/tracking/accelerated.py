"""Trackers that accelerate knows become recorders: what differs between them is in accelerate, and in a row's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mhrctl.tracking.backend import Scalar, Subject


class Accelerated:
    """This recorder is one of accelerate's trackers, opened.

    It is used without an `Accelerator`: that would tie a recorder to the object that places models and batches, of which a
    process has one, and whose trackers cannot be chosen once it is made.

    Attributes:
        tracker: the tracker of accelerate.
    """

    def __init__(self, tracker: Any, config: Mapping[str, Scalar] | None = None) -> None:  # noqa: ANN401 - accelerate has no types
        """Open a tracker.

        Args:
            tracker: of accelerate, not started.
            config: whose numbers are recorded, and the settings; None where the tracker has it from its arguments.
        """
        self.tracker = tracker
        self._last = 0
        tracker.start()
        if config:
            tracker.store_init_configuration(dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""
        self.tracker.log(dict(values), step=step)
        self._last = step

    def summary(self, values: Mapping[str, float]) -> None:
        """Take what the stage has come to, at the last step: some trackers drop numbers of a step that has passed."""
        self.tracker.log({f"summary/{name}": value for name, value in values.items()}, step=self._last)

    def close(self) -> None:
        """Write what is left, and let go."""
        self.tracker.finish()


def accelerated(name: str, arguments: Callable[[Subject], dict[str, Any]]) -> Callable[[Subject], Accelerated]:
    """Return what opens one of accelerate's trackers.

    Args:
        name: as accelerate calls it.
        arguments: of the tracker's class in accelerate, which passes those that it does not know on to the tracker's package.
            Where `config` is not one of them, it is sent afterwards.
    """

    def opens(subject: Subject) -> Accelerated:
        given = arguments(subject)
        return Accelerated(tracker_class(name)(**given), None if "config" in given else subject.config)

    return opens


def tracker_class(name: str) -> Any:  # noqa: ANN401 - accelerate has no types
    """Return the class of a tracker in accelerate."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return LOGGER_TYPE_TO_CLASS[name]
