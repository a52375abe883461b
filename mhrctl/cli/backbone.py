"""`mhrctl backbone` makes the frozen backbone."""

from __future__ import annotations

from mhrctl.artifacts import provenance
from mhrctl.artifacts.locking import locked
from mhrctl.artifacts.watching import unedited
from mhrctl.artifacts.writing import logging_run
from mhrctl.cli import display
from mhrctl.cli.options import (
    HERE,
    DeviceOption,
    ForceOption,
    ProjectOption,
    SetOption,
    ThreadsOption,
    TrackOption,
    nothing_to_do,
    open_accelerator,
    open_project,
    recording_of,
)
from mhrctl.cli.signals import seconds_between_checkpoints, stopping
from mhrctl.cli.threads import expected_threads, taken_threads


def backbone(
    project: ProjectOption = HERE,
    set_: SetOption = [],
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    track: TrackOption = [],
    force: ForceOption = False,
) -> None:
    """Fetch the frozen backbone, or train a small one on the suite."""
    where, settings = open_project(project, set_, reads=["backbone"])
    out = where.output("backbone")
    made = provenance.of_backbone(settings.params.backbone, prepared=where.output("prepare"), root=where.root)
    if nothing_to_do(made, out, threads=expected_threads(threads, device), force=force):
        return
    accelerator = open_accelerator(device, threads)
    from mhrctl.stages.backbone import backbone as stage
    from mhrctl.training.execution import Execution

    with (
        locked(out),
        logging_run(where.run_log("backbone"), device=str(accelerator.device), threads=taken_threads()),
        unedited(lambda: open_project(project, set_, reads=["backbone"])[1].params.backbone, *made.watched),
        recording_of(track, where, made) as recorder,
    ):
        card = stage(
            settings.params.backbone,
            prepared=where.output("prepare"),
            root=where.root,
            out=out,
            scratch=where.scratch,
            execution=Execution(
                accelerator,
                track=display.track,
                recorder=recorder,
                warn=display.warn,
                stop=stopping,
                checkpoint_seconds=seconds_between_checkpoints(),
            ),
        )
    facts = card.facts
    from mhrctl.models.generation import described

    shaped = f", generation: {described(facts.generation)}" if facts.generation else ""
    display.done(f"wrote {out}: {facts.name}, {facts.parameters:,} parameters, {facts.fingerprint[:12]}{shaped}")
    if facts.packing is not None:
        display.done("packs sequences" if facts.packing else f"pads sequences: {facts.padded_because}")
