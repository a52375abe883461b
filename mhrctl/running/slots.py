"""What a machine can run at once: slots, such as GPUs, that jobs take whole, in parts, or several of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mhrctl.errors import ParamsError
from mhrctl.running.pipeline import command_of

EPSILON = 1e-9


class Slots:
    """Slots, by name, and who holds them.

    A job of a stage takes its share of them: a part of one, or a whole number; one if not said. At most `limit` jobs run at
    once, whatever they take. With `gpus`, names are numbers of GPUs, which jobs see as CUDA_VISIBLE_DEVICES.

    Raises:
        ParamsError: if a stage takes more than there is, or one slot and a part of another.
    """

    def __init__(
        self, names: Sequence[str], shares: Mapping[str, float], *, limit: int | None = None, gpus: bool = False
    ) -> None:
        for stage, share in shares.items():
            if share > len(names):
                raise ParamsError(f"run.slots.{stage}: {share:g} is more than the {len(names)} slots there are")
            if share > 1 and share != int(share):
                raise ParamsError(f"run.slots.{stage}: {share:g} is neither a part of a slot nor a whole number of them")
        self._free = dict.fromkeys(names, 1.0)
        self._shares, self._gpus = shares, gpus
        self._held: dict[str, Mapping[str, float]] = {}
        self.limit = limit or sum(int(1 / min([1.0, *shares.values()]) + EPSILON) for _ in names)

    def take(self, holder: str, stage: str) -> dict[str, float] | None:
        """Take what a job of a stage needs, as {slot: share}; None if that is not free."""
        share = self._shares.get(stage, self._shares.get(command_of(stage), 1.0))
        room = [name for name, free in self._free.items() if free >= min(share, 1.0) - EPSILON]
        if share < 1:
            room.sort(key=lambda name: self._free[name])  # the fullest first, so that whole ones stay free
        count = max(1, int(share))
        if len(self._held) >= self.limit or len(room) < count:
            return None
        taken = dict.fromkeys(room[:count], min(share, 1.0))
        self.claim(holder, taken)
        return taken

    def claim(self, holder: str, taken: Mapping[str, float]) -> None:
        """Count slots as held by a job that has them already; names that are no slots here count as a job only."""
        self._held[holder] = taken
        for name in self._free.keys() & taken.keys():
            self._free[name] -= taken[name]

    def release(self, holder: str) -> None:
        """Give back what a job held."""
        taken = self._held.pop(holder, {})
        for name in self._free.keys() & taken.keys():
            self._free[name] += taken[name]

    def environment(self, taken: Iterable[str]) -> dict[str, str]:
        """What a job must know of its slots."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(taken)} if self._gpus else {}


def make_slots(jobs: int | None, gpus: Sequence[str], slots: int | None, shares: Mapping[str, float]) -> Slots:
    """Make slots as the command line asks for them: some GPUs or a number of slots, which count with shares, or jobs alone.

    Raises:
        ParamsError: if options contradict each other or a stage takes more than there is.
    """
    if gpus and slots:
        raise ParamsError("--gpus and --slots both say what there is; leave one out")
    names = list(gpus) or [str(number) for number in range(slots or jobs or 1)]
    if gpus or slots:
        return Slots(names, shares, limit=jobs, gpus=bool(gpus))
    return Slots(names, {}, limit=jobs or 1)
