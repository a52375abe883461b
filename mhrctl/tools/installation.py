"""What is installed, against what `pyproject.toml` asks for: Python, packages, extras, trackers, programs."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mhrctl
from mhrctl.errors import TrackingError, counted, listed
from mhrctl.running.internals import TESTED
from mhrctl.tracking.table import TRACKERS

NAMED = ("torch", "transformers", "dvc", "accelerate", "datasets")
"""Packages with a line of their own, whatever is to be said of them."""
EXTRAS: Mapping[str, str] = {
    "dask": "mhrctl run --dask, --dask-config",
    "gguf": "backbone.gguf",
    "harness": "mhrctl evaluate --harness",
    "lora_hub": "the method lora_hub",
    "notebooks": "the notebook of docs/notebooks, in Jupyter",
    "peft": "mhrctl export to PEFT folders",
    "quantised": "backbone.quantisation",
    "tracking": "--track",
}
"""{extra: what needs it}; those for developers are not among them."""


class State(StrEnum):
    """How something is."""

    OK = "ok"
    ABSENT = "-"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """A finding is what there is to say of one thing.

    Attributes:
        name: of the thing.
        says: what it is, in a few words.
        state: how it is; what is absent is needed by some commands only.
        remedy: what to do, where anything is to be done.
        facts: the same as numbers and names, for programs.
    """

    name: str
    says: str
    state: State = State.OK
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


def versions() -> Iterator[Finding]:
    """Look at Python, mhrctl, and the packages that it cannot do without."""
    place = Path(mhrctl.__file__).parent
    yield Finding(
        "python", f"{platform.python_version()}, {sys.prefix}", facts={"version": platform.python_version(), "at": sys.prefix}
    )
    yield Finding("platform", platform.platform(), facts={"system": platform.system(), "machine": platform.machine()})
    installed = _distribution()
    mine = {"version": mhrctl.__version__, "at": str(place)}
    if installed is None:
        note = "it is not installed, so what it requires is not known"
        yield Finding(
            "mhrctl", f"{mhrctl.__version__}, {place}; {note}", State.WARNING, "install it with pip or uv", facts=mine
        )
        return
    if installed.version != mhrctl.__version__:
        said = f"{mhrctl.__version__}, {place}; installed is {installed.version}"
        yield Finding("mhrctl", said, State.WARNING, "look at PYTHONPATH, or install it again", facts=mine)
    else:
        yield Finding("mhrctl", f"{mhrctl.__version__}, {place}", facts=mine)
    yield from _packages(requirements(installed, None))


def _packages(required: Sequence[Requirement]) -> Iterator[Finding]:
    fine: dict[str, str] = {}
    for requirement in required:
        name, here, wanted = requirement.name, _version(requirement.name), str(requirement.specifier)
        facts = {"version": here, "required": wanted}
        if here is None:
            yield Finding(name, "is not installed", State.BROKEN, f"pip install '{name}{wanted}'", facts)
        elif not requirement.specifier.contains(here, prereleases=True):
            yield Finding(name, f"{here}, where {wanted} is required", State.BROKEN, f"pip install '{name}{wanted}'", facts)
        elif name == "dvc" and not TESTED.contains(here, prereleases=True):
            yield Finding(name, f"{here}: `mhrctl run` is slower with it", State.WARNING, f"pip install 'dvc{TESTED}'", facts)
        elif name in NAMED:
            yield Finding(name, here, facts=facts)
        else:
            fine[name] = here
    yield Finding("others", f"{counted(len(fine), 'package')}, as required", facts={"versions": fine})


def extras() -> Iterator[Finding]:
    """Look at what only some commands need."""
    installed = _distribution()
    names = installed.metadata.get_all("Provides-Extra") or [] if installed else []
    for extra in names:
        if installed and extra in EXTRAS:
            yield _extra(extra, requirements(installed, extra))
    here = [name for name in TRACKERS if _is_installed(name)]
    others = [name for name in TRACKERS if name not in here]
    yield Finding(
        "trackers",
        f"{listed(here)}; not here: {listed(others)}" if here else f"none of {listed(others)}",
        State.OK if here else State.ABSENT,
        "" if here else "for --track: pip install one",
        {"installed": here, "absent": others},
    )
    git = shutil.which("git")
    yield Finding(
        "git",
        git or "is not installed",
        State.OK if git else State.ABSENT,
        "" if git else "for projects in git, which `mhrctl init --no-scm` leaves out",
        {"at": git},
    )


def _extra(extra: str, required: Sequence[Requirement]) -> Finding:
    here = {requirement.name: _version(requirement.name) for requirement in required}
    missing = [name for name, of in here.items() if of is None]
    unfit = [
        f"{requirement.name} {of}, where {requirement.specifier} is required"
        for requirement in required
        if (of := here[requirement.name]) and not requirement.specifier.contains(of, prereleases=True)
    ]
    facts = {"packages": here, "for": EXTRAS[extra]}
    install = f"pip install 'mhrctl[{extra}]'"
    if unfit:
        return Finding(extra, listed(unfit), State.WARNING, install, facts)
    if missing:
        return Finding(extra, f"without {listed(missing)}", State.ABSENT, f"for {EXTRAS[extra]}: {install}", facts)
    return Finding(extra, listed([f"{name} {of}" for name, of in here.items()]), facts=facts)


def requirements(of: Distribution, extra: str | None) -> list[Requirement]:
    """Return what a distribution requires on this machine: always, or for one of its extras.

    Args:
        of: the distribution.
        extra: its name; None for what is always required.
    """
    every = [Requirement(line) for line in of.requires or []]
    return [each for each in every if _is_for(each, extra) and (extra is None or not _is_for(each, None))]


def _is_for(requirement: Requirement, extra: str | None) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""})


def _distribution() -> Distribution | None:
    try:
        return distribution("mhrctl")
    except PackageNotFoundError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(canonicalize_name(package))
    except PackageNotFoundError:
        return None


def _is_installed(tracker: str) -> bool:
    try:
        TRACKERS[tracker].require()
    except TrackingError:
        return False
    return True
