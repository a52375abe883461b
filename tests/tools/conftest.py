from __future__ import annotations

import pytest
from accelerate import Accelerator

from mhrctl.training.execution import Execution


@pytest.fixture
def execution(accelerator: Accelerator) -> Execution:
    return Execution(accelerator)
