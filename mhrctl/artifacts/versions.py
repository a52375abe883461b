"""The versions of the stages say when a change of the code changes results: so it enters the cache.

An installed tool is no dependency that DVC could see. So each stage has a number here: `mhrctl grid sync` writes the numbers to
`data/cells/versions.json`, each stage of dvc.yaml depends on its own, and each output says in its card which one made it.
"""

from __future__ import annotations

STAGE_VERSIONS = {
    "prepare": 2,
    "backbone": 2,
    "pretrain": 3,
    "average": 2,
    "index": 2,
    "adapt": 3,
    "evaluate": 4,
    "report": 4,
}
"""{stage: the version of its results}.

Raise a stage's number when, from the same inputs and params, it now writes other results: other numbers, other rows, other
files or another form of them; and when a default of its settings changes, since `data/cells` leaves defaults out. Projects
then rerun that stage and what hangs on it, after `mhrctl grid sync`. Leave it alone for what changes no result: speed, memory,
messages, names, moved code, or a new setting whose default does what was done before. Code that several stages share (losses,
batches, adapters) raises the number of every stage whose results it changes.
"""
