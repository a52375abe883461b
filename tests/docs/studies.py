"""Studies of a documentation that train for seconds and not for a minute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mhrctl
from mhrctl import api

FEW = {300: 6, 200: 6, 50: 4}
"""{steps that a new project trains for: steps here}."""


def small_study(folder: str | Path, **options: Any) -> mhrctl.Project:
    """Make the project that `mhrctl.init` makes, with few steps."""
    project = api.init(folder, **options)
    params = project.folder / "params.yaml"
    text, changes = re.subn(r"(?<= steps: )\d+", lambda steps: str(FEW[int(steps[0])]), params.read_text(encoding="utf-8"))
    assert changes == len(FEW)
    params.write_text(text.replace("evaluate_every: 10", "evaluate_every: 2"), encoding="utf-8")
    project.sync()
    return project
